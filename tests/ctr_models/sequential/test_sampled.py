"""Sampled candidates: drawn as promised, ranked as a plain loop ranks them, and named for what they are."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings

from ctr_models.sequential.histories import Histories
from ctr_models.sequential.ranking import rank
from ctr_models.sequential.sampled import Sampled, candidates, sampled_summary
from ctr_models.sequential.sequences import Queries
from tests.ctr_models.sequential.conftest import make_sequences
from tests.ctr_models.sequential.test_metrics import Fixed, cases


@settings(max_examples=200, deadline=None)
@given(cases())
def test_they_agree_with_the_reference(case: tuple[np.ndarray, list[list[int]], list[int], list[int]]) -> None:
    """To 1e-9 with a loop that sorts the target and its candidates in plain Python; ties and impossible items too."""
    scores, histories, targets, _ = case
    random = np.random.default_rng(len(targets))
    few = random.integers(0, scores.shape[1], (len(targets), 5)).astype(np.int32)
    few[few == np.array(targets)[:, None]] = 0
    queries = Queries(pl.Series([f"u{i}" for i in range(len(targets))]), Histories.of(histories), np.array(targets))
    ranked = rank(Fixed(scores), queries, drawn={"five": few})
    wanted = dict.fromkeys(("hr", "ndcg", "mrr"), 0.0)
    for line, history, target, beside in zip(scores.tolist(), histories, targets, few.tolist(), strict=True):
        if target in history or line[target] == -math.inf:
            continue
        possible = [i for i in [target, *beside] if i > 0 and i not in history]
        place = sorted(possible, key=lambda i: (-line[i], i)).index(target) + 1
        if place <= 3:
            wanted["hr"] += 1 / len(targets)
            wanted["ndcg"] += 1 / math.log2(place + 1) / len(targets)
            wanted["mrr"] += 1 / place / len(targets)

    found = sampled_summary("sampled@5 uniform", ranked.sampled["five"], (3,))
    for metric, value in wanted.items():
        assert found[f"sampled@5 uniform {metric}@3"] == pytest.approx(value, rel=1e-9, abs=1e-9)
    assert np.array_equal(ranked.ranks, rank(Fixed(scores), queries).ranks)  # the full ranking is what it was


@pytest.mark.parametrize("drawn", ["uniform", "popularity"])
def test_candidates_are_others_and_each_once(drawn: str) -> None:
    data = make_sequences(many=300)
    config = Sampled(negatives=10, drawn=drawn)  # type: ignore[arg-type]
    queries = data.queries["test"]
    few = candidates(config, data, queries)

    assert few.shape == (300, 10)
    for place, line in enumerate(few):
        assert len(set(line)) == 10
        assert not set(line) & {0, int(queries.target[place]), *queries.history[place].tolist()}
    assert np.array_equal(few, candidates(config, data, queries))
    other = config.model_copy(update={"seed": 1})
    assert not np.array_equal(few, candidates(other, data, queries))


def test_they_are_drawn_by_their_weights() -> None:
    """One candidate of 20,000 equal queries: shares within 4 standard errors of what the weights say."""
    data = make_sequences(many=100)
    many = 20_000
    queries = Queries(pl.Series(["u"] * many), Histories.of([[1]] * many), np.full(many, data.n_items, np.int32))
    left = np.arange(2, data.n_items)
    for drawn, weight in (("uniform", np.ones(len(left))), ("popularity", data.counts[left].astype(float))):
        few = candidates(Sampled(negatives=1, drawn=drawn), data, queries)[:, 0]  # type: ignore[arg-type]
        share = np.bincount(few, minlength=data.n_items + 1)[left] / many
        wanted = weight / weight.sum()

        assert np.all(np.abs(share - wanted) <= 4 * np.sqrt(wanted * (1 - wanted) / many))
        assert share.sum() == pytest.approx(1)


def test_too_few_items_leave_places_empty() -> None:
    """By popularity nobody is drawn whom no training row knows; the rest of the list is empty, and nobody precedes."""
    data = make_sequences()
    few = candidates(Sampled(negatives=100, drawn="popularity"), data, data.queries["test"])
    there = (few > 0).sum(axis=1)

    assert there.max() <= data.n_known - 1
    assert few.max() <= data.n_known
    assert there[0] == data.n_known - 1 - data.queries["test"].history.lengths[0]


def test_no_query_is_no_number() -> None:
    found = sampled_summary(Sampled().name, np.zeros(0, np.int32), (10,))

    assert list(found) == [f"sampled@100 uniform {metric}@10" for metric in ("hr", "ndcg", "mrr")]
    assert all(math.isnan(value) for value in found.values())
