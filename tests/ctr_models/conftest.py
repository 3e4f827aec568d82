"""A small world whose answer is only in the item texts: users like items of their own taste, ids tell little."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from storage import files
from storage.features import FeatureSet, publish_features
from storage.interactions import Dataset
from storage.schema import EARLIEST, FEATURES, INTERACTIONS, REJECTED, content_hash
from storage.snapshot import Snapshot, take_snapshot
from storage.split import ratio

World = Callable[..., Snapshot]
DIM = 8


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def feature_set(name: str, entity: str, facts: list[tuple[str, int, int]], vectors: np.ndarray) -> FeatureSet:
    """facts: (entity_id, as_of, n_history), one row of `vectors` each."""
    rows = pl.DataFrame(
        [(e, a, 0, n, f"s{i}", f"k{i}", f"h{i}", f"text {i}", 2, False) for i, (e, a, n) in enumerate(facts)],
        schema=FEATURES,
        orient="row",
    ).with_columns(vector_row=pl.int_range(pl.len(), dtype=pl.Int32))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = (vectors / lengths).astype(np.float32)
    rows = rows.sort("entity_id", "as_of", "n_history")
    return FeatureSet(name, entity, 1, rows, unit, "test encoder", {"content_hash": name})  # type: ignore[arg-type]


def make_world(
    *, users: int = 40, items: int = 60, rows: int = 2400, seed: int = 0, missing: float = 0.0, text: bool = True
) -> Snapshot:
    """Items have a trait of 4, users like one; the text says the trait. `missing`: share of items without a text."""
    rng = np.random.default_rng(seed)
    trait, taste = rng.integers(0, 4, items), rng.integers(0, 4, users)
    user, item = rng.integers(0, users, rows), rng.integers(0, items, rows)
    late = item >= items * 0.8  # the last fifth of the items comes out late
    when = np.where(late, rng.integers(950, 1000, rows), rng.integers(0, 1000, rows))
    likes = rng.random(rows) < np.where(trait[item] == taste[user], 0.9, 0.15)
    interactions = pl.DataFrame(
        {
            "user_id": [f"u{i}" for i in user],
            "item_id": [f"i{i}" for i in item],
            "rating": np.where(likes, 4 + rng.integers(0, 2, rows), 1 + rng.integers(0, 3, rows)).astype(np.float32),
            "timestamp": when,
            "source_row": np.arange(rows),
        },
        schema=INTERACTIONS,
    )
    user_table = pl.DataFrame(
        {
            "user_id": [f"u{i}" for i in range(users)],
            "age": rng.integers(15, 80, users),
            "town": ["a", "b"] * (users // 2),
        }
    )
    words = [[["red", "green", "blue"][j] for j in rng.permutation(3)[: rng.integers(0, 4)]] for _ in range(items)]
    item_table = pl.DataFrame(
        {"item_id": [f"i{i}" for i in range(items)], "title": [f"Title {i}" for i in range(items)], "colours": words},
        schema_overrides={"colours": pl.List(pl.String)},
    )
    dataset = Dataset("planted", "general", "time", interactions, user_table, item_table)
    features = []
    if text:
        means = rng.normal(size=(4, DIM))
        known = [i for i in range(items) if rng.random() >= missing]
        told = np.array([means[trait[i]] + rng.normal(size=DIM) * 0.1 + 1 for i in known]).reshape(-1, DIM)
        features.append(feature_set("item_knowledge", "item", [(f"i{i}", EARLIEST, 0) for i in known], told))
        checkpoints = [(u, t) for u in range(users) for t in (100, 400)]
        wished = np.array([means[taste[u]] + rng.normal(size=DIM) * 0.1 - 1 for u, _ in checkpoints])
        features.append(feature_set("user_preference", "user", [(f"u{u}", t, 5) for u, t in checkpoints], wished))
    return take_snapshot(
        dataset, features, rating_above=3, min_history=5, split=lambda s: ratio(s, test=0.2, validation=0.1)
    )


@pytest.fixture
def world() -> World:
    """Make a planted world; see `make_world`."""
    return make_world


def first_ratings(snapshot: Snapshot) -> list[dict]:
    """The interactions in their order, without those of an item that their user had rated before."""
    seen: set[tuple[str, str]] = set()
    found = []
    for row in snapshot.dataset.interactions.iter_rows(named=True):
        if (row["user_id"], row["item_id"]) not in seen:
            seen.add((row["user_id"], row["item_id"]))
            found.append(row)
    return found


def without_features(snapshot: Snapshot) -> Snapshot:
    """The same labels, no text."""
    return replace(snapshot, features={})


def store(root: Path, snapshot: Snapshot) -> None:
    """Publish the dataset and the feature sets of a snapshot under `root`."""
    data = snapshot.dataset
    tables = {"interactions": data.interactions, "users": data.users, "items": data.items}
    files.publish(
        root / "dataset",
        {f"{name}.parquet": frame.write_parquet for name, frame in tables.items()},
        content_hash=content_hash(*tables.values()),
        meta={"name": data.name, "domain": data.domain, "clock": data.clock},
    )
    for feature in snapshot.features.values():
        places = feature.rows.select("text_hash", "vector_row").sort("vector_row")
        vectors = feature.vectors[places["vector_row"].to_numpy()]
        publish_features(
            root,
            feature.name,
            entity=feature.entity,
            rows=feature.rows.drop("vector_row"),
            rejected=pl.DataFrame(schema=REJECTED),
            vectors=places.select("text_hash", vector=pl.Series(vectors, dtype=pl.Array(pl.Float32, DIM))),
            encoder=feature.encoder,
            lineage={},
        )
