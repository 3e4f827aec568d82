"""Fields come from the columns, values from the past of the training rows, and nothing else is known."""

import numpy as np
import polars as pl
import pytest

from ctr_models.vocabulary import COUNT_MAX, Field, Vocabulary, fit_vocabulary
from storage.errors import ConfigError, StoreError
from storage.interactions import Dataset
from storage.schema import INTERACTIONS


def dataset() -> Dataset:
    interactions = pl.DataFrame(
        [
            ("a", "x", 5.0, 1, 1),
            ("a", "y", 3.0, 2, 2),
            ("a", "z", 4.0, 3, 3),
            ("b", "w", 1.0, 4, 4),
        ],
        schema=INTERACTIONS,
        orient="row",
    )
    users = pl.DataFrame({"user_id": ["a", "b"], "town": ["Rome", "Oslo"], "age": [30, 50]})
    items = pl.DataFrame(
        {
            "item_id": ["w", "x", "y", "z"],
            "title": ["W", "X", "Y", "Z"],
            "genres": [["war"], ["comedy", "drama"], [], ["drama"]],
            "length": [1.0, 2.0, None, 4.0],
        }
    )
    return Dataset("d", "general", "time", interactions, users, items)


TRAIN = pl.DataFrame({"timestamp": [2], "user_id": ["a"], "source_row": [2], "item_id": ["y"], "n_before": [1]})


def test_only_training_rows_and_their_past_are_known() -> None:
    fields = {field.name: field for field in fit_vocabulary(dataset(), TRAIN).fields}

    assert fields["user.user_id"].values == ("a",)
    assert fields["user.town"].values == ("Rome",)
    assert fields["item.item_id"].values == ("x", "y")  # z and w lie after, or belong to others
    assert fields["item.genres"].values == ("comedy", "drama")
    assert fields["history.rating"].edges == ()  # one rating in the past: one bucket
    assert "item.title" not in fields


def test_rows_of_the_table_are_disjoint_and_row_0_is_free() -> None:
    vocabulary = fit_vocabulary(dataset(), TRAIN)
    used = [row for field in vocabulary.fields for row in range(field.offset, field.offset + field.size)]

    assert used == list(range(1, vocabulary.size))


def test_unknown_and_missing_are_0() -> None:
    fields = {field.name: field for field in fit_vocabulary(dataset(), TRAIN).fields}
    words = pl.Series([["drama", "never seen"], None, [], ["comedy", "drama", "drama"]], dtype=pl.List(pl.String))
    first = fields["item.genres"].offset

    assert fields["item.item_id"].encode(pl.Series(["z", None, "x"], dtype=pl.String)).tolist()[:2] == [0, 0]
    assert fields["item.genres"].encode(words).tolist() == [
        [first + 1, 0, 0],
        [0, 0, 0],
        [0, 0, 0],
        [first, first + 1, first + 1],
    ]
    assert fields["item.length"].encode(pl.Series([None, float("nan")], dtype=pl.Float64)).tolist() == [0, 0]


def test_numbers_fall_into_buckets_of_about_equal_size() -> None:
    rng = np.random.default_rng(0)
    users = pl.DataFrame({"user_id": [f"u{i}" for i in range(5000)], "income": rng.lognormal(size=5000)})
    items = pl.DataFrame({"item_id": ["x"], "title": ["X"]})
    rows = pl.DataFrame([(u, "x", 4.0, 1, 1) for u in users["user_id"]], schema=INTERACTIONS, orient="row")
    data = Dataset("d", "general", "time", rows, users, items)
    train = rows.select("timestamp", "user_id", "source_row", "item_id", n_before=pl.lit(0))
    field = fit_vocabulary(data, train).named("user.income")
    counts = np.bincount(field.encode(users["income"]) - field.offset)

    assert field.size == 50
    assert counts.min() >= 95
    assert counts.max() <= 105


def test_counts_fall_into_logarithmic_buckets() -> None:
    field = Field("history.liked", "history", "count", 10)
    rows = field.encode(pl.Series([0, 1, 2, 3, 7, 10**9])).tolist()

    assert rows == [10, 12, 13, 14, 16, 10 + COUNT_MAX]


def test_a_saved_vocabulary_is_equal() -> None:
    vocabulary = fit_vocabulary(dataset(), TRAIN)

    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary
    with pytest.raises(StoreError, match="not a vocabulary"):
        Vocabulary.from_json('{"fields": 3}')


def test_fields_can_be_dropped_by_name() -> None:
    names = [field.name for field in fit_vocabulary(dataset(), TRAIN, drop=["user.user_id", "item.genres"]).fields]

    assert "user.user_id" not in names
    assert "item.genres" not in names
    with pytest.raises(ConfigError, match=r"no field is called 'genre'; there are: user.user_id"):
        fit_vocabulary(dataset(), TRAIN, drop=["genre"])
    with pytest.raises(ConfigError, match="cannot be dropped"):
        fit_vocabulary(dataset(), TRAIN, drop=["history.rating"])
