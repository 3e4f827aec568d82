"""Slices by training rows, and paired intervals over users."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from ctr_models.evaluate import Evaluation, compare, evaluation, report
from ctr_models.metrics import logloss
from tests.ctr_models.conftest import make_world


def made(n: int = 4000, *, noise: float, seed: int = 0, users: int = 200) -> Evaluation:
    rng = np.random.default_rng(0)
    labels, owner, item = rng.integers(0, 2, n), rng.integers(0, users, n), rng.integers(0, 50, n)
    scores = labels + np.random.default_rng(seed).normal(size=n) * noise
    ids = pl.Series([f"u{i}" for i in owner]), pl.Series([f"i{i}" for i in item])
    return Evaluation(*ids, labels, (1 / (1 + np.exp(-scores))).astype(np.float32), item.astype(np.int64))


def test_report_slices_by_training_rows_of_the_item() -> None:
    result = made(noise=1)
    cold = result.item_rows <= 10
    table = report(result)

    assert table["cold_items"]["rows"] == int(cold.sum())
    assert table["all"]["auc"] == pytest.approx(roc_auc_score(result.labels, result.scores))
    assert table["cold_items"]["auc"] == pytest.approx(roc_auc_score(result.labels[cold], result.scores[cold]))
    assert report(result, cold_at_most=49)["warm_items"] == {
        "rows": 0,
        "positives": 0,
        "auc": None,
        "logloss": None,
        "reason": "no rows",
    }


def test_training_rows_are_counted_per_item() -> None:
    snapshot = make_world(text=False)
    rows = snapshot.samples.filter(pl.col("split") == "test")
    result = evaluation(snapshot, np.full(len(rows), 0.5, np.float32))
    train = snapshot.samples.filter(pl.col("split") == "train")["item_id"].to_list()

    assert [train.count(item) for item in rows["item_id"]] == result.item_rows.tolist()
    with pytest.raises(ValueError, match="3 scores for the"):
        evaluation(snapshot, np.zeros(3))


def test_a_better_model_has_an_interval_above_zero_and_an_equal_one_around_it() -> None:
    base = made(noise=2, seed=1)
    better, equal = compare(base, made(noise=1, seed=2)), compare(base, made(noise=2, seed=3))

    assert better["all"].low > 0.05
    assert equal["all"].low < 0 < equal["all"].high
    assert compare(base, base)["all"].difference == 0
    assert compare(base, base)["all"].high == 0


def test_intervals_are_those_of_resampled_users_done_by_hand() -> None:
    base, other = made(400, noise=2, seed=1, users=20), made(400, noise=1, seed=2, users=20)
    names = sorted(set(base.users), key=base.users.to_list().index)  # in order of appearance, as categories are
    random = np.random.default_rng(5)
    drawn = []
    for _ in range(50):
        counts = random.multinomial(20, np.full(20, 1 / 20))
        rows = [
            i
            for name, k in zip(names, counts, strict=True)
            for i in np.flatnonzero(base.users == name)
            for _ in range(k)
        ]
        labels = base.labels[rows]
        drawn.append(roc_auc_score(labels, other.scores[rows]) - roc_auc_score(labels, base.scores[rows]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    found = compare(base, other, resamples=50, seed=5)["all"]

    assert (found.low, found.high) == pytest.approx((low, high))


def test_different_rows_are_not_compared() -> None:
    with pytest.raises(ValueError, match="different rows"):
        compare(made(100, noise=1), made(101, noise=1))


def test_a_slice_with_one_class_says_why() -> None:
    base = made(50, noise=1)
    result = compare(base, base, cold_at_most=-1)["cold_items"]

    assert result.reason == "no rows"
    assert np.isnan(result.difference)


def test_logloss_differences_are_means_of_row_differences() -> None:
    base, other = made(400, noise=1), made(400, noise=2)
    found = compare(base, other, metric="logloss", resamples=50)["all"]

    assert found.difference == pytest.approx(logloss(other.labels, other.scores) - logloss(base.labels, base.scores))
    assert found.low < found.difference < found.high
    assert compare(base, base, metric="logloss", resamples=20)["all"].high == 0
