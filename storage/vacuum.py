"""What may go from a data root? Whatever no manifest, run or reader names any more, after a grace period; never more.

Live is the newest version of everything, what the manifest of a live version names by its content hash, and what a
reader holds (`files.held`). A row of a cache is live while a version that is kept names it. The grace period counts
from the moment a version was superseded, or a part or a temporary file was written.
"""

import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from storage import files
from storage.cache import Cache, parts, read_part
from storage.disk import naming, sync
from storage.layout import DAMAGED, ENCODER, cache_folders, leftovers, version_folders

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Removed:
    """Something that went, or would go: where it lay, its size in bytes (of rows: a share of their part), and why."""

    path: Path
    bytes: int
    why: str


def vacuum(root: Path, *, grace: float, dry_run: bool) -> list[Removed]:
    """Remove what is not live and older than `grace` seconds; `dry_run` only says what would go.

    The caller holds the writer's lock and rebuilds the catalog. Raises StoreError where a manifest is damaged, since
    nobody knows then what it names; what was removed before stays removed, and the call can be repeated.
    """
    before = time.time() - grace
    kept, going = _sorted_out(root, before)
    removed = [Removed(version.path, _size(version.path), "superseded, named by nobody") for version in going]
    for version in going if not dry_run else ():
        remove(version)
    for path in (*leftovers(root), root / DAMAGED):
        if path.exists() and path.stat().st_mtime <= before:
            why = "set aside by repair" if path.name == DAMAGED else "left by a writer that died"
            removed.append(Removed(path, _size(path), why))
            if not dry_run:
                _delete(path)
    return removed + _unnamed_rows(root, kept, before, dry_run=dry_run)


def remove(version: files.Version) -> None:
    """Take a version away: it vanishes by one rename, then its bytes go. Raises StoreError."""
    going = version.path.with_name(f".{version.path.name}.removed")
    with naming(version.path):
        version.path.rename(going)
        sync(going.parent)
    _delete(going)


def _sorted_out(root: Path, before: float) -> tuple[list[files.Version], list[files.Version]]:
    """(versions that stay, versions that go)."""
    superseded: list[tuple[files.Version, float]] = []
    kept: list[files.Version] = []
    for folder in version_folders(root):
        there = files.versions(folder)
        kept += there[-1:]
        superseded += [(old, new.manifest["created_at"]) for old, new in pairwise(there)]
    for old, since in list(superseded):
        if since > before or files.is_held(old):
            kept.append(old)
            superseded.remove((old, since))
    named: set[str] = set()
    fresh = kept
    while fresh:
        named |= {said for version in fresh for said in _hashes(version.meta)}
        fresh = [old for old, _ in superseded if old.content_hash in named]
        kept = kept + fresh
        superseded = [(old, since) for old, since in superseded if old.content_hash not in named]
    return kept, [old for old, _ in superseded]


def _hashes(said: Any) -> Iterator[str]:
    if isinstance(said, Mapping):
        said = list(said.values())
    if isinstance(said, list):
        for value in said:
            yield from _hashes(value)
    elif isinstance(said, str) and _HASH.fullmatch(said):
        yield said


def _unnamed_rows(root: Path, kept: list[files.Version], before: float, *, dry_run: bool) -> list[Removed]:
    """Drop the rows of caches that no version in `kept` names, and whole caches of encoders that none was made by."""
    named: dict[str, set[str]] = {"source_hash": set(), "text_key": set(), "text_hash": set()}
    for version in kept:
        for name in ("features.parquet", "rejected.parquet"):
            if name in version.manifest["files"]:
                rows = files.read_table(version, name)
                for column in set(named) & set(rows.columns):
                    named[column] |= set(rows[column])
    removed = []
    for folder, key in cache_folders(root).items():
        columns = {"source_hash", "text_key"} if folder.name == "prompts" else {key}
        gone: list[str] = []
        for part in parts(folder):
            if part.stat().st_mtime <= before:
                rows = read_part(part, columns=sorted(columns))
                there = [any(row[c] in named[c] for c in columns) for row in rows.iter_rows(named=True)]
                dead = rows.filter([not alive for alive in there])[key].to_list()
                if dead:
                    share = part.stat().st_size * len(dead) // len(rows)
                    removed.append(Removed(part, share, f"{len(dead)} of {len(rows)} rows are named by nobody"))
                gone += dead
        if gone and not dry_run:
            Cache(folder, {}, key=key).drop(gone)
            about = folder / ENCODER
            if about.is_file() and not parts(folder):
                _delete(folder)
    return removed


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def _delete(path: Path) -> None:
    with naming(path):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        sync(path.parent)
