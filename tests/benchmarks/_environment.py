"""Where does the library live that we are measured beside? In an environment of its own, made where there is none."""

import os
import subprocess
import sys
from pathlib import Path

import torch


def python_with(library: str, version: str, *, extras: str = "") -> str | None:
    """An interpreter that has `library` beside the torch we run, or None where it cannot be had, which is then said.

    <LIBRARY>_PYTHON names one that is there; else it is made under ~/.cache/nightshift from the package index.
    """
    if named := os.environ.get(f"{library.upper()}_PYTHON"):
        return named
    folder = Path.home() / ".cache" / "nightshift" / f"{library}-{version}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"  making an environment with {library} {version} in {folder}", flush=True)
        wanted = [f"torch=={torch.__version__.split('+')[0]}", f"{library}{extras}=={version}"]
        try:
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"  no {library}: {error}")
            return None
        (folder / "complete").touch()
    return str(python)
