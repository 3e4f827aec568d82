"""What would one user think of a request's candidates, judging by texts? For one who waits.

The numbers are those of `ctr_models.similarity`, with few operations: at a few hundred rows each costs about the same.
All that does not depend on the candidates is laid out beforehand, what an opinion weighs is remembered for the users
who were asked for last, and a candidate's vector is fetched once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from ctr_models.similarity import PRIOR, SIMILARITIES, covariance, first_seen, kernel, pairs, similarity_names
from ctr_models.tables import Tables
from ctr_models.text import TextSet

REMEMBERED = 4096
"""Users whose weights are kept."""


@dataclass(frozen=True)
class _ItemText:
    """One item text of every item version, and what each user has that candidates are compared to.

    rows: of each version's vector, 0 where it is absent; complete: none is. others: user u's rows of `vectors`, at
    [start[u], start[u + 1]): of the items whose texts they are compared to, oldest first, then of the user's texts by
    the same encoder, one each (that of row 0 where there is none). opinion, liked: of those items, NaN and False for
    texts. told: bool [users, texts], which texts there are.
    """

    rows: np.ndarray
    complete: bool
    vectors: np.ndarray
    others: np.ndarray
    opinion: np.ndarray
    liked: np.ndarray
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
        self._weights = lru_cache(REMEMBERED)(self._weights_of)

    def __call__(self, user: int, item: np.ndarray) -> np.ndarray:
        """float32 [C, S], NaN where nothing is to compare. user: dense row; item: versions [C]."""
        out = np.empty((len(self._order), len(item)), np.float32)
        row = 0
        for place, text in enumerate(self._texts):
            wide = len(SIMILARITIES) + text.told.shape[1]
            _fill(text, user, text.rows.take(item), self._weights(place, user), out[row : row + wide])
            row += wide
        return out.take(self._order, axis=0).T if len(self._texts) > 1 else out.T

    def _weights_of(self, place: int, user: int) -> torch.Tensor:
        """What each item of the user adds to the three sums over it, [3, H]: expectation, vote, and all."""
        text = self._texts[place]
        first, end = text.start[user], text.start[user + 1] - text.told.shape[1]
        opinion, liked = text.opinion[first:end], text.liked[first:end]
        weights = np.ones((3, len(opinion)), np.float32)
        weights[0] = np.nan if np.isnan(opinion).all() else 0
        rated = np.flatnonzero(~np.isnan(opinion))
        if len(rated):
            mine_HE = torch.from_numpy(text.vectors[text.others[first:end][rated]])
            factor_HH = torch.linalg.cholesky(covariance(mine_HE))
            solved = torch.cholesky_solve(torch.from_numpy(opinion[rated])[:, None], factor_HH)
            weights[0, rated] = solved[:, 0].numpy()
        weights[1] = liked - liked.mean() if len(liked) else 0
        return torch.from_numpy(weights)


def _laid_out(tables: Tables, rows: np.ndarray, text: TextSet, users: Sequence[TextSet]) -> _ItemText:
    """rows: of the text, by item version; users: the user texts of its encoder."""
    start, acted, liked = tables.start.numpy(), tables.item.numpy()[:-1], tables.liked.numpy()[:-1]
    size = len(start) - 1
    user, many = np.repeat(np.arange(size), np.diff(start)), np.diff(start)
    begins = start[:-1] + first_seen(many)
    places = np.flatnonzero((np.arange(len(acted)) >= begins[user]) & (rows[acted] > 0))
    user = user[places]
    offsets = np.cumsum([0, len(text.unit), *(len(one.unit) for one in users)])[1:-1]
    of_users = [one.rows + offset for one, offset in zip(users, offsets, strict=True)]
    n = len(users)
    owner = np.concatenate([user, np.tile(np.arange(size), n)])
    order = np.argsort(owner, kind="stable")
    nothing = np.full(n * size, np.nan, np.float32)
    return _ItemText(
        np.ascontiguousarray(rows),
        bool(rows[1:].all()),
        np.concatenate([text.unit, *(one.unit for one in users)]),
        np.concatenate([rows[acted[places]], *of_users])[order].astype(np.int64),
        np.concatenate([tables.opinion.numpy()[places], nothing])[order],
        np.concatenate([liked[places], np.zeros(n * size, bool)])[order],
        np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=size))]),
        np.stack([one.rows > 0 for one in users], axis=1) if users else np.zeros((size, 0), bool),
    )


def _fill(text: _ItemText, user: int, targets: np.ndarray, weights_3H: torch.Tensor, out: np.ndarray) -> None:
    """The similarities of one item text [2 + user sets, C]; targets: rows [C]."""
    first, end = text.start[user : user + 2].tolist()
    told, others = text.told[user], text.others[first:end]
    n = weights_3H.shape[1]
    # torch keeps to the caller's number of threads
    theirs, mine = (torch.from_numpy(text.vectors.take(rows, axis=0)) for rows in (others, targets))
    cosine_HC = theirs @ mine.T
    out[len(SIMILARITIES) :] = cosine_HC[n:]
    if not told.all():
        out[len(SIMILARITIES) :][~told] = np.nan
    if n:
        expected, pull, total = (weights_3H @ kernel(cosine_HC[:n])).numpy()
        out[0] = expected
        np.divide(pull, total + PRIOR, out=out[1])
    else:
        out[: len(SIMILARITIES)] = np.nan
    if not text.complete:
        out[:, targets == 0] = np.nan
