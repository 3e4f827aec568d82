"""Intervals cover what is true, pairs are pairs, slices are by training rows only."""

import numpy as np
import pytest

from ctr_models.sequential.evaluate import compare, slices
from tests.ctr_models.sequential.conftest import make_sequences

COUNTS = np.array([0, *range(50)])
TARGETS = np.arange(1, 51).repeat(8)
ALL = np.ones(400, bool)


def ranks(shift: int, seed: int) -> np.ndarray:
    """Places from 1 to 40, `shift` better than another's of the same seed."""
    return np.maximum(1, np.random.default_rng(seed).integers(1, 41, 400) - shift)


def against(better: list[np.ndarray], worse: list[np.ndarray], chosen: np.ndarray = ALL):
    return compare(better, worse, targets=TARGETS, counts=COUNTS, chosen=chosen, metric="ndcg@20", resamples=300)


def test_a_real_gain_holds_no_gain_does_not() -> None:
    base = [ranks(0, seed) for seed in range(3)]
    better = [ranks(4, seed) for seed in range(3)]

    assert against(better, base).verdict == "holds"
    assert against(base, better).verdict == "does not hold"
    assert against(base, base).verdict == "not enough evidence"
    found = against(better, base)
    assert found.low < found.difference < found.high
    assert found.difference == pytest.approx(-against(base, better).difference)


def test_pairs_are_narrower_than_strangers() -> None:
    base, better = ranks(0, 1), ranks(2, 1)
    paired, apart = against([better], [base]), against([ranks(2, 7)], [base])

    assert paired.high - paired.low < (apart.high - apart.low) / 2


def test_seeds_that_disagree_are_not_enough() -> None:
    base = [ranks(3, 0), ranks(3, 1)]
    assert against([ranks(6, 0), ranks(0, 1)], base).verdict == "not enough evidence"


def test_nothing_to_compare_is_said() -> None:
    found = against([ranks(0, 0)], [ranks(0, 0)], np.zeros(400, bool))

    assert (found.queries, found.verdict) == (0, "not enough evidence (no queries)")
    with pytest.raises(ValueError, match="in pairs"):
        against([ranks(0, 0)], [])


def test_slices_are_by_training_rows_of_the_target() -> None:
    data = make_sequences()
    asked = data.queries["test"]
    data.counts[:] = 0
    data.counts[1:11] = [100, 90, 20, 9, 8, 7, 6, 5, 4, 3]
    found = slices(data, asked, cold_at_most=5)
    rows = data.counts[asked.target]

    assert np.array_equal(found["cold_items"], rows <= 5)
    assert np.array_equal(found["warm_items"], ~found["cold_items"])
    assert np.array_equal(found["tail_items"], rows <= 20)  # the head is the two most popular of ten
    assert found["all"].all()
