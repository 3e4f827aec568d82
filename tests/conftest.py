"""Shared fixtures: small data of known structure, and the folder of public data sets where there is one."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from storage.interactions import Dataset
from storage.schema import FEATURES, INTERACTIONS


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of public data sets, or a skip that says how to name it."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("NIGHTSHIFT_DATA", beside))
    if not (folder / "ml-1m" / "ratings.dat").is_file():
        pytest.skip("no public data here: set NIGHTSHIFT_DATA to a folder that holds ml-1m/ratings.dat")
    return folder


@pytest.fixture
def small_dataset() -> Dataset:
    """20 users, 12 items, 400 ratings with many ties of time, in shuffled order."""
    rng = np.random.default_rng(7)
    n = 400
    rows = pl.DataFrame(
        {
            "user_id": [f"u{i}" for i in rng.integers(0, 20, n)],
            "item_id": [f"i{i}" for i in rng.integers(0, 12, n)],
            "rating": rng.integers(1, 6, n).astype(np.float32),
            "timestamp": rng.integers(0, 120, n),
            "source_row": np.arange(1, n + 1),
        },
        schema=INTERACTIONS,
    )
    users = pl.DataFrame({"user_id": [f"u{i}" for i in range(20)], "age": ["young", "old"] * 10})
    titles = [f"Title {i}" for i in range(12)]
    items = pl.DataFrame({"item_id": [f"i{i}" for i in range(12)], "title": titles, "year": list(range(1990, 2002))})
    return Dataset("small", "general", "time", rows.sample(fraction=1, shuffle=True, seed=3), users, items)


@pytest.fixture
def feature_rows() -> Callable[..., pl.DataFrame]:
    """Make rows of `schema.FEATURES` from (entity_id, as_of, created_at, n_history) tuples, each with its own text."""

    def make(facts: list[tuple[str, int, int, int]]) -> pl.DataFrame:
        return pl.DataFrame(
            [
                (entity, as_of, created, n, f"s{i}", f"k{i}", f"h{i:06d}", f"text {i}", 2, False)
                for i, (entity, as_of, created, n) in enumerate(facts)
            ],
            schema=FEATURES,
            orient="row",
        )

    return make
