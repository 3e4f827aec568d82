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
STEEP = np.float32(1 / VOTES[1])
"""Of this many times a cosine the wide kernel is the exponential."""
PRIORS = PRIOR * np.exp(STEEP * np.array([SHARPER, 1], np.float32)).reshape(2, 1, 1)
"""Of the near and the wide votes, whose kernels here are exp(c / width): both sides of the fraction are larger."""


@dataclass(frozen=True)
class _ItemText:
    """One item text of every item version, and what each user has that candidates are compared to.

    rows: of each version's vector, 0 where it is absent; complete: none is. others: user u's rows of `vectors`, at
    [start[u], start[u + 1]): of the newest items that have a text, liked ones first, then of the user's texts by the
    same encoder, one each (that of row 0 where there is none). stars: how far an item's rating is from the mean of
    those, 0 where there is none, and for texts. liked: how many of the items are; told: bool [users, texts], which
    texts there are.
    """

    rows: np.ndarray
    complete: bool
    vectors: np.ndarray
    others: np.ndarray
    stars: np.ndarray
    start: np.ndarray
    liked: np.ndarray
    told: np.ndarray


class CandidateSimilarity:
    """`similarity.compare` for candidates of one user, who has seen all of the newest `window` interactions."""

    def __init__(self, tables: Tables, texts: Sequence[TextSet], *, window: int) -> None:
        of_items = [text for text in texts if text.entity == "item"]
        of_users = [text for text in texts if text.entity == "user"]
        self._texts: list[_ItemText] = []
        made: list[str] = []
        for column, text in enumerate(of_items):
            users = [one for one, other in pairs(of_users, of_items) if other is text]
            self._texts.append(_laid_out(tables, tables.items.text.numpy()[:, column], text, users, window))
            made += [f"{text.name}.{each}" for each in SIMILARITIES] + [f"{one.name}.{text.name}" for one in users]
        self._order = [made.index(name) for name in similarity_names([text.statistics for text in texts])]

    def __call__(self, user: int, item: np.ndarray) -> np.ndarray:
        """float32 [C, S], NaN where nothing is to compare. user: dense row; item: versions [C]."""
        out = np.empty((len(self._order), len(item)), np.float32)
        row = 0
        for text in self._texts:
            wide = len(SIMILARITIES) + text.told.shape[1]
            _fill(text, user, text.rows.take(item), out[row : row + wide])
            row += wide
        return out.take(self._order, axis=0).T if len(self._texts) > 1 else out.T


def _laid_out(tables: Tables, rows: np.ndarray, text: TextSet, users: Sequence[TextSet], window: int) -> _ItemText:
    """rows: of the text, by item version; users: the user texts of its encoder; window: as of `CandidateSimilarity`."""
    start, acted, liked = tables.start.numpy(), tables.item.numpy()[:-1], tables.liked.numpy()[:-1]
    size = len(start) - 1
    user = np.repeat(np.arange(size), np.diff(start))
    places = np.flatnonzero((np.arange(len(acted)) >= start[user + 1] - window) & (rows[acted] > 0))
    user, stars = user[places], tables.stars.numpy()[places]
    rated = ~np.isnan(stars)
    means = np.bincount(user[rated], stars[rated], size) / np.maximum(np.bincount(user[rated], minlength=size), 1)
    offsets = np.cumsum([0, len(text.unit), *(len(one.unit) for one in users)])[1:-1]
    of_users = [one.rows + offset for one, offset in zip(users, offsets, strict=True)]
    n = len(users)
    owner = np.concatenate([user, np.tile(np.arange(size), n)])
    others = np.concatenate([rows[acted[places]], *of_users])
    stars = np.concatenate([np.nan_to_num(stars - means[user]), np.zeros(n * size)])
    last = np.concatenate([~liked[places] * 1, np.repeat(np.arange(n) + 2, size)])
    order = np.lexsort((last, owner))
    return _ItemText(
        np.ascontiguousarray(rows),
        bool(rows[1:].all()),
        np.concatenate([text.unit, *(one.unit for one in users)]),
        others[order].astype(np.int64),
        stars[order].astype(np.float32),
        np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=size))]),
        np.bincount(user[liked[places]], minlength=size),
        np.stack([one.rows > 0 for one in users], axis=1) if users else np.zeros((size, 0), bool),
    )


def _fill(text: _ItemText, user: int, targets: np.ndarray, out: np.ndarray) -> None:
    """The similarities of one item text [8 + user sets, C]; targets: rows [C]."""
    first, end = text.start[user : user + 2].tolist()
    told, others = text.told[user], text.others[first:end]
    n, n_liked = len(others) - len(told), int(text.liked[user])
    values = np.empty((3, len(others), len(targets)), np.float32)
    cosine, near, wide = values
    mine, theirs = text.vectors.take(targets, axis=0), text.vectors.take(others, axis=0)
    # torch keeps to the caller's number of threads
    torch.mm(torch.from_numpy(theirs), torch.from_numpy(mine).T, out=torch.from_numpy(cosine))
    out[len(SIMILARITIES) :] = cosine[n:]
    if not told.all():
        out[len(SIMILARITIES) :][~told] = np.nan
    if n:
        np.exp(np.multiply(cosine, STEEP, out=wide), out=wide)
        np.square(np.square(wide, out=near), out=near)
        weights = _weights(n_liked, n, len(others)).copy()
        weights[4] = text.stars[first:end]
        sums = weights @ values
        np.divide(sums[1:, 3:], sums[1:, 2:3] + PRIORS, out=out[4:8].reshape(2, 2, -1))
        out[0:4:2] = sums[0, :2]
        for side, part in enumerate((cosine[:n_liked], cosine[n_liked:n])):
            if len(part):
                part.max(axis=0, out=out[2 * side + 1])
            else:
                out[2 * side : 2 * side + 2] = np.nan
    else:
        out[: len(SIMILARITIES)] = np.nan
    if not text.complete:
        out[:, targets == 0] = np.nan


@lru_cache(maxsize=4096)
def _weights(n_liked: int, n: int, width: int) -> np.ndarray:
    """What sums over the history weigh: means of the liked and of the disliked, all, votes; and room for ratings."""
    weights = np.zeros((5, width), np.float32)
    weights[0, :n_liked], weights[1, n_liked:n] = 1 / max(1, n_liked), 1 / max(1, n - n_liked)
    weights[2, :n], weights[3, :n_liked], weights[3, n_liked:n] = 1, 1 - n_liked / n, -n_liked / n
    return weights
