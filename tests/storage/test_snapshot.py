"""No feature sees its label: the join against an oracle that shares no code with it, over random timelines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import ConfigError, DataError
from storage.features import FeatureSet
from storage.interactions import Dataset, history_lengths
from storage.schema import EARLIEST, FEATURES, INTERACTIONS
from storage.snapshot import Snapshot, join_as_of, point_in_time_violations, take_snapshot

Rows = Callable[..., pl.DataFrame]


def everything_trains(samples: pl.DataFrame) -> pl.DataFrame:
    return samples.with_columns(split=pl.lit("train"))


def feature_set(facts: list[tuple[str, int, int, int]], *, entity: str = "user") -> FeatureSet:
    rows = pl.DataFrame(
        [(e, a, c, n, "s", "k", f"h{i}", "t", 1, False) for i, (e, a, c, n) in enumerate(facts)],
        schema=FEATURES,
        orient="row",
    ).with_columns(vector_row=pl.int_range(pl.len(), dtype=pl.Int32))
    rows = rows.sample(fraction=1, shuffle=True, seed=1)
    return FeatureSet("taste", entity, 1, rows, np.zeros((len(facts), 2)), "e", {"content_hash": "c"})  # type: ignore[arg-type]


TIMES = st.integers(0, 12)  # few instants: equal times are the rule
FACTS = st.lists(st.tuples(st.sampled_from("abc"), TIMES | st.just(EARLIEST), TIMES, st.integers(0, 3)), max_size=25)
LABELS = st.lists(st.tuples(st.sampled_from("abcd"), TIMES), min_size=1, max_size=25)


@settings(max_examples=300, deadline=None)
@given(facts=FACTS, labels=LABELS, known_at=st.booleans())
def test_every_row_joins_the_newest_feature_strictly_before_its_label(
    facts: list[tuple[str, int, int, int]], labels: list[tuple[str, int]], known_at: bool
) -> None:
    facts = list({(e, a, n): (e, a, c, n) for e, a, c, n in facts}.values())  # one row for an entity, time and count
    samples = pl.DataFrame(labels, schema={"user_id": pl.String, "timestamp": pl.Int64}, orient="row").sort("timestamp")
    joined = join_as_of(samples, feature_set(facts), known_at=known_at)

    expected = []
    for user, when in samples.rows():
        past = [
            (a, n, row)
            for row, (e, a, c, n) in enumerate(facts)
            if e == user and a < when and (c < when or not known_at)
        ]
        expected.append(max(past)[2] if past else -1)
    assert expected == joined["taste_row"].to_list()
    assert samples["user_id"].to_list() == joined["user_id"].to_list()


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(st.sampled_from("ab"), TIMES), min_size=1, max_size=30), seed=st.integers(0, 9))
def test_history_lengths_count_strictly_earlier_rows(rows: list[tuple[str, int]], seed: int) -> None:
    frame = pl.DataFrame(
        [(u, "i", 1.0, t, i) for i, (u, t) in enumerate(rows)], schema=INTERACTIONS, orient="row"
    ).sort("user_id", "timestamp", "source_row")

    expected = [
        sum(1 for u, t in rows if u == user and t < when) for user, when in frame.select("user_id", "timestamp").rows()
    ]
    assert expected == history_lengths(frame).tolist()


def snapshot(dataset: Dataset, facts: list[tuple[str, int, int, int]], *, known_at: bool = False) -> Snapshot:
    return take_snapshot(
        dataset, [feature_set(facts)], rating_above=3, min_history=5, split=everything_trains, known_at=known_at
    )


FACTS_OF_SMALL = [(f"u{i % 20}", (i * 37) % 120, (i * 53) % 150, i) for i in range(200)]


@pytest.mark.parametrize("known_at", [False, True])
def test_the_plain_python_audit_finds_nothing_wrong(small_dataset: Dataset, known_at: bool) -> None:
    taken = snapshot(small_dataset, FACTS_OF_SMALL, known_at=known_at)
    checked, wrong = point_in_time_violations(taken, users=20)

    assert (len(taken.samples), []) == (checked, wrong)
    assert taken.samples["taste_row"].min() < taken.samples["taste_row"].max()  # type: ignore[operator]


@pytest.mark.parametrize(
    "leak",
    [
        pl.lit(0, pl.Int32).alias("taste_row"),  # everyone has the same text
        (pl.col("n_before") + 1).alias("n_before"),  # the label's own row is in its history
        pl.col("taste_row").shift(-1).over("user_id").fill_null(-1).alias("taste_row"),  # the text of the next label
    ],
)
def test_the_audit_finds_planted_leaks(small_dataset: Dataset, leak: pl.Expr) -> None:
    taken = snapshot(small_dataset, FACTS_OF_SMALL)
    leaked = Snapshot(taken.dataset, taken.samples.with_columns(leak), taken.features, taken.lineage)

    assert len(point_in_time_violations(leaked, users=20)[1]) > 0


def test_labels_history_and_order(small_dataset: Dataset) -> None:
    taken = snapshot(small_dataset, [])
    rows = small_dataset.interactions

    assert taken.samples.equals(taken.samples.sort("timestamp", "user_id", "source_row"))
    assert set(taken.samples["source_row"]) == set(rows.filter(history_lengths(rows) >= 5)["source_row"])
    ratings = dict(rows.select("source_row", "rating").rows())
    for row, label in taken.samples.select("source_row", "label").rows():
        assert int(ratings[row] > 3) == label
    assert taken.samples["taste_row"].unique().to_list() == [-1]


def test_what_cannot_be_labelled_is_said(small_dataset: Dataset) -> None:
    with pytest.raises(DataError, match="no row with 500 earlier rows"):
        take_snapshot(small_dataset, rating_above=3, min_history=500, split=everything_trains)
    unrated = small_dataset.interactions.with_columns(rating=pl.lit(None, pl.Float32))
    implicit = Dataset("x", "general", "position", unrated, small_dataset.users, small_dataset.items)
    with pytest.raises(DataError, match="without a rating"):
        take_snapshot(implicit, rating_above=3, min_history=1, split=everything_trains)
    with pytest.raises(ConfigError, match="clock"):
        take_snapshot(implicit, rating_above=3, min_history=1, split=everything_trains, known_at=True)


def test_a_dataset_refuses_what_it_cannot_mean(small_dataset: Dataset, tmp_path: Path) -> None:
    d = small_dataset
    with pytest.raises(DataError, match="user_id 'u0' more than once"):
        Dataset("x", "general", "time", d.interactions, pl.concat([d.users, d.users.head(1)]), d.items)
    with pytest.raises(DataError, match="which table 'items' does not hold"):
        Dataset("x", "general", "time", d.interactions, d.users, d.items.head(3))
    with pytest.raises(DataError, match=r"column 'rating' is Float64; it must be Float32"):
        Dataset("x", "general", "time", d.interactions.cast({"rating": pl.Float64}), d.users, d.items)


def test_which_rows_of_a_user_are_labels() -> None:
    """Of 70, 9 and 1 rows: those after the first half, at most 30; the last one; those of a time."""
    rows = [(user, "i0", 4.0, 10 * i, 100 * n + i) for n, user in ((70, "a"), (9, "b"), (1, "c")) for i in range(n)]
    frame = pl.DataFrame(rows, schema=INTERACTIONS, orient="row")
    users = pl.DataFrame({"user_id": ["a", "b", "c"]})
    data = Dataset("x", "general", "time", frame, users, pl.DataFrame({"item_id": ["i0"], "title": ["T"]}))

    def taken(**rules: Any) -> dict[str, list[int]]:
        samples = take_snapshot(data, rating_above=3, min_history=0, split=everything_trains, **rules).samples
        return {user: samples.filter(user_id=user)["timestamp"].to_list() for user in "abc"}

    assert {"a": list(range(300, 700, 10)), "b": list(range(50, 90, 10)), "c": []} == taken(rows_of_user="after_half")
    assert taken(rows_of_user="last") == {"a": [690], "b": [80], "c": [0]}
    assert {"a": list(range(60, 700, 10)), "b": [60, 70, 80], "c": []} == taken(skip_first=6)
    assert taken(between=(20, 50)) == {"a": [20, 30, 40], "b": [20, 30, 40], "c": []}
    with pytest.raises(DataError, match=r"from 800 on and before 900; its rows are from time 0 to 690"):
        taken(between=(800, 900))
