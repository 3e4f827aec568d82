"""How does a file or a folder of files come to exist, all of it or not at all?

A version is a folder `v000007` beside its sisters. It is written under a temporary name, every file and the folder
are flushed to disk, `manifest.json` goes last, and one rename makes it visible: a reader sees a whole version or none.
Renaming onto an existing version fails, so of two writers exactly one wins. Versions are never edited.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from storage.errors import StoreError

MANIFEST = "manifest.json"
_VERSION = re.compile(r"v(\d{6,})")


@dataclass(frozen=True)
class Version:
    """A complete, immutable folder: `path`, its `number`, and its manifest.

    manifest: `files` (name -> sha256, bytes), `content_hash` (of what the files say, not of when they were written),
    `created_at` (UTC seconds), `meta` (what the writer wants remembered), `seal` (sha256 of all the others).
    """

    path: Path
    number: int
    manifest: dict

    @property
    def content_hash(self) -> str:
        """Hash of the content, equal for equal content whenever and wherever it was written."""
        return self.manifest["content_hash"]

    @property
    def meta(self) -> dict:
        """What the writer wanted remembered."""
        return self.manifest["meta"]


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an operating-system error into a StoreError that names the file (a full disk, a missing permission)."""
    try:
        yield
    except (OSError, pl.exceptions.ComputeError) as error:  # polars wraps the operating system's errors in its own
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StoreError(f"cannot write {path}: {reason or error}; nothing stored before is touched") from error


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


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds the old bytes or the new ones, whatever happens. Raises StoreError."""
    write_through(path, lambda temporary: temporary.write_bytes(data))


def write_through(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, flush it, and rename it to `path`. Raises StoreError naming `path`."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            sync(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def publish(
    parent: Path, write: Mapping[str, Callable[[Path], object]], *, content_hash: str, meta: Mapping[str, object]
) -> Version:
    """Write one new version under `parent`, or return the latest one if it already holds this content.

    write: file name -> function that writes the file at the path it is given.
    Raises StoreError naming the file that could not be written, or the version that another writer made meanwhile.
    """
    current = latest(parent)
    if current is not None and current.content_hash == content_hash:
        return current
    number = (current.number if current else 0) + 1
    target = parent / f"v{number:06d}"
    temporary = parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with naming(target):
            temporary.mkdir(parents=True)
        files = {}
        for name, write_file in write.items():
            path = temporary / name
            with naming(target / name):
                write_file(path)
                sync(path)
                files[name] = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        manifest = _seal(
            {"files": files, "content_hash": content_hash, "created_at": int(time.time()), "meta": dict(meta)}
        )
        with naming(target / MANIFEST):
            (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")
            sync(temporary / MANIFEST)
            sync(temporary)
        try:
            temporary.rename(target)
        except OSError as error:
            if target.exists():
                raise StoreError(f"another writer published {target} meanwhile; run the command again") from error
            raise StoreError(f"cannot write {target}: {error.strerror}") from error
        with naming(parent):
            sync(parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return Version(target, number, manifest)


def versions(parent: Path) -> list[Version]:
    """All complete versions under `parent`, oldest first."""
    if not parent.is_dir():
        return []
    numbers = sorted(int(match[1]) for path in parent.iterdir() if (match := _VERSION.fullmatch(path.name)))
    return [read_version(parent / f"v{number:06d}") for number in numbers]


def latest(parent: Path) -> Version | None:
    """The newest complete version under `parent`, or None."""
    if not parent.is_dir():
        return None
    numbers = [int(match[1]) for path in parent.iterdir() if (match := _VERSION.fullmatch(path.name))]
    return read_version(parent / f"v{max(numbers):06d}") if numbers else None


def version(parent: Path, number: int | None = None) -> Version:
    """Version `number` under `parent`, or the latest. Raises StoreError listing what there is."""
    found = latest(parent) if number is None else None
    if number is not None and (parent / f"v{number:06d}").is_dir():
        found = read_version(parent / f"v{number:06d}")
    if found is None:
        there = ", ".join(str(v.number) for v in versions(parent)) or "none"
        raise StoreError(f"{parent} has no version {'at all' if number is None else number}; there are: {there}")
    return found


def read_version(path: Path) -> Version:
    """The version at `path`. Raises StoreError where its manifest is missing or damaged."""
    manifest = path / MANIFEST
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        sealed = dict(content)
        seal = sealed.pop("seal")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise StoreError(f"{manifest} is missing or damaged ({error}); see `nightshift verify`") from error
    if _seal(sealed)["seal"] != seal:
        raise StoreError(f"{manifest} is damaged: its content does not match its seal")
    return Version(path, int(path.name[1:]), content)


def checked(version: Version, name: str) -> Path:
    """Path of a version's file, after re-reading it against the manifest. Raises StoreError where it is damaged."""
    said = version.manifest["files"].get(name)
    path = version.path / name
    if said is None or not path.is_file() or sha256_file(path) != said["sha256"]:
        raise StoreError(
            f"{path} is missing or damaged: it is not the file its manifest names; see `nightshift verify`"
        )
    return path


def verify(version: Version) -> list[str]:
    """Re-read every file of a version; one sentence for each that is not what the manifest says."""
    problems = []
    for name, said in version.manifest["files"].items():
        path = version.path / name
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif path.stat().st_size != said["bytes"]:
            problems.append(f"{path} has {path.stat().st_size} bytes; its manifest says {said['bytes']}")
        elif sha256_file(path) != said["sha256"]:
            problems.append(f"{path} is damaged: its sha256 is not the one in its manifest")
    return problems


def _seal(manifest: Mapping[str, object]) -> dict:
    text = json.dumps(manifest, sort_keys=True)
    return {**manifest, "seal": hashlib.sha256(text.encode()).hexdigest()}
