"""Metrics against a brute-force reference that sorts every list in plain Python; ties, empty and impossible cases."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr_models.sequential.histories import Histories
from ctr_models.sequential.metrics import summary
from ctr_models.sequential.ranking import best, rank
from ctr_models.sequential.sequences import Queries


class Fixed:
    """Scores that were written down beforehand, one line a query."""

    def __init__(self, scores: np.ndarray) -> None:
        self.left = [line.copy() for line in scores]

    def scores(self, history: Histories) -> np.ndarray:
        taken, self.left = self.left[: len(history)], self.left[len(history) :]
        return np.stack(taken)


def reference(
    scores: np.ndarray, histories: list[list[int]], targets: list[int], counts: list[int], k: int
) -> dict[str, float]:
    """Every formula written out once more, for one list at a time."""
    lists = []
    for line, history in zip(scores.tolist(), histories, strict=True):
        possible = [i for i in range(1, len(line)) if i not in history and line[i] > -math.inf]
        lists.append(sorted(possible, key=lambda i: (-line[i], i)))
    popular = sorted((i for i in range(1, len(counts)) if counts[i]), key=lambda i: (-counts[i], i))[:k]
    found = dict.fromkeys(("hr", "ndcg", "mrr", "serendipity"), 0.0)
    news = []
    for ranking, target in zip(lists, targets, strict=True):
        if target in ranking[:k]:
            place = ranking.index(target) + 1
            found["hr"] += 1 / len(targets)
            found["ndcg"] += 1 / math.log2(place + 1) / len(targets)
            found["mrr"] += 1 / place / len(targets)
            found["serendipity"] += (target not in popular) / len(targets)
        bits = [-math.log2(max(1, counts[i]) / max(1, sum(counts))) for i in ranking[:k]]
        if bits:
            news.append(sum(bits) / len(bits))
    found["coverage"] = len({i for ranking in lists for i in ranking[:k]}) / (len(counts) - 1)
    found["novelty"] = sum(news) / len(news) if news else math.nan
    return {f"{name}@{k}": value for name, value in found.items()}


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, list[list[int]], list[int], list[int]]:
    items, queries = draw(st.integers(1, 30)), draw(st.integers(1, 8))
    values = st.sampled_from([-math.inf, -1.0, 0.0, 0.0, 0.5, 2.0])  # few values: many ties
    number = st.integers(1, items)
    scores = draw(
        st.lists(st.lists(values, min_size=items + 1, max_size=items + 1), min_size=queries, max_size=queries)
    )
    histories = draw(st.lists(st.lists(number, max_size=6), min_size=queries, max_size=queries))
    targets = draw(st.lists(number, min_size=queries, max_size=queries))
    counts = [0, *draw(st.lists(st.integers(0, 3), min_size=items, max_size=items))]
    return np.array(scores, np.float32), histories, targets, counts


@settings(max_examples=300, deadline=None)
@given(cases())
def test_they_agree_with_the_reference(case: tuple[np.ndarray, list[list[int]], list[int], list[int]]) -> None:
    scores, histories, targets, counts = case
    users = pl.Series([f"u{i}" for i in range(len(targets))])
    queries = Queries(users, Histories.of(histories), np.array(targets, np.int32))
    ranked = rank(Fixed(scores), queries)
    found = summary(ranked.ranks, ranked.top, queries.target, np.array(counts), n_items=len(counts) - 1)
    for k in (10, 20):
        for name, value in reference(scores, histories, targets, counts, k).items():
            assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True), name


def test_an_item_that_was_seen_is_never_recommended_and_never_found() -> None:
    queries = Queries(pl.Series(["u"]), Histories.of([[2, 3]]), np.array([3], np.int32))
    ranked = rank(Fixed(np.array([[9.0, 1.0, 5.0, 7.0]], np.float32)), queries)

    assert ranked.ranks.tolist() == [0]
    assert ranked.top[0, :2].tolist() == [1, 0]


def test_no_query_is_no_number_and_no_warning() -> None:
    nothing = np.zeros(0, np.int32)
    found = summary(nothing, np.zeros((0, 20), np.int32), nothing, np.array([0, 3, 1]), n_items=2)

    assert all(math.isnan(value) for value in found.values())


def test_a_score_that_is_no_number_is_refused() -> None:
    queries = Queries(pl.Series(["u"]), Histories.of([[1]]), np.array([2], np.int32))
    with pytest.raises(ValueError, match="NaN"):
        rank(Fixed(np.array([[0.0, 1.0, np.nan]], np.float32)), queries)


def test_novelty_and_serendipity_by_hand() -> None:
    counts = np.array([0, 4, 2, 1, 1])  # 8 training rows
    found = summary(np.array([1, 1]), np.array([[1, 3], [4, 2]]), np.array([1, 4]), counts, n_items=4, cuts=(2,))

    assert found["novelty@2"] == pytest.approx(((1 + 3) / 2 + (3 + 2) / 2) / 2)
    assert found["serendipity@2"] == 0.5  # item 1 is one of the two most popular, item 4 is not
    assert found["coverage@2"] == 1.0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=40), st.integers(1, 50))
def test_best_is_a_stable_sort(values: list[float], k: int) -> None:
    scores = np.array([values], np.float32)

    assert best(scores, k)[0].tolist() == sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
