"""How does a fresh machine get everything nightshift needs? `python3 deploy/install.py`, which `make setup` calls.

It makes the virtual environment, installs torch first (the CPU build, unless the extra `gpu` is wanted) and then the
rest with deploy/constraints.txt, so that pip has nothing to search. It does nothing when nothing changed, and starts
over when an earlier attempt was killed. Only the standard library is used, and only syntax an old Python can read,
so that an old Python gets a sentence instead of a SyntaxError.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "deploy" / "constraints.txt"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
OLDEST, NEWEST = (3, 11), (3, 13)
MEDIA = ("torchvision", "torchaudio", "torchcodec")
"""vLLM asks for them and PyPI has only their CUDA builds, which break `import transformers` beside a CPU torch."""


def main() -> None:
    """Bring the virtual environment up to date with pyproject.toml and the constraints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extras", default="cpu,dev", help="extras of pyproject.toml (default: cpu,dev)")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="the virtual environment (default: .venv)")
    options = parser.parse_args()
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        allowed, found = "{}.{} to {}.{}".format(*OLDEST, *NEWEST), "{}.{}".format(*sys.version_info)
        sys.exit(f"nightshift needs Python {allowed}, and {sys.executable} is {found}: try `make PYTHON=python3.11`")
    extras = sorted(extra.strip() for extra in options.extras.split(",") if extra.strip())
    ready, unfinished = options.venv / ".nightshift-ready", options.venv / ".nightshift-unfinished"
    wanted = fingerprint(extras)
    if ready.is_file() and ready.read_text(encoding="utf-8") == wanted and not unfinished.exists():
        return
    started = time.monotonic()
    make_venv(options.venv, start_over=unfinished.exists())
    unfinished.touch()
    try:
        install(options.venv / "bin" / "python", extras)
    except subprocess.CalledProcessError as error:
        unfinished.unlink()  # pip ended in order, so what is installed is whole; a kill leaves the mark
        sys.exit(f"nightshift: {' '.join(map(str, error.cmd))} failed, see above")
    ready.write_text(wanted, encoding="utf-8")
    unfinished.unlink()
    say(f"ready in {time.monotonic() - started:.0f} s: {options.venv / 'bin' / 'nightshift'}")


def fingerprint(extras: list) -> str:
    """Hash of everything that decides what is installed."""
    files = [ROOT / "pyproject.toml", CONSTRAINTS, Path(__file__)]
    parts = [*extras, sys.version, *(path.read_text(encoding="utf-8") for path in files)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def make_venv(venv: Path, *, start_over: bool) -> None:
    """Make the virtual environment, or keep a working one of this Python version."""
    if start_over:
        say(f"an earlier installation was interrupted: starting {venv} over")
        shutil.rmtree(venv)
    check = f"import pip, sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    if (venv / "bin" / "python").exists() and not subprocess.run([venv / "bin" / "python", "-c", check]).returncode:
        return
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", venv])
    if made.returncode:
        sys.exit("nightshift: `python3 -m venv` does not work here (on Debian and Ubuntu: apt install python3-venv)")


def install(python: Path, extras: list) -> None:
    """Install torch, then nightshift with its extras. Raises CalledProcessError where pip fails."""
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-qq", "--upgrade", "pip>=25"], check=True)
    if "gpu" not in extras and sys.platform == "linux":
        install_cpu_torch(pip)
    say(f"installing nightshift[{','.join(extras)}] (minutes, once)")
    target = f"{ROOT}[{','.join(extras)}]"
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}  # setuptools warns at length that editable is editable
    subprocess.run([*pip, "install", "-qq", "--constraint", CONSTRAINTS, "--editable", target], check=True, env=quiet)
    if "gpu" not in extras:
        subprocess.run([*pip, "uninstall", "-qq", "--yes", *MEDIA], check=True, stderr=subprocess.DEVNULL)


def install_cpu_torch(pip: list) -> None:
    """Install the CPU build of torch: from where pip looks by itself if it is there, else from PyTorch's own index.

    PyPI has only the CUDA build for Linux (gigabytes of libraries a CPU cannot use), and a requirement cannot say
    which index it wants. `torch==X+cpu` can only be met by the CPU build, wherever it is found.
    """
    pins = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    torch = next(line for line in pins if line.startswith("torch==")) + "+cpu"
    say(f"installing {torch}")
    command = [*pip, "install", "-qq", "--no-deps", torch]
    if subprocess.run(command, capture_output=True).returncode:
        subprocess.run([*command, "--index-url", TORCH_CPU_INDEX], check=True)


def say(what: str) -> None:
    """One line of progress."""
    print(f"setup: {what}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    main()
