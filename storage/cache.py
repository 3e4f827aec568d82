"""What is already paid for? Append-only rows, addressed by a key that is a hash of everything that can change them.

A cache is a folder of Parquet parts. A part's name is the sha256 of its bytes and it appears by one rename, so a part
that is there is whole, and every read compares the bytes with the name. A key that comes twice keeps its first row.
"""

import contextlib
import hashlib
import io
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from storage.disk import make_folder, naming, reading, sha256_file, sync
from storage.errors import StoreError
from storage.schema import Schema, check


def parts(folder: Path) -> list[Path]:
    """Every part of the cache in `folder`, in name order."""
    return sorted(folder.glob("[0-9a-f]*.parquet"))


def verify(folder: Path) -> list[str]:
    """Re-read every part of the cache in `folder`; one sentence for each that is not the bytes it was named for."""
    problems = []
    for part in parts(folder):
        try:
            read_part(part, columns=[])
        except StoreError as error:
            problems.append(str(error))
    return problems


def read_part(part: Path, *, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Some columns (or all) of a part, whose bytes are what its name says. Raises StoreError where they are not."""
    with reading(part):
        data = part.read_bytes()
        if hashlib.sha256(data).hexdigest() != part.stem:
            raise StoreError(f"{part} is damaged: its sha256 is not its name")
        return pl.read_parquet(io.BytesIO(data), columns=None if columns is None else list(columns))


class Cache:
    """Rows of `schema` under `folder`, addressed by the string column `key`.

    Open state: the index key -> part, read once (key columns only) and kept up with this process's own appends.
    """

    def __init__(self, folder: Path, schema: Schema, *, key: str) -> None:
        self.folder = folder
        self.schema = schema
        self.key = key
        self._parts: dict[str, Path] = {}
        for part in parts(folder):
            self._index(read_part(part, columns=[key])[key], part)

    def __len__(self) -> int:
        return len(self._parts)

    def __contains__(self, key: str) -> bool:
        return key in self._parts

    def keys(self) -> set[str]:
        """Every key there is."""
        return set(self._parts)

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that are not here, each once, in order."""
        return [key for key in dict.fromkeys(keys) if key not in self._parts]

    def append(self, rows: pl.DataFrame) -> int:
        """Store the rows whose key is new; on return they are on the disk. Returns how many were new.

        Raises DataError where `rows` breaks the schema, StoreError where it cannot be written.
        """
        rows = check(rows, self.schema, table=self.folder.name).unique(self.key, keep="first", maintain_order=True)
        rows = rows.filter([key not in self._parts for key in rows[self.key]])
        if rows.is_empty():
            return 0
        part = self._write(rows)
        self._index(rows[self.key], part)
        return len(rows)

    def fetch(self, keys: Sequence[str], *, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The rows of `keys`, one for each, in the order asked; of all `columns` unless some are named, the key among
        them. Raises StoreError naming a key that is not here."""
        missing = self.missing(keys)
        if missing:
            raise StoreError(f"{self.folder} has no row for {len(missing)} keys, the first {missing[0]}")
        wanted = pl.DataFrame({self.key: list(keys)}, schema={self.key: pl.String})
        asked = wanted.unique()
        names = list(columns or self.schema)
        paths = sorted({self._parts[key] for key in keys})
        found = [read_part(path, columns=names).join(asked, on=self.key, how="semi") for path in paths]
        rows = pl.concat(found) if found else pl.DataFrame(schema=self.schema)
        rows = rows.unique(self.key, keep="first", maintain_order=True)
        return wanted.join(rows, on=self.key, how="left", maintain_order="left").select(names)

    def drop(self, keys: Iterable[str]) -> int:
        """Forget the rows of `keys`: the parts that hold them are written again without. Returns how many went.

        The new part is there before the old one goes, so a crash between loses nothing and the call can be repeated.
        """
        gone = {key for key in keys if key in self._parts}
        for part in sorted({self._parts[key] for key in gone}):
            rows = read_part(part)
            kept = rows.filter([key not in gone for key in rows[self.key]])
            new = self._write(kept) if len(kept) else None
            with naming(part):
                part.unlink()
                sync(self.folder)
            self._parts = {key: place for key, place in self._parts.items() if place != part}
            if new is not None:
                self._index(kept[self.key], new)
        return len(gone)

    def _write(self, rows: pl.DataFrame) -> Path:
        temporary = self.folder / f".{uuid.uuid4().hex}.tmp"
        with naming(self.folder):
            make_folder(self.folder)
            try:
                rows.write_parquet(temporary)
                sync(temporary)
                part = self.folder / f"{sha256_file(temporary)}.parquet"
                temporary.replace(part)
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
            sync(self.folder)
        return part

    def _index(self, keys: pl.Series, part: Path) -> None:
        for key in keys:
            self._parts.setdefault(key, part)
