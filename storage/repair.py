"""What is damaged in a data root, and what of it can be had again? Damage is set aside, never deleted.

A damaged part of a cache costs its rows only; texts that a published version still holds go back into their cache.
"""

import json
import uuid
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from storage import files
from storage.cache import Cache, parts, read_part
from storage.catalog import path_of, query
from storage.disk import make_folder, naming, read_sealed, sync
from storage.errors import NightshiftError
from storage.layout import DAMAGED, ENCODER, cache_folders, records, version_folders
from storage.schema import TEXTS


@dataclass(frozen=True)
class Damage:
    """Something that was set aside. place: where it lay, below the root; why: what was wrong with it."""

    place: Path
    why: str

    @property
    def kind(self) -> str:
        """The first folder of its place: dataset, features, runs, comparisons, recommendations, prompts, ..."""
        return self.place.parts[0]


def set_aside(root: Path) -> list[Damage]:
    """Move everything that is not what it should be under `damaged/`, out of every reader's way. Raises StoreError.

    The caller holds the writer's lock.
    """
    found = []
    for folder in version_folders(root):
        for number in files.numbers(folder):
            path = files.path_of(folder, number)
            if why := _wrong_with_version(path):
                found.append(_moved(root, path, why))
    for folder in cache_folders(root):
        if (about := folder / ENCODER).is_file() and (why := _wrong_with_json(about)):
            found.append(_moved(root, folder, why))
            continue
        for part in parts(folder):
            if why := _why(lambda part=part: read_part(part)):
                found.append(_moved(root, part, why))
    for record in records(root):
        if why := _why(lambda record=record: read_sealed(record)):
            found.append(_moved(root, record, why))
    for settled in sorted((root / "encoders").glob("*.json")):
        if why := _wrong_with_json(settled):
            found.append(_moved(root, settled, why))
    if path_of(root).is_file() and (why := _why(lambda: query(root, "SELECT * FROM nights, runs LIMIT 1"))):
        found.append(_moved(root, path_of(root), why))
    return found


def recover_texts(root: Path) -> int:
    """Put texts that published feature sets hold, and the cache has lost, back into it. Returns how many."""
    cache = Cache(root / "texts", TEXTS, key="text_key")
    recovered = 0
    for folder in version_folders(root):
        for version in files.versions(folder) if folder.parent.name == "features" else ():
            engine = json.dumps(version.meta["lineage"].get("engine", {}), sort_keys=True)
            rows = files.read_table(version, "features.parquet").with_columns(finish_reason=pl.lit("stop"))
            rejected = files.read_table(version, "rejected.parquet").with_columns(
                created_at=pl.lit(version.manifest["created_at"], pl.Int64)
            )
            columns = ["text_key", "text", "finish_reason", "created_at"]
            texts = pl.concat([rows.select(columns), rejected.select(columns)]).drop_nulls()
            texts = texts.with_columns(
                pl.lit(None, pl.Int32).alias("n_prompt_tokens"),
                pl.lit(None, pl.Int32).alias("n_output_tokens"),
                engine=pl.lit(engine),
                run_id=pl.lit("repaired"),
            )
            recovered += cache.append(texts.select(list(TEXTS)))
    return recovered


def _wrong_with_version(path: Path) -> str:
    try:
        problems = files.verify(files.read_version(path))
    except NightshiftError as error:
        return str(error)
    return problems[0] if problems else ""


def _wrong_with_json(path: Path) -> str:
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        return f"{path} is damaged: {error}"
    return ""


def _why(read: object) -> str:
    try:
        read()  # type: ignore[operator]
    except NightshiftError as error:
        return str(error)
    return ""


def _moved(root: Path, path: Path, why: str) -> Damage:
    place = path.relative_to(root)
    target = root / DAMAGED / f"{place}.{uuid.uuid4().hex[:8]}"
    with naming(target):
        make_folder(target.parent)
        path.rename(target)
        sync(path.parent)
        sync(target.parent)
    return Damage(place, why)
