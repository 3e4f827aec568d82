"""Intervals over users and seeds are those of a bootstrap written out, and cover what they should."""

import numpy as np

from ctr_models.bootstrap import draw_users, interval
from ctr_models.metrics import Ranking, auc


def test_every_resample_holds_as_many_users() -> None:
    draws = draw_users(7, resamples=50)

    assert draws.shape == (50, 7)
    assert set(draws.sum(axis=1)) == {7}
    assert np.array_equal(draws, draw_users(7, resamples=50))


def test_auc_of_draws_is_the_auc_of_repeated_rows() -> None:
    random = np.random.default_rng(0)
    labels, owner = random.integers(0, 2, 300), random.integers(0, 20, 300)
    for scores in (random.random(300), random.integers(0, 9, 300) / 9):  # without ties, and with many
        draws = draw_users(20, resamples=30)
        repeated = [np.repeat(np.arange(300), draw[owner]) for draw in draws]

        expected = [auc(labels[rows], scores[rows]) for rows in repeated]
        np.testing.assert_allclose(Ranking(labels, scores).aucs(owner, draws), expected, rtol=0, atol=1e-12)


def test_a_draw_of_one_class_has_no_auc_and_does_not_count() -> None:
    ranking = Ranking(np.array([1, 0]), np.array([0.9, 0.1]))
    drawn = ranking.aucs(np.array([0, 1]), np.array([[2, 0], [0, 2], [1, 1]]))

    np.testing.assert_array_equal(drawn, [np.nan, np.nan, 1.0])
    assert interval(np.ones(1), drawn[None]).low == 1.0
    assert np.isnan(interval(np.ones(1), drawn[None, :2]).low)


def test_seeds_that_differ_widen_the_interval() -> None:
    random = np.random.default_rng(1)
    users = random.normal(0, 0.01, 1000)
    alike = np.stack([users, users, users])
    apart = alike + np.array([[-0.05], [0.0], [0.05]])
    narrow, wide = interval(np.zeros(3), alike), interval(np.zeros(3), apart)

    assert narrow.high - narrow.low < 0.06 < wide.high - wide.low
    np.testing.assert_allclose([narrow.low, narrow.high], np.quantile(users, [0.025, 0.975]), atol=2e-3)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    inside = 0
    for repeat in range(200):
        gains = 0.3 + random.normal(0, 1, 80)  # of 80 users, by a model whose seeds are all alike
        drawn = draw_users(80, resamples=200, seed=repeat) @ gains / 80
        found = interval(np.array([gains.mean()]), drawn[None])
        inside += found.low <= 0.3 <= found.high

    assert 180 <= inside <= 199
