"""How good are ranked lists with one right answer each? Accuracy by rank, and what the lists hold beside the answer.

Formulas of Harte et al. 2023 (LLM2Sequential, arXiv 2309.09261; the definitions of their released evaluation), except
that popularity is counted in training rows only: counted over everything, as there, it has seen the test rows.
"""

from collections.abc import Mapping, Sequence

import numpy as np

CUTS = (10, 20)


def hits(ranks: np.ndarray, k: int) -> np.ndarray:
    """HR@k of each query: 1 where the target's rank (from 1; 0: not in the ranking) is at most k; float64 [Q]."""
    return ((ranks > 0) & (ranks <= k)).astype(np.float64)


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """NDCG@k of each query with one relevant item: 1 / log2(rank + 1) where rank <= k, else 0; float64 [Q]."""
    return hits(ranks, k) / np.log2(np.maximum(ranks, 1) + 1.0)


def reciprocal_rank(ranks: np.ndarray, k: int) -> np.ndarray:
    """MRR@k of each query: 1 / rank where rank <= k, else 0; float64 [Q]."""
    return hits(ranks, k) / np.maximum(ranks, 1)


def serendipity(ranks: np.ndarray, targets: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """Serendipity@k of each query: a hit whose target is not among the k most popular items; float64 [Q].

    The general form divides by min(unexpected targets, list length), which is 1 where there is one target.
    counts: training rows of each item number, [items]; ties of popularity by item number.
    """
    return hits(ranks, k) * ~np.isin(targets, most_popular(counts, k))


def novelty(top: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """Novelty@k of each query: mean of -log2(count / all counts) over its first k recommendations; float64 [Q].

    top: int [Q, >= k] item numbers, 0 where a list is over; NaN where a list is empty. An item without a training row
    counts as one with one row: its information would be infinite.
    """
    chosen = top[:, :k]
    information = -np.log2(np.maximum(counts, 1) / max(1, counts.sum()))
    there = chosen > 0
    total = np.where(there, information[chosen], 0.0).sum(axis=1)
    size = there.sum(axis=1)
    return np.where(size > 0, total / np.maximum(size, 1), np.nan)


def coverage(top: np.ndarray, n_items: int, k: int) -> float:
    """Catalogue coverage@k: distinct items in all first k places over the items of the catalogue; NaN without any."""
    chosen = np.unique(top[:, :k])
    return float(np.count_nonzero(chosen) / n_items) if n_items else float("nan")


def most_popular(counts: np.ndarray, k: int) -> np.ndarray:
    """The k items with most training rows, item 0 never; ties by item number."""
    order = np.argsort(-counts[1:], kind="stable")[:k]
    return order[counts[1:][order] > 0] + 1


def per_query(ranks: np.ndarray, targets: np.ndarray, counts: np.ndarray, k: int) -> Mapping[str, np.ndarray]:
    """The metrics that are means over queries, before the mean; each float64 [Q]."""
    return {
        f"ndcg@{k}": ndcg(ranks, k),
        f"hr@{k}": hits(ranks, k),
        f"mrr@{k}": reciprocal_rank(ranks, k),
        f"serendipity@{k}": serendipity(ranks, targets, counts, k),
    }


def summary(
    ranks: np.ndarray,
    top: np.ndarray,
    targets: np.ndarray,
    counts: np.ndarray,
    *,
    n_items: int,
    cuts: Sequence[int] = CUTS,
) -> dict[str, float]:
    """All metrics at all cuts, NaN where there is no query.

    ranks: int [Q], 1 the best, 0 where the target is not in the ranking; top: int [Q, largest cut] item numbers.
    """
    found: dict[str, float] = {}
    for k in cuts:
        for name, values in per_query(ranks, targets, counts, k).items():
            found[name] = float(values.mean()) if len(values) else float("nan")
        found[f"coverage@{k}"] = coverage(top, n_items, k) if len(top) else float("nan")
        news = novelty(top, counts, k)
        found[f"novelty@{k}"] = float(np.nanmean(news)) if np.isfinite(news).any() else float("nan")
    return found
