"""How do bytes reach the disk so that all of them are there after the power fails, or none?

A file is written under a temporary name, flushed, renamed, and its folder flushed; a new folder's name is flushed in
the folder above it. Whatever the operating system refuses becomes a StoreError that names the file.
"""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from storage.errors import StoreError


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an operating-system error into a StoreError that names the file (a full disk, a missing permission)."""
    try:
        yield
    except (OSError, pl.exceptions.ComputeError) as error:  # polars wraps the operating system's errors in its own
        raise StoreError(f"cannot write {path}: {_reason(error)}; nothing stored before is touched") from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the operating system or polars says of a stored file into a StoreError that names it."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StoreError(f"cannot read {path}: {_reason(error)}; see `nightshift verify`") from error


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, each flushed where its name stands. Raises OSError."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync(path.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds the old bytes or the new ones, whatever happens. Raises StoreError."""
    write_through(path, lambda temporary: temporary.write_bytes(data))


def write_through(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, flush it, and rename it to `path`. Raises StoreError naming `path`."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with naming(path):
        make_folder(path.parent)
        try:
            write(temporary)
            sync(temporary)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):  # what went wrong first is what is said
                temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with its own hash under "seal", so that one flipped bit of it is found."""
    text = json.dumps(content, sort_keys=True)
    return {**content, "seal": hashlib.sha256(text.encode()).hexdigest()}


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON that `read_sealed` reads back, atomically. Raises StoreError."""
    write_atomic(path, json.dumps(seal(content), indent=1, sort_keys=True).encode())


def read_sealed(path: Path) -> dict[str, Any]:
    """What `write_sealed` wrote, with its seal. Raises StoreError where the file is missing or damaged."""
    with reading(path):
        data = path.read_bytes()
    try:
        content = json.loads(data)
        bare = dict(content)
        said = bare.pop("seal")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{path} is damaged ({type(error).__name__}: {error}); see `nightshift verify`") from error
    if seal(bare)["seal"] != said:
        raise StoreError(f"{path} is damaged: its content does not match its seal")
    return content


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
