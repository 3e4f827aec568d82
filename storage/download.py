"""Where are the public data sets, and how do they get here whole? Only ever called when a user asks for it.

Each file is named by its official address, with the size and checksum that are publicly known for it; where none is
known, what was measured is shown. A file appears under its name only when it is complete and its checksum right.
Licences are the sources': MovieLens and Book-Crossing are for research and may not be passed on without permission.
"""

import hashlib
import http.client
import logging
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from storage.disk import write_through
from storage.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_LARGEST = 4 << 30
"""Bytes that a file may have, packed or unpacked: more is no data set of this list."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Remote:
    """One file at its official address.

    bytes, sha256, md5: as publicly known, None where not. members: for a zip, name in the archive -> name of the file
    to write; only these are unpacked, under these names, so no path of the archive is ever followed.
    """

    url: str
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    members: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Last part of the address."""
        return self.url.rpartition("/")[2]


def _inside(edition: str, *files: str) -> dict[str, str]:
    return {f"{edition}/{file}": file for file in files}


_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_CSV = ("README.txt", "movies.csv", "ratings.csv")
_BX = ("BX-Users.csv", "BX-Books.csv", "BX-Book-Ratings.csv")
_SNAP = "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
SOURCES: dict[str, tuple[Remote, ...]] = {
    "ml-1m": (
        Remote(
            f"{_GROUPLENS}/ml-1m.zip",
            sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
            md5="c4d9eecfca2ab87c1945afe126590906",
            members=_inside("ml-1m", "README", "users.dat", "movies.dat", "ratings.dat"),
        ),
    ),
    "ml-latest-small": (
        Remote(
            f"{_GROUPLENS}/ml-latest-small.zip",
            sha256="696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
            members=_inside("ml-latest-small", *_CSV),
        ),
    ),
    "ml-25m": (
        Remote(
            f"{_GROUPLENS}/ml-25m.zip",
            bytes=261_978_986,
            sha256="8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
            md5="6b51fb2759a8657d3bfcbfc42b592ada",
            members=_inside("ml-25m", *_CSV),
        ),
    ),
    "ml-32m": (
        Remote(
            f"{_GROUPLENS}/ml-32m.zip",
            bytes=238_950_008,
            sha256="e4a68655d7386b8f95f2f2424b2ff975dfdd15ffd59e0d864a14dca43e99d6ee",
            members=_inside("ml-32m", *_CSV),
        ),
    ),
    # The address of the paper (Ziegler et al. 2005); its server has been unreachable for long spells.
    "book-crossing": (
        Remote(
            "http://www2.informatik.uni-freiburg.de/~cziegler/BX/BX-CSV-Dump.zip",
            bytes=26_085_508,
            md5="37d647ee9e18ba134ea6d78ee4fe5292",
            members={name: name for name in _BX},
        ),
    ),
    # Reviews first, then metadata. No checksum of these is published.
    "amazon-beauty": (Remote(f"{_SNAP}/reviews_Beauty_5.json.gz"), Remote(f"{_SNAP}/meta_Beauty.json.gz")),
}


def fetch(name: str, folder: Path, *, say: Callable[[str], None] = logger.info) -> list[Path]:
    """Download data set `name` of SOURCES into `folder`; the files written. Raises as `fetch_file`, and ConfigError."""
    if name not in SOURCES:
        raise ConfigError(f"no data set {name!r} can be downloaded; these can: {', '.join(SOURCES)}")
    return [path for remote in SOURCES[name] for path in fetch_file(remote, folder / remote.name, say=say)]


def fetch_file(remote: Remote, target: Path, *, say: Callable[[str], None] = logger.info) -> list[Path]:
    """Download one file to `target`, or unpack its members beside it where it is a zip; the files written.

    say: gets a line with the address before, and one with size and checksum after.
    Raises DataError naming the address where it cannot be reached, ends early, or is not the file it should be, and
    StoreError where a file cannot be written. Nothing half-done stays.
    """
    expected = f"{remote.bytes:,} bytes" if remote.bytes else "size not published"
    say(f"downloading {remote.url} ({expected})")
    packed = target.with_name(f".{target.name}.download") if remote.members else target
    try:
        write_through(packed, lambda path: _receive(remote, path, say))
        if not remote.members:
            return [target]
        return _unpack(remote, packed, target.parent, say)
    finally:
        if remote.members:
            packed.unlink(missing_ok=True)


def _receive(remote: Remote, path: Path, say: Callable[[str], None]) -> None:
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    try:
        response = urllib.request.urlopen(remote.url, timeout=60)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise DataError(f"{remote.url} cannot be reached: {getattr(error, 'reason', error)}") from error
    with response, path.open("wb") as file:
        promised = int(response.headers.get("Content-Length") or remote.bytes or 0)
        largest = remote.bytes or _LARGEST
        while True:
            try:
                chunk = response.read(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise DataError(f"{remote.url} broke off after {size:,} bytes: {error}") from error
            if not chunk:
                break
            size += len(chunk)
            if size > largest:
                raise DataError(f"{remote.url} has more than the {largest:,} bytes it may have")
            sha256.update(chunk)
            md5.update(chunk)
            file.write(chunk)
    if size < max(promised, remote.bytes or 0):
        raise DataError(f"{remote.url} broke off after {size:,} of {max(promised, remote.bytes or 0):,} bytes")
    for kind, wanted, got in (("sha256", remote.sha256, sha256.hexdigest()), ("md5", remote.md5, md5.hexdigest())):
        if wanted is not None and wanted != got:
            raise DataError(f"{remote.url} is not the published file: its {kind} is {got}, it should be {wanted}")
    judged = "as published" if remote.sha256 or remote.md5 else "measured, none is published"
    say(f"{remote.name}: {size:,} bytes, sha256 {sha256.hexdigest()} ({judged})")


def _unpack(remote: Remote, packed: Path, folder: Path, say: Callable[[str], None]) -> list[Path]:
    """The members of a zip, written to `folder` under the names of the table."""
    written = []
    try:
        with zipfile.ZipFile(packed) as archive:
            for member, name in remote.members.items():
                with archive.open(member) as source:
                    write_through(folder / name, lambda path, source=source: _copy(source, path, remote))
                written.append(folder / name)
                say(f"unpacked {folder / name}: {(folder / name).stat().st_size:,} bytes")
    except KeyError as error:
        raise DataError(f"{remote.url} is not the archive expected: {error}") from error
    except (zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{remote.url} is a damaged archive: {error}") from error
    return written


def _copy(source: IO[bytes], path: Path, remote: Remote) -> None:
    size = 0
    with path.open("wb") as file:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > _LARGEST:
                raise DataError(f"{remote.url} unpacks to more than the {_LARGEST:,} bytes a file may have")
            file.write(chunk)
