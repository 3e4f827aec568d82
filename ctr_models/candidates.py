"""What would one user think of a request's candidates, judging by texts? For one who waits.

The numbers are those of `ctr_models.similarity`, with few operations: at a few hundred rows each costs about the same.
All that does not depend on the candidates is laid out beforehand, the weights of a user's opinions above all, and a
candidate's vector is fetched once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import lapack

from ctr_models.similarity import NOISE, OFFSET, PRIOR, SIMILARITIES, WIDTH, first_seen, pairs, similarity_names
from ctr_models.tables import Tables
from ctr_models.text import TextSet

STEEP = np.float32(1 / WIDTH)
"""Of this many times a cosine the kernel is the exponential, but for `SCALE`."""
SCALE = np.exp(-STEEP)
"""What exp(cosine / width) has to be multiplied by: weights are, once."""


@dataclass(frozen=True)
class _ItemText:
    """One item text of every item version, and what each user has that candidates are compared to.

    rows: of each version's vector, 0 where it is absent; complete: none is. others: user u's rows of `vectors`, at
    [start[u], start[u + 1]): of the items whose texts they are compared to, oldest first, then of the user's texts by
    the same encoder, one each (that of row 0 where there is none). weights: float32 [others, 3], what exp(cosine /
    width) to each adds to the expectation, to the vote, and to the sum of all. told: bool [users, texts], which texts
    there are.
    """

    rows: np.ndarray
    complete: bool
    vectors: np.ndarray
    others: np.ndarray
    weights: np.ndarray
    start: np.ndarray
    told: np.ndarray


class CandidateSimilarity:
    """`similarity.compare` for candidates of one user, given all that the user did."""

    def __init__(self, tables: Tables, texts: Sequence[TextSet]) -> None:
        of_items = [text for text in texts if text.entity == "item"]
        of_users = [text for text in texts if text.entity == "user"]
        self._texts: list[_ItemText] = []
        made: list[str] = []
        for column, text in enumerate(of_items):
            users = [one for one, other in pairs(of_users, of_items) if other is text]
            self._texts.append(_laid_out(tables, tables.items.text.numpy()[:, column], text, users))
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


def _laid_out(tables: Tables, rows: np.ndarray, text: TextSet, users: Sequence[TextSet]) -> _ItemText:
    """rows: of the text, by item version; users: the user texts of its encoder."""
    start, acted, liked = tables.start.numpy(), tables.item.numpy()[:-1], tables.liked.numpy()[:-1]
    size, n = len(start) - 1, len(users)
    many = np.diff(start)
    user = np.repeat(np.arange(size), many)
    begins = start[:-1] + first_seen(many)
    places = np.flatnonzero((np.arange(len(acted)) >= begins[user]) & (rows[acted] > 0))
    user, history = user[places], rows[acted[places]]
    weights = np.zeros((len(places) + n * size, 3), np.float32)
    ends = np.searchsorted(user, np.arange(size + 1))
    for first, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        if first < end:
            mine = slice(first, end)
            told = tables.opinion.numpy()[places[mine]], liked[places[mine]]
            weights[mine] = _weights(text.unit.take(history[mine], axis=0), *told)
    offsets = np.cumsum([0, len(text.unit), *(len(one.unit) for one in users)])[1:-1]
    of_users = [one.rows + offset for one, offset in zip(users, offsets, strict=True)]
    owner = np.concatenate([user, np.tile(np.arange(size), n)])
    order = np.argsort(owner, kind="stable")
    return _ItemText(
        np.ascontiguousarray(rows),
        bool(rows[1:].all()),
        np.concatenate([text.unit, *(one.unit for one in users)]),
        np.concatenate([history, *of_users])[order].astype(np.int64),
        weights[order],
        np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=size))]),
        np.stack([one.rows > 0 for one in users], axis=1) if users else np.zeros((size, 0), bool),
    )


def _weights(mine_HE: np.ndarray, opinion: np.ndarray, liked: np.ndarray) -> np.ndarray:
    """Of one user's items, [H, 3]. For the expectation (K + offset + noise)^-1 y, see `similarity.similarities`."""
    weights = np.full((len(opinion), 3), SCALE, np.float32)
    rated = np.flatnonzero(~np.isnan(opinion))
    weights[:, 0] = 0 if len(rated) else np.nan
    if len(rated):
        vectors = torch.from_numpy(mine_HE[rated])
        near_HH = (vectors @ vectors.T).numpy()
        near_HH *= STEEP
        np.exp(near_HH, out=near_HH)
        near_HH *= SCALE
        near_HH += OFFSET
        near_HH.ravel()[:: len(rated) + 1] += NOISE
        weights[rated, 0] = lapack.sposv(near_HH.T, opinion[rated], overwrite_a=True)[1] * SCALE  # type: ignore[attr-defined]
    weights[:, 1] *= liked - liked.mean(dtype=np.float32)
    return weights


def _fill(text: _ItemText, user: int, targets: np.ndarray, out: np.ndarray) -> None:
    """The similarities of one item text [2 + user sets, C]; targets: rows [C]."""
    first, end = text.start[user : user + 2].tolist()
    told, others = text.told[user], text.others[first:end]
    n = len(others) - len(told)
    # torch keeps to the caller's number of threads
    theirs, mine = (torch.from_numpy(text.vectors.take(rows, axis=0)) for rows in (others, targets))
    cosine_HC = (theirs @ mine.T).numpy()
    out[len(SIMILARITIES) :] = cosine_HC[n:]
    if not told.all():
        out[len(SIMILARITIES) :][~told] = np.nan
    if n:
        near_HC = cosine_HC[:n]
        near_HC *= STEEP
        np.exp(near_HC, out=near_HC)
        weights_H3 = torch.from_numpy(text.weights[first : first + n])
        out[0], pull, total = (weights_H3.T @ torch.from_numpy(near_HC)).numpy()
        total += PRIOR
        np.divide(pull, total, out=out[1])
    else:
        out[: len(SIMILARITIES)] = np.nan
    if not text.complete:
        out[:, targets == 0] = np.nan
