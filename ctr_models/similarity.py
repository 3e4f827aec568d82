"""What would a user think of an item, judging by its text and by what they thought of others? Two numbers.

A linear projection of a text vector has to learn from clicks what is alike; the encoder knows already.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ctr_models.tables import Tables
from ctr_models.text import TextSet, TextStatistics

SIMILARITIES = ("expected", "vote")
WIDTH = 0.2
"""Of the kernel: texts whose cosine is this much smaller are e times less alike."""
NOISE, OFFSET = 1.0, 0.1
"""Variances of an opinion that no text tells: of one alone, and of all that a user has. A text's own is 1."""
PRIOR = 0.02
"""Weight of 'no opinion' in a vote, as a share of the kernel's height."""
HOP = 200
"""What a row is compared to begins at a multiple of this: at the newest 200 to 399 earlier interactions."""


def compare(
    tables: Tables,
    texts: Sequence[TextSet],
    user: np.ndarray,
    item: np.ndarray,
    n_before: np.ndarray,
    user_text: np.ndarray,
) -> np.ndarray:
    """Text-space similarity of each row's item to earlier items of its user; float32 [N, S].

    Columns are those of `similarity_names`, NaN where a text is absent. Rows of one user are compared at once.
    """
    out = np.full((len(item), len(similarity_names([text.statistics for text in texts]))), np.nan, np.float32)
    if not out.size:
        return out
    first = first_seen(n_before)
    order = np.lexsort((first, user))
    changes = (np.diff(user[order]) != 0) | (np.diff(first[order]) != 0)
    groups = np.split(order, np.flatnonzero(changes) + 1)
    start, acted = tables.start.numpy(), tables.item.numpy()
    liked, opinion = tables.liked.numpy(), tables.opinion.numpy()
    of_items = [text for text in texts if text.entity == "item"]
    of_users = [text for text in texts if text.entity == "user"]
    rows = tables.items.text.numpy()
    column = 0
    for place, text in enumerate(of_items):
        wide = slice(column, column + len(SIMILARITIES))
        for mine in groups:
            begin = start[user[mine[0]]] + first[mine[0]]
            seen = n_before[mine] - first[mine[0]]
            past = slice(begin, begin + int(seen.max()))
            targets, history = rows[item[mine], place], rows[acted[past], place]
            out[mine, wide] = similarities(text, targets, history, liked[past], opinion[past], seen)
        column += len(SIMILARITIES)
    for one, other in pairs(of_users, of_items):
        its = rows[item, of_items.index(other)]
        theirs = user_text[:, of_users.index(one)]
        both = np.flatnonzero((theirs > 0) & (its > 0))
        for part in np.array_split(both, len(both) // 65536 + 1):  # vectors are never spread over all rows at once
            out[part, column] = np.einsum("nd,nd->n", one.unit[theirs[part]], other.unit[its[part]])
        column += 1
    return out


def first_seen(n_before: np.ndarray) -> np.ndarray:
    """The first of a user's interactions that a row with `n_before` earlier ones is compared to.

    It moves in hops, so that all rows between two hops see the beginning of one and the same history.
    """
    return np.maximum(0, (n_before // HOP - 1) * HOP)


def similarities(
    text: TextSet, targets: np.ndarray, history: np.ndarray, liked: np.ndarray, opinion: np.ndarray, seen: np.ndarray
) -> np.ndarray:
    """Each target beside one user's history; float32 [T, 2], columns `SIMILARITIES`, NaN where nothing is to compare.

    targets: int [T] and history: int [H], rows of the text's vectors, 0 where there is none; liked: bool [H]; opinion:
    float32 [H], see `Usual`, NaN for what was not rated; seen: int [T], how many of the history, oldest first, each
    target may see. See `_expected` and `_vote`.
    """
    out = np.full((len(targets), len(SIMILARITIES)), np.nan, np.float32)
    asked, there = np.flatnonzero(targets), np.flatnonzero(history)
    if not (len(asked) and len(there)):
        return out
    mine_HE, theirs_TE = (torch.from_numpy(text.unit[rows]) for rows in (history[there], targets[asked]))
    near_HT = kernel(mine_HE @ theirs_TE.T)
    many = np.searchsorted(there, seen[asked])
    out[asked, 1] = _vote(near_HT, torch.from_numpy(liked[there].astype(np.float32)), many)
    rated = ~np.isnan(opinion[there])
    if not rated.all():
        there, mine_HE, near_HT = there[rated], mine_HE[rated], near_HT[rated]
        many = np.searchsorted(there, seen[asked])
    if len(there):
        out[asked, 0] = _expected(mine_HE, near_HT, torch.from_numpy(opinion[there]), many)
    return out


def _expected(mine_HE: Tensor, near_HT: Tensor, opinion_H: Tensor, many_T: np.ndarray) -> np.ndarray:
    """What a Gaussian process over texts expects of each target after the first `many_T` opinions; NaN after none.

    k^T (K + offset + noise)^-1 y, the mean of the posterior (Rasmussen and Williams 2006, "Gaussian Processes for
    Machine Learning", equation 2.25, algorithm 2.1), without the user's own offset, which no text tells. With L L^T the
    matrix it is the product of L^-1 k and L^-1 y; as L is triangular, their first h entries are those of a history
    that ends after h, so that one factor serves every row of a user, each from its own past alone.
    """
    covariance_HH = kernel(mine_HE @ mine_HE.T) + OFFSET
    covariance_HH.diagonal().add_(NOISE)
    factor_HH = torch.linalg.cholesky(covariance_HH)
    both = torch.linalg.solve_triangular(factor_HH, torch.cat([near_HT, opinion_H[:, None]], dim=1), upper=False)
    told_HT = both[:, :-1].mul_(both[:, -1:]).cumsum_(dim=0)
    expected_T = told_HT[torch.from_numpy(many_T - 1), torch.arange(len(many_T))].numpy()
    return np.where(many_T > 0, expected_T, np.nan)


def _vote(near_HT: Tensor, liked_H: Tensor, many_T: np.ndarray) -> np.ndarray:
    """sum_h k_h (liked_h - share of liked) / (sum_h k_h + prior) over the first `many_T`; NaN over none.

    The kernel regression of Nadaraya and Watson (1964).
    """
    many = torch.from_numpy(many_T)
    near_HT = near_HT * (torch.arange(len(liked_H))[:, None] < many)
    share_T = liked_H.cumsum(dim=0)[many - 1] / many
    liked_T, total_T = torch.stack([liked_H, torch.ones_like(liked_H)]) @ near_HT
    return np.where(many_T > 0, (liked_T - share_T * total_T) / (total_T + PRIOR), np.nan)


def kernel(cosine: Tensor) -> Tensor:
    """How much two texts have in common: exp((cosine - 1) / width), in place."""
    return cosine.sub_(1).mul_(1 / WIDTH).exp_()


def similarity_names(sets: Sequence[TextStatistics]) -> list[str]:
    """Columns of `compare`: for each item set, then for each pair of a user and an item set of one encoder."""
    items = [s for s in sets if s.entity == "item"]
    names = [f"{s.name}.{column}" for s in items for column in SIMILARITIES]
    return names + [f"{user.name}.{item.name}" for user, item in pairs([s for s in sets if s.entity == "user"], items)]


Text = TypeVar("Text", TextSet, TextStatistics)


def pairs(users: Sequence[Text], items: Sequence[Text]) -> list[tuple[Text, Text]]:
    """The user and item sets whose vectors may be compared: those of one encoder."""
    return [(user, item) for user in users for item in items if user.encoder == item.encoder]
