"""AUC and LogLoss against brute force and scikit-learn, ties and weights included."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from ctr_models.metrics import Ranking, auc, calibration, logloss, why_no_auc

ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=40)


def brute_force(labels: np.ndarray, scores: np.ndarray) -> float:
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positive for n in negative]
    return sum(wins) / len(wins) if wins else math.nan


@given(ROWS)
def test_auc_counts_pairs_and_half_of_ties(rows: list[tuple[bool, int, int]]) -> None:
    labels, scores = np.array([int(r[0]) for r in rows]), np.array([r[1] / 4 for r in rows])

    assert auc(labels, scores) == pytest.approx(brute_force(labels, scores), nan_ok=True)
    assert math.isnan(auc(labels, scores)) == bool(why_no_auc(labels))


@given(ROWS)
def test_a_weight_is_a_repetition(rows: list[tuple[bool, int, int]]) -> None:
    labels, scores = np.array([int(r[0]) for r in rows]), np.array([r[1] / 4 for r in rows])
    times = np.array([r[2] for r in rows])

    repeated = auc(np.repeat(labels, times), np.repeat(scores, times))
    assert Ranking(labels, scores).auc(times) == pytest.approx(repeated, nan_ok=True)


def test_auc_and_logloss_equal_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 5000)
    scores = np.round(rng.random(5000), 2).astype(np.float32)  # many ties
    inside = np.clip(scores, 0.01, 0.99)

    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert logloss(labels, inside) == pytest.approx(log_loss(labels, inside.astype(np.float64)), abs=1e-9)


def test_missing_classes_are_named() -> None:
    assert why_no_auc(np.array([])) == "no rows"
    assert why_no_auc(np.array([1, 1])) == "no negative label"
    assert why_no_auc(np.array([0])) == "no positive label"
    assert why_no_auc(np.array([0, 1])) == ""
    assert math.isnan(auc(np.array([]), np.array([])))
    assert math.isnan(logloss(np.array([]), np.array([])))


def test_scores_must_be_numbers_for_every_label() -> None:
    with pytest.raises(ValueError, match="2 labels, but 1 scores"):
        auc(np.array([0, 1]), np.array([0.5]))
    with pytest.raises(ValueError, match="finite"):
        auc(np.array([0, 1]), np.array([0.5, np.nan]))


def test_calibration_compares_equally_many_rows_with_what_happened() -> None:
    labels = np.array([0, 0, 1, 1, 0, 1, 1, 1])
    found = calibration(labels, np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]), bins=2)

    np.testing.assert_allclose(found.predicted, [0.25, 0.65])
    np.testing.assert_allclose(found.observed, [0.5, 0.75])
    assert found.rows.tolist() == [4, 4]
    assert found.error == pytest.approx((0.25 + 0.1) / 2)
    assert calibration(labels[:3], np.full(3, 1 / 3)).rows.tolist() == [1, 1, 1]
    assert np.isnan(calibration(labels[:0], labels[:0]).error)
