"""How much does each item of a history count? Weights by place, as rows of a sparse matrix over the catalogue."""

from typing import Literal

import numpy as np
from scipy.sparse import csr_matrix

from ctr_models.sequential.histories import Histories

Weighting = Literal["mean", "linear", "quadratic", "log", "harmonic", "harmonic_squared", "last"]
"""With i = 1 for the newest item of n: 1; (n - i + 1) / n; its square; 1 / log2(i + 1); 1 / i; 1 / i^2; i = 1 only."""


def weights(weighting: Weighting, history: Histories) -> np.ndarray:
    """The weight of every item of every history, float32, in the order of `history.item`."""
    back = (np.repeat(history.start[1:], history.lengths) - np.arange(len(history.item))).astype(np.float32)
    linear = (np.repeat(history.lengths, history.lengths) - back + 1) / np.repeat(history.lengths, history.lengths)
    return {
        "mean": np.ones_like(back),
        "linear": linear,
        "quadratic": linear**2,
        "log": 1 / np.log2(back + 1),
        "harmonic": 1 / back,
        "harmonic_squared": 1 / back**2,
        "last": (back == 1).astype(np.float32),
    }[weighting].astype(np.float32)


def votes(mine: csr_matrix, theirs: csr_matrix) -> np.ndarray:
    """Product of two sparse matrices, written out as float32."""
    return np.asarray(csr_matrix(mine @ theirs).toarray(), np.float32)


def weighted(weighting: Weighting, history: Histories, n_items: int, *, known: np.ndarray | None = None) -> csr_matrix:
    """Histories as rows of item weights [B, 1 + n_items]; an item that occurs twice counts twice.

    known: bool [1 + n_items], items that count at all.
    """
    values = weights(weighting, history)
    inside = (history.item > 0) & (history.item <= n_items)
    values = values * inside
    if known is not None:
        values = values * known[np.where(inside, history.item, 0)]
    shape = (len(history), 1 + n_items)
    return csr_matrix((values, np.where(inside, history.item, 0), history.start), shape=shape)
