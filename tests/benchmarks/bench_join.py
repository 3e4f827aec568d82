"""How long does the point-in-time join of ML-1M take, and in how much memory? Beside DuckDB's own ASOF join.

python -m tests.benchmarks.bench_join [FOLDER_OF_ML_1M]

970,009 labels, 29,000 user texts at doubling checkpoints, 3,883 item texts, vectors of 384 floats. DuckDB joins the
same row numbers; it is asked for nothing else.
"""

import resource
import sys
import time
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from storage.features import FeatureSet
from storage.ingest import ingest
from storage.interactions import Dataset
from storage.schema import EARLIEST, FEATURES
from storage.snapshot import take_snapshot
from storage.split import global_time

DIM = 384


def feature_sets(dataset: Dataset) -> list[FeatureSet]:
    """Rows at the checkpoints of every user and one for each item, random unit vectors."""
    places = dataset.interactions.select(
        "user_id", "timestamp", n=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("user_id")
    )
    checkpoints = places.filter(pl.col("n").is_in([5 * 2**i for i in range(12)]))
    users = checkpoints.select(entity_id="user_id", as_of="timestamp", n_history="n")
    zero = pl.lit(0, pl.Int32)
    items = dataset.items.select(entity_id="item_id", as_of=pl.lit(EARLIEST, pl.Int64), n_history=zero)
    return [_random(users, "user_preference", "user"), _random(items, "item_knowledge", "item")]


def _random(rows: pl.DataFrame, name: str, entity: str) -> FeatureSet:
    vectors = np.random.default_rng(0).normal(size=(len(rows), DIM)).astype(np.float32)
    missing = [pl.lit(None, dtype).alias(column) for column, dtype in FEATURES.items() if column not in rows.columns]
    rows = rows.with_columns(missing).with_columns(created_at=pl.lit(0, pl.Int64))
    rows = rows.with_columns(vector_row=pl.int_range(pl.len(), dtype=pl.Int32))
    return FeatureSet(name, entity, 1, rows, vectors, "random", {"content_hash": ""})  # type: ignore[arg-type]


def by_duckdb(samples: pl.DataFrame, sets: list[FeatureSet]) -> pl.DataFrame:
    """The same row numbers from two ASOF joins."""
    users, items = (each.rows.select("entity_id", "as_of", "vector_row") for each in sets)
    with duckdb.connect() as connection:
        for name, frame in (("samples", samples), ("u", users), ("i", items)):
            connection.register(name, frame.to_arrow())
        return connection.sql(
            """SELECT s.user_id, s.item_id, s.timestamp, coalesce(u.vector_row, -1) AS user_preference_row,
                      coalesce(i.vector_row, -1) AS item_knowledge_row
            FROM samples s
            ASOF LEFT JOIN u ON s.user_id = u.entity_id AND s.timestamp > u.as_of
            ASOF LEFT JOIN i ON s.item_id = i.entity_id AND s.timestamp > i.as_of"""
        ).pl()


def main() -> None:
    """Time both and print one row each."""
    folder = sys.argv[1] if len(sys.argv) > 1 else "../shared/data/ml-1m"
    if not (Path(folder) / "ratings.dat").is_file():
        print(f"point-in-time join: skipped, no MovieLens 1M in {folder}")
        return
    dataset = ingest("movielens", {"path": folder}).dataset
    sets = feature_sets(dataset)
    started = time.perf_counter()
    split = partial(global_time, test_after=975768404, validation=0.1)
    taken = take_snapshot(dataset, sets, rating_above=3, min_history=5, split=split)
    ours = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"point-in-time join: {len(taken.samples):,} rows in {ours:.2f} s; peak memory of the process {peak:.2f} GiB")
    bare = taken.samples.select("user_id", "item_id", "timestamp")
    started = time.perf_counter()
    theirs = by_duckdb(bare, sets)
    seconds = time.perf_counter() - started
    key, columns = ["user_id", "item_id", "timestamp"], ["user_preference_row", "item_knowledge_row"]
    same = taken.samples.select(*key, *columns).sort(key).equals(theirs.select(*key, *columns).sort(key))
    print(f"  DuckDB's ASOF joins alone: {seconds:.2f} s; same rows: {same}; ratio {seconds / ours:.2f}")
    print("  (ours also labels, counts histories and splits)")


if __name__ == "__main__":
    main()
