"""How near is an item, in text space, to what its user liked and disliked before? A few numbers beside the vectors.

A linear projection of a text vector has to learn from clicks what is alike; the encoder knows already.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from ctr_models.tables import Tables
from ctr_models.text import TextSet, TextStatistics

SIMILARITIES = (
    *("mean_liked", "max_liked", "mean_disliked", "max_disliked"),
    *("vote_near", "rating_near", "vote_wide", "rating_wide"),
)
VOTES = (0.05, 0.2)
"""Widths of the two cosine kernels, one four times the other: how far a vote of the history reaches."""
PRIOR = 0.02
"""Weight of 'no opinion' in a vote, as a share of the kernel's height."""


def compare(
    tables: Tables,
    texts: Sequence[TextSet],
    user: np.ndarray,
    item: np.ndarray,
    n_before: np.ndarray,
    user_text: np.ndarray,
    *,
    window: int,
) -> np.ndarray:
    """Text-space similarity of each row's item to the newest `window` earlier items of its user; float32 [N, S].

    Columns are those of `similarity_names`, NaN where a text is absent. Rows of one user are compared at once,
    so the cost is one matrix product a user.
    """
    out = np.full((len(item), len(similarity_names([text.statistics for text in texts]))), np.nan, np.float32)
    if not out.size:
        return out
    order = np.argsort(user, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(user[order])) + 1)
    start, acted = tables.start.numpy(), tables.item.numpy()
    liked, stars = tables.liked.numpy(), tables.stars.numpy()
    of_items = [text for text in texts if text.entity == "item"]
    of_users = [text for text in texts if text.entity == "user"]
    rows = tables.items.text.numpy()
    column = 0
    for place, text in enumerate(of_items):
        wide = slice(column, column + len(SIMILARITIES))
        for mine in groups:
            first = start[user[mine[0]]]
            until = n_before[mine]
            past = slice(first + max(0, int(until.min()) - window), first + int(until.max()))
            out[mine, wide] = similarities(
                text,
                rows[item[mine], place],
                rows[acted[past], place],
                liked[past],
                stars[past],
                np.stack([np.maximum(until - window, 0), until], axis=1) - (past.start - first),
            )
        column += len(SIMILARITIES)
    for one, other in pairs(of_users, of_items):
        its = rows[item, of_items.index(other)]
        theirs = user_text[:, of_users.index(one)]
        both = np.flatnonzero((theirs > 0) & (its > 0))
        for part in np.array_split(both, len(both) // 65536 + 1):  # vectors are never spread over all rows at once
            out[part, column] = np.einsum("nd,nd->n", one.unit[theirs[part]], other.unit[its[part]])
        column += 1
    return out


def similarities(
    text: TextSet, targets: np.ndarray, history: np.ndarray, liked: np.ndarray, stars: np.ndarray, windows: np.ndarray
) -> np.ndarray:
    """Each target beside one user's history; float32 [T, 8], columns `SIMILARITIES`, NaN where nothing is to compare.

    targets: int [T] and history: int [H], rows of the text's vectors, 0 where there is none; liked: bool [H]; stars:
    float [H], the ratings; windows: int [T, 2], the part [from, to) of the history that each target may see. Mean and
    greatest cosine to liked and to disliked items, and of two kernels each a vote and a rating, sum_h K(cos_h)
    (o_h - mean o) / (sum_h K(cos_h) + prior), o being liked_h or stars_h (0 for one not rated), K(c) =
    exp((c - 1) / width): the kernel regression of Nadaraya and Watson (1964).
    """
    out = np.full((len(targets), len(SIMILARITIES)), np.nan, np.float32)
    for start in range(0, len(targets), 1024):
        block = start + np.flatnonzero(targets[start : start + 1024])
        low, high = int(windows[block, 0].min(initial=len(history))), int(windows[block, 1].max(initial=0))
        there, likes = history[low:high] > 0, liked[low:high]
        sides = [np.flatnonzero(there & likes), np.flatnonzero(there & ~likes)]
        places = low + np.concatenate(sides)
        if len(places):
            seen = (places >= windows[block, :1]) & (places < windows[block, 1:])
            cosine = text.unit[targets[block]] @ text.unit[history[places]].T
            out[block] = _seen(cosine, len(sides[0]), stars[places], seen.astype(np.float32))
    return out


def _seen(cosine: np.ndarray, n_liked: int, stars: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """All eight where each target sees the places at which `seen` [T, H] is 1; the first `n_liked` places are liked."""
    out = np.full((len(cosine), len(SIMILARITIES)), np.nan, np.float32)
    for side, part in enumerate((slice(0, n_liked), slice(n_liked, None))):
        counts = seen[:, part].sum(axis=1)
        some = counts > 0
        mean = np.einsum("th,th->t", cosine[:, part], seen[:, part])
        best = np.where(seen[:, part] > 0, cosine[:, part], -2).max(axis=1, initial=-2)
        out[some, 2 * side] = mean[some] / counts[some]
        out[some, 2 * side + 1] = best[some]
    given_H2 = np.stack([np.ones_like(stars), ~np.isnan(stars)], axis=1).astype(np.float32)
    opinion_H2 = np.stack([np.arange(len(stars)) < n_liked, np.nan_to_num(stars)], axis=1).astype(np.float32)
    mean_T2 = (seen @ opinion_H2) / np.maximum(seen @ given_H2, 1)
    wide = _kernel(cosine) * seen
    any_ = seen.any(axis=1)
    for column, kernel in ((4, np.square(np.square(wide))), (6, wide)):
        pull_T2 = kernel @ opinion_H2 - mean_T2 * (kernel @ given_H2)
        out[any_, column : column + 2] = (pull_T2 / (kernel.sum(axis=1, keepdims=True) + np.float32(PRIOR)))[any_]
    return out


def _kernel(cosine: np.ndarray) -> np.ndarray:
    """The wide kernel; its fourth power is the near one, whose width is a quarter, so one exponential serves both."""
    weight = cosine - np.float32(1)
    weight *= np.float32(1 / VOTES[1])
    return np.exp(weight, out=weight)


def similarity_names(sets: Sequence[TextStatistics]) -> list[str]:
    """Columns of `compare`: for each item set, then for each pair of a user and an item set of one encoder."""
    items = [s for s in sets if s.entity == "item"]
    names = [f"{s.name}.{column}" for s in items for column in SIMILARITIES]
    return names + [f"{user.name}.{item.name}" for user, item in pairs([s for s in sets if s.entity == "user"], items)]


Text = TypeVar("Text", TextSet, TextStatistics)


def pairs(users: Sequence[Text], items: Sequence[Text]) -> list[tuple[Text, Text]]:
    """The user and item sets whose vectors may be compared: those of one encoder."""
    return [(user, item) for user in users for item in items if user.encoder == item.encoder]
