"""Where does the right item stand among all others? Full ranking of the catalogue, what was seen before left out.

Sampled candidates are ranked beside it where somebody asks for them: see `sampled` for what such numbers are worth.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ctr_models.sequential.histories import Histories, parts
from ctr_models.sequential.metrics import CUTS
from ctr_models.sequential.sampled import ranks_among
from ctr_models.sequential.sequences import Queries

SCORE_ROWS = 256


class Scorer(Protocol):
    """Anything that says how well each item would follow a history."""

    def scores(self, history: Histories) -> np.ndarray:
        """float32 [sequences, 1 + items]: greater is better, -inf is never recommended; column 0 is nobody's."""
        ...


@dataclass(frozen=True)
class Ranked:
    """Rankings of queries. ranks: int32 [Q], place of the target from 1, 0 where it cannot be recommended.

    top: int32 [Q, k], the best items, 0 where fewer can be recommended; scores: float32 [Q, k], -inf there. sampled:
    the target's places among the drawn candidates of each name, int32 [Q].
    """

    ranks: np.ndarray
    top: np.ndarray
    scores: np.ndarray
    sampled: Mapping[str, np.ndarray] = field(default_factory=dict)


def rank(
    scorer: Scorer, queries: Queries, *, k: int = max(CUTS), drawn: Mapping[str, np.ndarray] | None = None
) -> Ranked:
    """Rank the whole catalogue for every query. Of equal scores the smaller item number comes first.

    Items of the history are never recommended, so a target that the user had before is never found. drawn: see
    `sampled.candidates`, by name. Raises ValueError where a score is NaN.
    """
    drawn = drawn or {}
    found = Ranked(
        np.zeros(len(queries), np.int32),
        np.zeros((len(queries), k), np.int32),
        np.full((len(queries), k), -np.inf, np.float32),
        {name: np.zeros(len(queries), np.int32) for name in drawn},
    )
    for places in parts(np.ones(len(queries), np.int64), np.arange(len(queries)), tokens=SCORE_ROWS):
        history = queries.history.take(places)
        scores = unseen(scorer.scores(history), history)
        found.ranks[places] = _target_ranks(scores, queries.target[places])
        for name, few in drawn.items():
            found.sampled[name][places] = ranks_among(scores, queries.target[places], few[places])
        top = best(scores, k)
        values = np.take_along_axis(scores, top, axis=1)
        found.top[places, : top.shape[1]] = np.where(np.isfinite(values), top, 0)
        found.scores[places, : top.shape[1]] = values
    return found


def unseen(scores: np.ndarray, history: Histories) -> np.ndarray:
    """The scores [B, 1 + items] with -inf for item 0 and each line's own history. Changes `scores`, and returns it."""
    if np.isnan(scores).any():
        raise ValueError("a score is NaN: it cannot be ranked")
    line = np.repeat(np.arange(len(history)), history.lengths)
    inside = history.item < scores.shape[1]
    scores[line[inside], history.item[inside]] = -np.inf
    scores[:, 0] = -np.inf
    return scores


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """The columns of the k greatest scores of each line, best first, of equals the smaller column; int64 [B, <= k]."""
    n_items = scores.shape[1]
    k = min(k, n_items)
    if k < n_items:
        least = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]
        above, equal = scores > least, scores == least
        room = k - above.sum(axis=1, keepdims=True)
        chosen = above | (equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= room))
        columns = np.nonzero(chosen)[1].reshape(len(scores), k)
    else:
        columns = np.broadcast_to(np.arange(n_items), scores.shape)
    order = np.argsort(-np.take_along_axis(scores, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def _target_ranks(scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Place of each line's target from 1: a greater score goes before it, and an equal one of a smaller number."""
    line = np.arange(len(target))
    inside = target < scores.shape[1]
    value = np.where(inside, scores[line, np.where(inside, target, 0)], -np.inf)[:, None]
    earlier = np.arange(scores.shape[1]) < target[:, None]
    before = (scores > value).sum(axis=1) + ((scores == value) & earlier).sum(axis=1)
    return np.where(np.isfinite(value[:, 0]), before + 1, 0).astype(np.int32)
