"""How sure is a mean over seeds? Users and seeds drawn with replacement together, the same draws for every model."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean difference and the central 95 % of its bootstrap distribution; NaN where there is none."""

    difference: float
    low: float
    high: float


def draw_users(users: int, *, resamples: int, seed: int = 0) -> np.ndarray:
    """How often each user is in each resample of as many users: int32 [resamples, users]."""
    random = np.random.default_rng(seed)
    return random.multinomial(users, np.full(users, 1 / users), size=resamples).astype(np.int32)


def interval(point_S: np.ndarray, drawn_SR: np.ndarray, *, seed: int = 0) -> Interval:
    """The interval of a paired difference of two models that were both trained with S seeds.

    point_S: the difference on all users; drawn_SR: on each resample of the users. A user brings all its rows (they are
    not independent), and seeds are drawn beside users: the crossed bootstrap of Owen 2007, "The Pigeonhole Bootstrap",
    section 3; percentiles as in Efron and Tibshirani 1993, chapter 13. Resamples without a number do not count.
    """
    n_seeds, resamples = drawn_SR.shape
    seeds_RS = np.random.default_rng(seed).multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=resamples)
    drawn_R = (seeds_RS * drawn_SR.T).sum(axis=1) / n_seeds
    drawn_R = drawn_R[np.isfinite(drawn_R)]
    low, high = np.quantile(drawn_R, [0.025, 0.975]) if len(drawn_R) else (np.nan, np.nan)
    return Interval(float(point_S.mean()), float(low), float(high))
