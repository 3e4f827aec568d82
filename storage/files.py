"""How does a file or a folder of files come to exist, all of it or not at all?

A version is a folder `v000007` beside its sisters. It is written under a temporary name, every file and the folder
are flushed to disk, `manifest.json` goes last, and one rename makes it visible: a reader sees a whole version or none.
Renaming onto an existing version fails, so of two writers exactly one wins. Versions are never edited.
"""

import contextlib
import fcntl
import json
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from storage.disk import make_folder, naming, read_sealed, reading, seal, sha256_file, sync
from storage.errors import ConfigError, StoreError

MANIFEST = "manifest.json"
_VERSION = re.compile(r"v(\d{6,})")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


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


def publish(
    parent: Path, write: Mapping[str, Callable[[Path], object]], *, content_hash: str, meta: Mapping[str, object]
) -> Version:
    """Write one new version under `parent`, or return the latest one if it already holds this content.

    write: file name -> function that writes the file at the path it is given.
    Raises StoreError naming the file that could not be written, or the version that another writer made meanwhile.
    """
    current = latest(parent)
    if current is not None and current.content_hash == content_hash:
        with naming(parent):
            sync(parent)  # its writer may have died between the rename and this
        return current
    number = (current.number if current else 0) + 1
    target = parent / f"v{number:06d}"
    temporary = parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with naming(target):
            make_folder(parent)
            temporary.mkdir()
        files = {}
        for name, write_file in write.items():
            path = temporary / name
            with naming(target / name):
                write_file(path)
                sync(path)
                files[name] = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        manifest = seal(
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


def named(parent: Path, name: str) -> Path:
    """The folder called `name` in `parent`. Raises ConfigError where the name could lead anywhere else."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot name anything stored: use letters, digits, '_', '-' and '.', 100 at most")
    return parent / name


def numbers(parent: Path) -> list[int]:
    """The numbers of all versions under `parent`, ascending, whether they can be read or not."""
    with reading(parent):
        if not parent.is_dir():
            return []
        return sorted(int(match[1]) for path in parent.iterdir() if (match := _VERSION.fullmatch(path.name)))


def path_of(parent: Path, number: int) -> Path:
    """Where version `number` under `parent` lies."""
    return parent / f"v{number:06d}"


def versions(parent: Path) -> list[Version]:
    """All complete versions under `parent`, oldest first."""
    return [read_version(path_of(parent, number)) for number in numbers(parent)]


def latest(parent: Path) -> Version | None:
    """The newest complete version under `parent`, or None."""
    there = numbers(parent)
    return read_version(path_of(parent, there[-1])) if there else None


def version(parent: Path, number: int | None = None) -> Version:
    """Version `number` under `parent`, or the latest. Raises StoreError listing what there is."""
    there = numbers(parent)
    if not there or number not in (None, *there):
        listed = ", ".join(map(str, there)) or "none"
        raise StoreError(f"{parent} has no version {'at all' if number is None else number}; there are: {listed}")
    return read_version(path_of(parent, there[-1] if number is None else number))


def read_version(path: Path) -> Version:
    """The version at `path`. Raises StoreError where its manifest is missing or damaged."""
    manifest = path / MANIFEST
    if not manifest.is_file():
        raise StoreError(f"{manifest} is missing; see `nightshift verify`")
    return Version(path, int(path.name[1:]), read_sealed(manifest))


@contextlib.contextmanager
def held(version: Version) -> Iterator[None]:
    """Keep `vacuum` from taking this version while it is read; it falls with the process. Raises StoreError."""
    with reading(version.path), (version.path / MANIFEST).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def is_held(version: Version) -> bool:
    """Whether some reader holds this version now."""
    with reading(version.path), (version.path / MANIFEST).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def checked(version: Version, name: str) -> Path:
    """Path of a version's file, after re-reading it against the manifest. Raises StoreError where it is damaged."""
    said = version.manifest["files"].get(name)
    path = version.path / name
    with reading(path):
        if said is None or not path.is_file() or sha256_file(path) != said["sha256"]:
            raise StoreError(
                f"{path} is missing or damaged: it is not the file its manifest names; see `nightshift verify`"
            )
    return path


def read_table(version: Version, name: str) -> pl.DataFrame:
    """A version's Parquet file, whole and checked. Raises StoreError where it is damaged or cannot be read."""
    path = checked(version, name)
    with reading(path):
        return pl.read_parquet(path, memory_map=False)


def verify(version: Version) -> list[str]:
    """Re-read every file of a version; one sentence for each that is not what the manifest says."""
    problems = []
    for name, said in version.manifest["files"].items():
        path = version.path / name
        try:
            if not path.is_file():
                problems.append(f"{path} is missing")
            elif path.stat().st_size != said["bytes"]:
                problems.append(f"{path} has {path.stat().st_size} bytes; its manifest says {said['bytes']}")
            elif sha256_file(path) != said["sha256"]:
                problems.append(f"{path} is damaged: its sha256 is not the one in its manifest")
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror}")
    return problems
