"""Is everything in a data root what its manifests say: bytes, row counts, schemas, norms, keys, lineage?"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl

from storage import files
from storage.cache import parts, read_part
from storage.catalog import path_of, query
from storage.disk import read_sealed
from storage.errors import NightshiftError
from storage.layout import cache_folders, records, version_folders
from storage.schema import (
    FEATURES,
    INTERACTIONS,
    ITEMS,
    PROMPTS,
    QUARANTINE,
    RECOMMENDATIONS,
    REJECTED,
    TEXTS,
    USERS,
    Schema,
    check,
)

_TABLES: dict[str, tuple[Schema, bool]] = {
    "interactions.parquet": (INTERACTIONS, False),
    "users.parquet": (USERS, True),
    "items.parquet": (ITEMS, True),
    "quarantine.parquet": (QUARANTINE, False),
    "features.parquet": (FEATURES, False),
    "rejected.parquet": (REJECTED, False),
    "recommendations.parquet": (RECOMMENDATIONS, False),
}
_CACHES = {"prompts": PROMPTS, "texts": TEXTS}


def inspect(root: Path, *, on_progress: Callable[[int, int], None] | None = None) -> tuple[int, list[str]]:
    """(files read, one sentence for each thing that is wrong); changes nothing.

    on_progress(done, total) is called after each folder.
    """
    n_files, problems = 0, []
    folders = [*version_folders(root), *cache_folders(root)]
    caches = cache_folders(root)
    for done, folder in enumerate(folders, start=1):
        for path in parts(folder) if folder in caches else _version_paths(folder, problems):
            found = _part(path, caches[folder]) if folder in caches else _version(root, path)
            n_files += 1 if folder in caches else len(list(path.glob("*")))
            problems += _caught(found)
        if on_progress:
            on_progress(done, len(folders))
    for path in records(root):
        n_files += 1
        problems += _caught(_record(path))
    if path_of(root).is_file():
        n_files += 1
        problems += _caught(_catalog(root))
    return n_files, problems


def _caught(found: Iterator[str]) -> Iterator[str]:
    try:
        yield from found
    except NightshiftError as error:
        yield str(error)


def _version_paths(folder: Path, problems: list[str]) -> list[Path]:
    try:
        return [files.path_of(folder, number) for number in files.numbers(folder)]
    except NightshiftError as error:
        problems.append(str(error))
        return []


def _version(root: Path, path: Path) -> Iterator[str]:
    version = files.read_version(path)
    damaged = files.verify(version)
    yield from damaged
    if damaged:
        return
    tables = {name: files.read_table(version, name) for name in version.manifest["files"] if name.endswith(".parquet")}
    for name, frame in tables.items():
        if name in _TABLES:
            schema, extra = _TABLES[name]
            check(frame, schema, table=f"{path / name}", extra=extra)
    said = version.meta.get("rows")
    if isinstance(said, dict):
        for name, rows in said.items():
            table = tables.get(f"{name}.parquet")
            if table is None or len(table) != rows:
                there = "is missing" if table is None else f"has {len(table)} rows"
                yield f"{path / name}.parquet {there}; its manifest says {rows} rows"
    if "features.parquet" in tables:
        yield from _features(version, tables)
    yield from _lineage(root, version)


def _features(version: files.Version, tables: dict[str, pl.DataFrame]) -> Iterator[str]:
    rows, vectors, meta = tables["features.parquet"], tables["vectors.parquet"], version.meta
    for what, there, said in (
        ("rows", len(rows), meta["rows"]),
        ("rejected rows", len(tables["rejected.parquet"]), meta["rejected"]),
        ("vectors", len(vectors), meta["distinct_texts"]),
        ("entities", rows["entity_id"].n_unique(), meta["entities"]),
    ):
        if there != said:
            yield f"{version.path} has {there} {what}; its manifest says {said}"
    yield from _norms(vectors, version.path / "vectors.parquet")
    lost = rows.join(vectors, on="text_hash", how="anti")
    if len(lost):
        yield f"{version.path} has {len(lost)} rows without a vector, the first of {lost['entity_id'][0]!r}"
    wrong = [h for h, t in zip(rows["text_hash"], rows["text"], strict=True) if _sha(t) != h]
    if wrong:
        yield f"{version.path} has {len(wrong)} texts that are not what their hash says, the first {wrong[0]}"


def _norms(vectors: pl.DataFrame, path: Path) -> Iterator[str]:
    matrix = vectors["vector"].to_numpy()
    lengths = np.linalg.norm(matrix, axis=1) if len(vectors) else np.ones(0)
    bad = np.flatnonzero(~(np.abs(lengths - 1) < 1e-3))
    if len(bad):
        first = vectors["text_hash"][int(bad[0])]
        yield f"{path} has {len(bad)} vectors whose length is not 1, the first of text {first}"


def _lineage(root: Path, version: files.Version) -> Iterator[str]:
    """What a run says it was made from is what lies there under that number, where it still lies there."""
    lineage = version.meta.get("lineage") or {}
    for name, made in (lineage.get("features") or {}).items() if "metrics" in version.meta else ():
        parent = files.named(root / "features", name)
        if made["version"] in files.numbers(parent):
            there = files.version(parent, made["version"]).content_hash
            if there != made["content_hash"]:
                yield f"{version.path} was made from another version {made['version']} of {name} than lies there now"


def _part(path: Path, key: str) -> Iterator[str]:
    rows = read_part(path)
    if path.parent.name in _CACHES:
        check(rows, _CACHES[path.parent.name], table=str(path))
    elif "vector" in rows.columns:
        yield from _norms(rows, path)
    if rows[key].n_unique() != len(rows):
        yield f"{path} holds a key more than once"


def _record(path: Path) -> Iterator[str]:
    read_sealed(path)
    yield from ()


def _catalog(root: Path) -> Iterator[str]:
    query(root, "SELECT count(*) FROM nights, runs")
    yield from ()


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
