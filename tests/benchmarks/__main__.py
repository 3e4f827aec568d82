"""How fast is nightshift beside what you would use instead? Every `bench_*.py` of this folder, one after the other.

python -m tests.benchmarks [NAME ...]      for instance: python -m tests.benchmarks join encode

Each runs in a process of its own and prints its own lines; ratios are of one run on this machine.
"""

import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    """Run the benchmarks asked for, all by default; 1 where one failed."""
    there = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    asked = sys.argv[1:] or there
    unknown = [name for name in asked if name not in there]
    if unknown:
        sys.exit(f"no benchmark {unknown[0]!r}; there are: {', '.join(there)}")
    failed = []
    for name in asked:
        print(f"\n== {name}", flush=True)
        started = time.monotonic()
        if subprocess.run([sys.executable, "-m", f"tests.benchmarks.bench_{name}"], check=False).returncode:
            failed.append(name)
        print(f"   ({time.monotonic() - started:.0f} s)", flush=True)
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
