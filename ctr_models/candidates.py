"""How near are a request's candidates, in text space, to what their user liked and disliked? For one who waits.

The numbers are those of `ctr_models.similarity`, with few operations: at a few hundred rows each costs about the same.
All that does not depend on the candidates is laid out beforehand, and a candidate's vector is fetched once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from ctr_models.similarity import PRIOR, SIMILARITIES, VOTES, pairs, similarity_names
from ctr_models.tables import Tables
from ctr_models.text import TextSet

SHARPER = 4
"""The near kernel is this power of the wide one, whose width is so many times larger: one exponential serves both."""
PRIORS = np.array([[PRIOR * np.exp(SHARPER / VOTES[1])], [PRIOR * np.exp(1 / VOTES[1])]], np.float32)
"""Of the near and the wide vote, whose kernels here are exp(c / width): both sides of the fraction are larger."""


@dataclass(frozen=True)
class _ItemText:
    """One item text of every item version and, of every user, in the newest interactions.

    rows: of each version's vector, 0 where it is absent; complete: none is. history: rows of user u's newest items that
    have a text, liked ones first, at [start[u], start[u + 1]); liked: how many those are. vectors: of the items, then
    those of user texts of the same encoder; users: such a text's column in a request, and where its vectors start.
    """

    rows: np.ndarray
    complete: bool
    history: np.ndarray
    start: np.ndarray
    liked: np.ndarray
    vectors: np.ndarray
    users: Sequence[tuple[int, int]]


class CandidateSimilarity:
    """`similarity.compare` for candidates of one user, who has seen all of the newest `window` interactions."""

    def __init__(self, tables: Tables, texts: Sequence[TextSet], *, window: int) -> None:
        of_items = [text for text in texts if text.entity == "item"]
        of_users = [text for text in texts if text.entity == "user"]
        self._texts: list[_ItemText] = []
        made: list[str] = []
        for column, text in enumerate(of_items):
            users = [one for one, other in pairs(of_users, of_items) if other is text]
            starts = np.cumsum([0, len(text.unit), *(len(one.unit) for one in users)])[1:-1].tolist()
            places = [(of_users.index(one), start) for one, start in zip(users, starts, strict=True)]
            vectors = np.concatenate([text.unit, *(one.unit for one in users)])
            rows = np.ascontiguousarray(tables.items.text.numpy()[:, column])
            history = _newest(tables, rows, window)
            self._texts.append(_ItemText(rows, bool(rows[1:].all()), *history, vectors, places))
            made += [f"{text.name}.{each}" for each in SIMILARITIES] + [f"{one.name}.{text.name}" for one in users]
        self._order = [made.index(name) for name in similarity_names([text.statistics for text in texts])]

    def __call__(self, user: int, item: np.ndarray, user_text: np.ndarray) -> np.ndarray:
        """float32 [C, S], NaN where nothing is to compare. item: versions [C]; user_text: int [T], the user's rows."""
        out = np.empty((len(self._order), len(item)), np.float32)
        row = 0
        for text in self._texts:
            wide = len(SIMILARITIES) + len(text.users)
            _fill(text, user, text.rows.take(item), user_text, out[row : row + wide])
            row += wide
        return out.take(self._order, axis=0).T if len(self._texts) > 1 else out.T


def _newest(tables: Tables, rows: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`history`, `start` and `liked` of an item text."""
    start, acted, liked = tables.start.numpy(), tables.item.numpy()[:-1], tables.liked.numpy()[:-1]
    user = np.repeat(np.arange(len(start) - 1), np.diff(start))
    places = np.flatnonzero((np.arange(len(acted)) >= start[user + 1] - window) & (rows[acted] > 0))
    places = places[np.lexsort((~liked[places], user[places]))]
    counts = np.bincount(user[places], minlength=len(start) - 1)
    likes = np.bincount(user[places[liked[places]]], minlength=len(start) - 1)
    return rows[acted[places]], np.concatenate([[0], np.cumsum(counts)]), likes


def _fill(text: _ItemText, user: int, targets: np.ndarray, mine: np.ndarray, out: np.ndarray) -> None:
    """The similarities of one item text [6 + user sets, C]; targets: rows [C]; mine: rows of the user's texts."""
    first, end = text.start[user : user + 2].tolist()
    n, n_liked = end - first, int(text.liked[user])
    asked = [start + mine[column] for column, start in text.users]
    rows = np.concatenate([text.history[first:end], asked], dtype=np.int64)
    fetched, others = text.vectors.take(targets, axis=0), text.vectors.take(rows, axis=0)
    values = np.empty((3, len(rows), len(targets)), np.float32)
    cosine, near, wide = values
    # torch keeps to the caller's number of threads
    torch.mm(torch.from_numpy(others), torch.from_numpy(fetched).T, out=torch.from_numpy(cosine))
    for place, (column, _) in enumerate(text.users):
        out[len(SIMILARITIES) + place] = cosine[n + place] if mine[column] else np.nan
    if n:
        np.exp(np.multiply(cosine, np.float32(1 / VOTES[1]), out=wide), out=wide)
        np.square(np.square(wide, out=near), out=near)
        sums = _weights(n_liked, n, len(rows)) @ values
        np.divide(sums[1:, 2], sums[1:, 3] + PRIORS, out=out[4:6])
        for side, part in enumerate((cosine[:n_liked], cosine[n_liked:n])):
            if len(part):
                out[2 * side] = sums[0, side]
                part.max(axis=0, out=out[2 * side + 1])
            else:
                out[2 * side : 2 * side + 2] = np.nan
    else:
        out[: len(SIMILARITIES)] = np.nan
    if not text.complete:
        out[:, targets == 0] = np.nan


@lru_cache(maxsize=4096)
def _weights(n_liked: int, n: int, width: int) -> np.ndarray:
    """What sums over the history weigh: means of the liked and of the disliked, a vote's numerator and denominator."""
    weights = np.zeros((4, width), np.float32)
    weights[0, :n_liked], weights[1, n_liked:n] = 1 / max(1, n_liked), 1 / max(1, n - n_liked)
    weights[2, :n_liked], weights[2, n_liked:n], weights[3, :n] = 1 - n_liked / n, -n_liked / n, 1
    return weights
