"""The past ends where it should: planted timelines, any row order, and the counts of ML-1M."""

import warnings
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from storage.errors import ConfigError, DataError
from storage.ingest import ingest
from storage.snapshot import take_snapshot
from storage.split import (
    ByUser,
    GlobalTime,
    LeakageWarning,
    LeaveLastOut,
    Ratio,
    Sessions,
    Split,
    assign,
    by_user,
    global_time,
    leave_last_out,
    periods,
    ratio,
    row_counts,
    sessions,
)


def samples_of(rows: list[tuple[str, int]]) -> pl.DataFrame:
    schema = {"user_id": pl.String, "timestamp": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(source_row=pl.int_range(pl.len()))


TIMELINE = samples_of([(f"u{i % 5}", 10 * i) for i in range(100)])
"""100 rows of 5 users at times 0, 10 ... 990."""
ROWS = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 30)), min_size=20, max_size=60)


def shuffled(samples: pl.DataFrame) -> pl.DataFrame:
    return samples.sample(fraction=1, shuffle=True, seed=5)


def parts(samples: pl.DataFrame) -> dict[str, list[int]]:
    return {name: samples.filter(split=name)["timestamp"].to_list() for name in ("train", "validation", "test")}


def test_global_time_tests_after_a_moment_and_validates_on_the_last_tenth_before_it() -> None:
    split = parts(global_time(TIMELINE, test_after=800, validation=0.1))

    # 81 rows are at 800 or before; the last int(8.1) of them validate
    assert split["train"] == [10 * i for i in range(73)]
    assert split["validation"] == [10 * i for i in range(73, 81)]
    assert split["test"] == [10 * i for i in range(81, 100)]


def test_row_counts_cut_where_they_say() -> None:
    split = parts(row_counts(shuffled(TIMELINE), train=70, validation=20))

    assert [len(times) for times in split.values()] == [70, 20, 10]
    assert max(split["train"]) < min(split["validation"]) < max(split["validation"]) < min(split["test"])
    with pytest.raises(DataError, match="no test rows"):
        row_counts(TIMELINE, train=70, validation=30)


def test_periods_begin_at_their_moment() -> None:
    split = parts(periods(shuffled(TIMELINE), validation_from=500, test_from=800))

    assert sorted(split["train"]) == [10 * i for i in range(50)]
    assert sorted(split["validation"]) == [10 * i for i in range(50, 80)]
    with pytest.raises(DataError, match="no validation rows"):
        periods(TIMELINE, validation_from=800, test_from=800)


def test_ratio_cuts_all_rows_by_time() -> None:
    split = parts(ratio(TIMELINE, test=0.2, validation=0.25))

    assert split["train"] == [10 * i for i in range(60)]
    assert split["validation"] == [10 * i for i in range(60, 80)]
    assert split["test"] == [10 * i for i in range(80, 100)]


def test_rows_of_one_moment_are_ordered_by_user_and_then_by_line() -> None:
    samples = samples_of([("b", 1), ("a", 1), ("a", 1), ("c", 0), ("d", 9)])
    split = shuffled(global_time(samples, test_after=1, validation=0.5)).sort("source_row")

    # the order is c, a (line 1), a (line 2), b | d
    assert split["split"].to_list() == ["validation", "train", "validation", "train", "test"]


@pytest.mark.filterwarnings("ignore::storage.split.LeakageWarning")
@settings(max_examples=60, deadline=None)
@given(rows=ROWS, config=st.sampled_from([GlobalTime(test_after=20), Ratio(), LeaveLastOut(), ByUser(test=0.3)]))
def test_the_order_of_rows_does_not_matter_and_is_kept(rows: list[tuple[str, int]], config: Split) -> None:
    samples = samples_of(rows)
    try:
        straight = assign(samples, config, clock="time")
    except DataError:  # a part is empty: it must be for any order
        with pytest.raises(DataError):
            assign(shuffled(samples), config, clock="time")
        return
    mixed = assign(shuffled(samples), config, clock="time")

    assert straight.drop("split").equals(samples)
    assert mixed.drop("split").equals(shuffled(samples))
    assert straight.equals(mixed.sort("source_row"))


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, test_after=st.integers(5, 25))
def test_no_row_trains_that_is_later_than_one_that_judges(rows: list[tuple[str, int]], test_after: int) -> None:
    samples = samples_of([*rows, *[("a", 0)] * 5, ("b", 30)])  # a fifth of the past is a row at least
    split = parts(global_time(samples, test_after=test_after, validation=0.2))

    assert max(split["train"]) <= min(split["validation"])
    assert max(split["validation"]) <= test_after < min(split["test"])


def test_leave_last_out_takes_each_users_last_two_rows_and_warns() -> None:
    samples = samples_of([("a", 1), ("a", 3), ("a", 2), ("b", 9), ("b", 8), ("c", 5), ("c", 5), ("c", 5), ("c", 4)])
    with pytest.warns(LeakageWarning, match="leaks across users.*use global_time") as caught:
        split = leave_last_out(samples)

    assert len(caught) == 1
    expected = ["train", "test", "validation", "train", "train", "train", "validation", "test", "train"]
    assert split["split"].to_list() == expected


def test_the_warning_comes_once(recwarn: pytest.WarningsRecorder) -> None:
    warnings.simplefilter("default")
    for _ in range(3):
        leave_last_out(TIMELINE)

    assert [w.category for w in recwarn] == [LeakageWarning]


def test_users_of_a_user_split_are_apart_and_stay_where_they_are() -> None:
    samples = samples_of([(f"u{i % 400}", i) for i in range(2000)])
    split = by_user(samples, test=0.2, validation=0.1, seed=1)
    users = {part: set(split.filter(split=part)["user_id"]) for part in ("train", "validation", "test")}
    fewer = by_user(samples.filter(pl.col("user_id") != "u7"), test=0.2, validation=0.1, seed=1)

    assert sum(map(len, users.values())) == len(set.union(*users.values())) == 400
    assert 50 < len(users["test"]) < 110
    assert 20 < len(users["validation"]) < 65
    assert fewer.equals(split.filter(pl.col("user_id") != "u7"))
    assert users["test"] != set(by_user(samples, test=0.2, seed=2).filter(split="test")["user_id"])


def test_sessions_are_whole_users_in_the_order_of_their_last_rows() -> None:
    rows = [(f"u{u}", 10 * u + k) for u in range(20) for k in range(3)] + [("u0", 999)]  # u0 is the last to end
    split = sessions(shuffled(samples_of(rows)), test=0.2, validation=0.25)
    users = {part: set(split.filter(split=part)["user_id"]) for part in ("train", "validation", "test")}

    assert users["test"] == {"u0", "u17", "u18", "u19"}
    assert users["validation"] == {"u13", "u14", "u15", "u16"}
    assert len(users["train"]) == 12


@settings(max_examples=50, deadline=None)
@given(ROWS)
def test_training_sessions_are_over_before_any_test_session_is(rows: list[tuple[str, int]]) -> None:
    samples = samples_of([*rows, *((user, 40) for user in "wxyz")])  # enough users for every part
    split = sessions(samples, test=0.3, validation=0.3)
    ends = split.group_by("user_id", "split").agg(pl.col("timestamp").max())

    assert split["user_id"].n_unique() == len(ends)
    assert ends.filter(split="train")["timestamp"].max() <= ends.filter(split="test")["timestamp"].min()  # type: ignore[operator]


def test_without_a_clock_random_users_stand_in_for_the_last_sessions() -> None:
    samples = samples_of([(f"u{i % 400}", i) for i in range(2000)])
    with pytest.warns(LeakageWarning, match="drawn by a hash stand in"):
        split = assign(samples, Sessions(test=0.2, validation=0.1), clock="position")

    assert split.equals(by_user(samples, test=0.2, validation=0.08))


@pytest.mark.parametrize("config", [GlobalTime(test_after=5), Ratio()])
def test_a_cut_in_time_needs_a_clock(config: Split) -> None:
    with pytest.raises(ConfigError, match=r"needs times, but the clock is 'position'; use leave_last_out or user"):
        assign(TIMELINE, config, clock="position")


@pytest.mark.parametrize(("test_after", "empty"), [(-1, "no train and no validation"), (990, "no test")])
def test_an_empty_part_is_named_with_the_times_there_are(test_after: int, empty: str) -> None:
    with pytest.raises(DataError, match=f"leaves {empty} rows: there are 100 rows of 5 users from time 0 to 990"):
        global_time(TIMELINE, test_after=test_after)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"kind": "global_time"}, "test_after"),
        ({"kind": "global_time", "test_after": 1, "validation": 1.0}, "less than 1"),
        ({"kind": "random"}, "kind"),
        ({"kind": "ratio", "tset": 0.1}, "tset"),
        ({"kind": "user", "test": 0.6, "validation": 0.5}, "must leave some users"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused(section: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TypeAdapter(Split).validate_python(section)


def test_a_section_of_the_configuration_is_a_split() -> None:
    section = {"kind": "global_time", "test_after": 975768404, "validation": 0.1}

    assert TypeAdapter(Split).validate_python(section) == GlobalTime(test_after=975768404)


@pytest.mark.realdata
def test_ml_1m_has_the_counts_of_the_paper_split(realdata: Path) -> None:
    dataset = ingest("movielens", {"path": realdata / "ml-1m"}).dataset
    config = GlobalTime(test_after=975768404, validation=0.1)
    samples = take_snapshot(
        dataset, rating_above=3, min_history=5, split=lambda rows: assign(rows, config, clock=dataset.clock)
    ).samples

    assert len(samples) == 970_009
    assert dict(samples["split"].value_counts().iter_rows()) == {
        "train": 695_948,
        "validation": 77_327,
        "test": 196_734,
    }
