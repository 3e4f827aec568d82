"""Where is a model good, and is one better than another? Slices by target, paired intervals over users and seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctr_models.sequential.metrics import per_query
from ctr_models.sequential.sequences import Queries, Sequences

TAIL_FROM = 0.2
"""The most popular fifth of the training items is the head; all other items are the tail."""


@dataclass(frozen=True)
class Difference:
    """How much more of a metric one model has: the mean over seeds and queries, and its central 95 % interval.

    base: the other model's mean. reason: why there is no number, else empty.
    """

    difference: float
    low: float
    high: float
    base: float
    queries: int
    reason: str = ""

    @property
    def verdict(self) -> str:
        """Does the claim "this one is better" stand?"""
        if self.reason:
            return f"not enough evidence ({self.reason})"
        if self.low > 0:
            return "holds"
        return "does not hold" if self.high < 0 else "not enough evidence"


def slices(data: Sequences, queries: Queries, *, cold_at_most: int) -> dict[str, np.ndarray]:
    """Queries (bool [Q]) by the training rows of their target.

    all; cold_items: at most `cold_at_most` rows; warm_items: the others; tail_items: not among the most popular fifth.
    """
    rows = data.counts[queries.target]
    seen = np.sort(data.counts[data.counts > 0])[::-1]
    head = seen[min(len(seen) - 1, int(TAIL_FROM * len(seen)))]
    cold = rows <= cold_at_most
    return {"all": np.ones(len(rows), bool), "cold_items": cold, "warm_items": ~cold, "tail_items": rows <= head}


def compare(
    better: Sequence[np.ndarray],
    worse: Sequence[np.ndarray],
    *,
    targets: np.ndarray,
    counts: np.ndarray,
    chosen: np.ndarray,
    metric: str,
    resamples: int = 1000,
    seed: int = 0,
) -> Difference:
    """A metric (as "ndcg@20") of the ranks of one model less that of another, over the `chosen` queries.

    better, worse: ranks int [Q] of each seed, in pairs. Users (one query each) and seeds are drawn with replacement
    together, for both models alike (Efron and Tibshirani 1993, chapter 8; the crossed bootstrap of Owen 2007).
    Raises ValueError where the two have not the same seeds.
    """
    if len(better) != len(worse):
        raise ValueError(f"{len(better)} seeds of one model, {len(worse)} of the other: they are compared in pairs")
    if not chosen.any() or not better:
        return Difference(float("nan"), float("nan"), float("nan"), float("nan"), 0, "no queries")
    k = int(metric.partition("@")[2])

    def values(ranks: np.ndarray) -> np.ndarray:
        return per_query(ranks, targets, counts, k)[metric][chosen]

    base = np.stack([values(ranks) for ranks in worse])
    gain_SQ = np.stack([values(ranks) for ranks in better]) - base
    random = np.random.default_rng(seed)
    n_seeds, n_queries = gain_SQ.shape
    drawn = np.empty(resamples)
    for place in range(resamples):
        users = np.bincount(random.integers(n_queries, size=n_queries), minlength=n_queries)
        seeds = np.bincount(random.integers(n_seeds, size=n_seeds), minlength=n_seeds)
        drawn[place] = seeds @ (gain_SQ @ users) / (n_seeds * n_queries)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Difference(float(gain_SQ.mean()), float(low), float(high), float(base.mean()), n_queries)
