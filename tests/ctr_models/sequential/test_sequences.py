"""Planted timelines under every protocol: what is learned from, what is asked, and what may be seen before it."""

import numpy as np
import pytest

from ctr_models.sequential.histories import Histories, parts
from ctr_models.sequential.sequences import Queries, Sequences, sequences
from storage.errors import ConfigError, DataError
from storage.split import GlobalTime, LeakageWarning, LeaveLastOut, Ratio, Sessions
from tests.ctr_models.sequential.conftest import make_dataset

ROWS = [(f"u{u}", f"i{(u + n) % 8}", 100 * u + n) for u in range(10) for n in range(4)]


def ids(data: Sequences, numbers: np.ndarray) -> list[str]:
    return [data.items[int(n)] for n in numbers]


def asked(data: Sequences, part: str) -> dict[str, tuple[list[str], str]]:
    """User -> (history, target), in external ids."""
    queries = data.queries[part]
    return {
        queries.users[q]: (ids(data, queries.history[q]), data.items[int(queries.target[q])])
        for q in range(len(queries))
    }


def test_leave_last_out(last_out: Sequences) -> None:
    assert asked(last_out, "test") == {"a": (["i0", "i1", "i2", "i3"], "i4"), "b": (["i2", "i3", "i4"], "i5")}
    assert asked(last_out, "validation") == {"a": (["i0", "i1", "i2"], "i3"), "b": (["i2", "i3"], "i4")}
    assert [ids(last_out, last_out.train[q]) for q in range(3)] == [["i0", "i1", "i2"], ["i2", "i3"], ["i0", "i9"]]


def test_items_of_training_rows_come_first_and_are_counted(last_out: Sequences) -> None:
    known = last_out.items[1 : last_out.n_known + 1].to_list()

    assert known == ["i0", "i1", "i2", "i3", "i9"]
    assert last_out.items[last_out.n_known + 1 :].to_list() == ["i4", "i5", "x0"]
    assert last_out.counts.tolist() == [0, 2, 1, 2, 1, 1, 0, 0, 0]
    assert last_out.n_items == 8


def test_sessions_are_whole_and_the_last_ones_are_asked() -> None:
    data = sequences(make_dataset(ROWS), Sessions(test=0.2, validation=0.25))

    assert set(asked(data, "test")) == {"u8", "u9"}
    assert set(asked(data, "validation")) == {"u6", "u7"}
    assert asked(data, "test")["u9"] == (["i1", "i2", "i3"], "i4")
    assert len(data.train) == 6


def test_without_a_clock_users_stand_in_for_sessions_and_it_is_said() -> None:
    dataset = make_dataset([(f"u{u}", f"i{n}", n) for u in range(100) for n in range(3)], clock="position")
    with pytest.warns(LeakageWarning, match="stand in"):
        data = sequences(dataset, Sessions())

    assert 10 <= len(data.queries["test"]) <= 30
    assert len(data.train) + len(data.queries["test"]) + len(data.queries["validation"]) == 100


def test_after_a_moment_the_first_row_of_each_user_is_asked() -> None:
    rows = [("a", "i0", 1), ("a", "i1", 2), ("a", "i2", 11), ("a", "i3", 12), ("b", "i0", 3), ("b", "i1", 13)]
    rows += [("c", "i1", 14), ("d", "i0", 4), ("d", "i1", 8), ("d", "i2", 9)]
    data = sequences(make_dataset(rows), GlobalTime(test_after=10, validation=0.4))

    assert asked(data, "test") == {"a": (["i0", "i1"], "i2"), "b": (["i0"], "i1")}
    assert data.skipped == {"validation": 0, "test": 1}  # c did nothing before
    assert asked(data, "validation") == {"d": (["i0"], "i1")}


def test_protocols_refuse_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match="clock"):
        sequences(make_dataset(ROWS, clock="position"), Ratio())
    with pytest.raises(DataError, match="no test"), pytest.warns(LeakageWarning):
        sequences(make_dataset([("a", "i0", 1), ("b", "i0", 1)]), LeaveLastOut())


def test_histories_are_cut_and_laid_out() -> None:
    histories = Histories.of([[1, 2, 3], [], [4]])
    items, lengths = histories.rectangle(np.array([2, 0]))

    assert items.tolist() == [[4, 0, 0], [1, 2, 3]]
    assert lengths.tolist() == [1, 3]
    assert [histories.newest(2)[q].tolist() for q in range(3)] == [[2, 3], [], [4]]
    usable = np.array([False, True, False, True])
    assert [histories.only(usable)[q].tolist() for q in range(3)] == [[1, 3], [], []]
    with pytest.raises(ValueError, match="starts"):
        Histories(np.array([1]), np.array([0, 2]))


def test_parts_hold_each_place_once_and_are_no_larger_than_allowed() -> None:
    lengths = np.array([5, 1, 9, 3, 3, 0, 100])
    found = list(parts(lengths, np.array([6, 0, 1, 2, 3, 4, 5]), tokens=20))

    assert sorted(np.concatenate(found).tolist()) == [0, 1, 2, 3, 4, 5, 6]
    assert all(len(part) * lengths[part].max() <= 20 or len(part) == 1 for part in found)


def test_a_sample_of_queries_is_the_same_every_time(last_out: Sequences) -> None:
    queries = last_out.queries["test"]

    assert isinstance(queries.sample(1), Queries)
    assert queries.sample(1).users.to_list() == queries.sample(1).users.to_list()
    assert len(queries.sample(1)) == 1
    assert queries.sample(None) is queries
