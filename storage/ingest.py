"""How does a source become a dataset in the store? Read, check every row, publish whole or not at all.

Bad rows go to the table `quarantine` with file, line and reason (`storage.checks.REASONS`); where they are more than a
given share of any file, nothing is published. An interaction whose user or item is in quarantine goes there too.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ValidationError

import storage.datasets
from storage import files
from storage.checks import REASONS, Checked, check_entities, check_interactions
from storage.datasets import RawTable, RawTables
from storage.disk import sha256_file
from storage.errors import ConfigError, DataError, StoreError
from storage.forget import forgotten, without
from storage.interactions import Dataset
from storage.plugins import load
from storage.schema import QUARANTINE, content_hash
from storage.vacuum import remove

logger = logging.getLogger(__name__)

TABLES = ("interactions", "users", "items", "quarantine")


@dataclass(frozen=True)
class Ingested:
    """A checked dataset that is not in the store yet.

    quarantine: rows of `schema.QUARANTINE`. n_rows_read: rows of the interactions file, good and bad.
    content_hash: of the tables, whatever the order of the rows in the files; line numbers do not count.
    counts: table -> {"read", "kept", "quarantined": {reason: rows}}. sources: {"file", "bytes", "sha256"} of each file.
    """

    dataset: Dataset
    quarantine: pl.DataFrame
    n_rows_read: int
    content_hash: str
    counts: Mapping[str, Mapping[str, Any]]
    sources: tuple[Mapping[str, str | int], ...]


def ingest(source: str, options: Mapping[str, Any] | BaseModel, *, max_bad_share: float = 0.01) -> Ingested:
    """Read `source` (a file of storage/datasets) and check every row; stores nothing.

    options: the source's `Config`, or the keys of one. Raises ConfigError naming the option, and DataError naming the
    file: one that cannot be read, or has more than `max_bad_share` of its rows bad (with counts and examples).
    """
    started = time.perf_counter()
    plugin = load(storage.datasets, source)
    config = options if isinstance(options, BaseModel) else _config(source, plugin.Config, options)
    tables: RawTables = plugin.read(config)
    items = _bounded(
        tables.items, check_entities(tables.items, "item_id", keep_untitled=tables.keep_untitled), max_bad_share
    )
    users = tables.users and _bounded(tables.users, check_entities(tables.users, "user_id"), max_bad_share)
    rows = _bounded(tables.interactions, check_interactions(tables, users, items), max_bad_share)
    if rows.kept.is_empty():
        raise DataError(f"{_name(tables.interactions)}: not one good interaction is left; nothing was published")
    people = users.kept if users else rows.kept.select("user_id").unique().sort("user_id")
    dataset = Dataset(tables.name, tables.domain, tables.clock, rows.kept, people, items.kept)
    checked = {"items": (tables.items, items), "interactions": (tables.interactions, rows)}
    if tables.users is not None and users is not None:
        checked["users"] = (tables.users, users)
    quarantine = pl.concat(
        [_quarantined(table, result) for table, result in checked.values()],
    ).sort("file", "line", "reason", "content")
    paths = [table.path for table, _ in checked.values() if table.path is not None]
    counts = {name: _counts(result) for name, (_, result) in checked.items()}
    logger.info(
        "ingested %s: interactions=%d users=%d items=%d quarantined=%d s=%.1f",
        *(tables.name, len(rows.kept), len(people), len(items.kept), len(quarantine), time.perf_counter() - started),
    )
    return Ingested(
        dataset=dataset,
        quarantine=quarantine,
        n_rows_read=rows.n_read,
        content_hash=_hash(dataset, quarantine),
        counts=counts,
        sources=tuple({"file": p.name, "bytes": p.stat().st_size, "sha256": sha256_file(p)} for p in paths),
    )


def publish_dataset(root: Path, ingested: Ingested) -> files.Version:
    """Store the dataset as a new version under `root`, or return the latest one where it holds the same.

    People whom `root` was told to forget (`storage.forget`) are left out. Raises StoreError where a file cannot be
    written; then nothing is stored.
    """
    ingested = _without_forgotten(root, ingested)
    dataset = ingested.dataset
    tables = (dataset.interactions, dataset.users, dataset.items, ingested.quarantine)
    return files.publish(
        root / "dataset",
        {f"{name}.parquet": frame.write_parquet for name, frame in zip(TABLES, tables, strict=True)},
        content_hash=ingested.content_hash,
        meta={
            "name": dataset.name,
            "domain": dataset.domain,
            "clock": dataset.clock,
            "rows": {name: len(frame) for name, frame in zip(TABLES, tables, strict=True)},
            "counts": dict(ingested.counts),
            "sources": list(ingested.sources),
        },
    )


def load_dataset(root: Path, version: int | None = None) -> Dataset:
    """Read a stored dataset (the latest by default), every byte checked. Raises StoreError where it is not whole."""
    found = files.latest(root / "dataset") if version is None else files.version(root / "dataset", version)
    if found is None:
        raise StoreError(f"there is no data in {root} yet; run `nightshift ingest` first, with the same configuration")
    interactions, users, items = (files.read_table(found, f"{name}.parquet") for name in TABLES[:3])
    meta = found.meta
    return Dataset(meta["name"], meta["domain"], meta["clock"], interactions, users, items)


def publish_without_forgotten(root: Path) -> None:
    """Publish the stored dataset again without people who were forgotten, and take away the versions before.

    Raises StoreError.
    """
    every = files.versions(root / "dataset")
    if not every:
        return
    meta = every[-1].meta
    dataset, quarantine = load_dataset(root), files.read_table(every[-1], "quarantine.parquet")
    stored = Ingested(dataset, quarantine, 0, every[-1].content_hash, meta["counts"], tuple(meta["sources"]))
    kept = publish_dataset(root, stored)
    for version in every:
        if version.number != kept.number:
            remove(version)


def _without_forgotten(root: Path, ingested: Ingested) -> Ingested:
    dataset = ingested.dataset
    before = (dataset.interactions, dataset.users, ingested.quarantine)
    after = without(forgotten(root), *before)
    if [len(frame) for frame in before] == [len(frame) for frame in after]:
        return ingested
    dataset = replace(dataset, interactions=after[0], users=after[1])
    return replace(ingested, dataset=dataset, quarantine=after[2], content_hash=_hash(dataset, after[2]))


def _config(source: str, config: type[BaseModel], options: Mapping[str, Any]) -> BaseModel:
    try:
        return config(**options)
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors())
        raise ConfigError(f"options of dataset source {source!r}: {said}") from error


def _name(table: RawTable) -> str:
    return str(table.path or "the rows of the source")


def _bounded(table: RawTable, checked: Checked, max_bad_share: float) -> Checked:
    """`checked` as it is, or a DataError with what is wrong with its rows where too many are."""
    if not checked.n_read:
        raise DataError(f"{_name(table)} holds no rows; expected {table.expects}")
    n_bad = len(checked.bad)
    if n_bad <= max_bad_share * checked.n_read:
        return checked
    lines = [
        f"{_name(table)}: {n_bad:,} of {checked.n_read:,} rows are bad ({n_bad / checked.n_read:.1%}); at most "
        f"{max_bad_share:.1%} may be (max_bad_share). Nothing was published."
    ]
    for reason, count in _by_reason(checked).items():
        lines.append(f"  {reason}: {count:,} ({REASONS[reason]})")
        for line, content in checked.bad.filter(reason=reason).head(3).select("line", "content").iter_rows():
            lines.append(f"    line {line}: {str(content)[:120]!r}")
    if table.expects:
        lines.append(f"  expected: {table.expects}")
    raise DataError("\n".join(lines))


def _by_reason(checked: Checked) -> dict[str, int]:
    """Rows by reason, the most frequent first."""
    counts = checked.bad.group_by("reason").len().sort("len", "reason", descending=[True, False])
    return dict(counts.iter_rows())


def _counts(checked: Checked) -> dict[str, Any]:
    return {"read": checked.n_read, "kept": len(checked.kept), "quarantined": _by_reason(checked)}


def _quarantined(table: RawTable, checked: Checked) -> pl.DataFrame:
    file = table.path.name if table.path else ""
    return checked.bad.with_columns(file=pl.lit(file, pl.String)).select(*QUARANTINE)


def _hash(dataset: Dataset, quarantine: pl.DataFrame) -> str:
    """Dataset sorts its tables; lines only count through the order they give to rows of one user and one time."""
    return content_hash(
        dataset.interactions.drop("source_row"),
        dataset.users.select(sorted(dataset.users.columns)),
        dataset.items.select(sorted(dataset.items.columns)),
        quarantine.drop("line").sort("file", "reason", "content"),
        extra=[dataset.name, dataset.domain, dataset.clock],
    )
