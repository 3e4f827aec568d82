"""How near is an item, in text space, to what its user liked and disliked before? A few numbers beside the vectors.

A linear projection of a text vector has to learn from clicks what is alike; the encoder knows already.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from ctr_models.tables import Tables
from ctr_models.text import TextSet, TextStatistics

SIMILARITIES = ("mean_liked", "max_liked", "mean_disliked", "max_disliked", "vote_near", "vote_wide")
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
    out = np.full((len(user), len(similarity_names([text.statistics for text in texts]))), np.nan, np.float32)
    if not out.size:
        return out
    order = np.argsort(user, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(user[order])) + 1)
    start, liked, acted = tables.start.numpy(), tables.liked.numpy(), tables.item.numpy()
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
                np.stack([np.maximum(until - window, 0), until], axis=1) - (past.start - first),
            )
        column += len(SIMILARITIES)
    for one, other in pairs(of_users, of_items):
        theirs, its = user_text[:, of_users.index(one)], rows[item, of_items.index(other)]
        both = np.flatnonzero((theirs > 0) & (its > 0))
        for part in np.array_split(both, len(both) // 65536 + 1):  # vectors are never spread over all rows at once
            out[part, column] = np.einsum("nd,nd->n", one.unit[theirs[part]], other.unit[its[part]])
        column += 1
    return out


def similarities(
    text: TextSet, targets: np.ndarray, history: np.ndarray, liked: np.ndarray, windows: np.ndarray
) -> np.ndarray:
    """Each target beside one user's history; float32 [T, 6], columns `SIMILARITIES`, NaN where nothing is to compare.

    targets: int [T] and history: int [H], rows of the text's vectors, 0 where there is none; liked: bool [H]; windows:
    int [T, 2], the part [from, to) of the history that each target may see. Mean and greatest cosine to liked and to
    disliked items, and two votes sum_h K(cos) (liked_h - mean liked) / (sum_h K(cos) + prior) with K(c) =
    exp((c - 1) / width), the kernel regression of Nadaraya and Watson (1964).
    """
    out = np.full((len(targets), len(SIMILARITIES)), np.nan, np.float32)
    for start in range(0, len(targets), 1024):
        block = start + np.flatnonzero(targets[start : start + 1024])
        low, high = int(windows[block, 0].min(initial=len(history))), int(windows[block, 1].max(initial=0))
        places = low + np.flatnonzero(history[low:high])
        if not len(places):
            continue
        first, last = windows[block, :1], windows[block, 1:]
        whole = bool((first == low).all() and (last == high).all())  # one user's candidates: no mask is needed
        seen = None if whole else ((places >= first) & (places < last)).astype(np.float32)
        cosine = text.unit[targets[block]] @ text.unit[history[places]].T
        likes = liked[places]
        for column, part in ((0, likes), (2, ~likes)):
            if part.any():
                out[block, column : column + 2] = _mean_and_max(
                    cosine[:, part], None if seen is None else seen[:, part]
                )
        out[block, 4:] = _votes(cosine, likes.astype(np.float32), seen)
    return out


def _mean_and_max(cosine: np.ndarray, seen: np.ndarray | None) -> np.ndarray:
    """Mean and maximum of each row [T, 2] where `seen` is 1 (everywhere if None); NaN where nothing is."""
    if seen is None:
        return np.stack([cosine.mean(axis=1), cosine.max(axis=1)], axis=1)
    count = seen.sum(axis=1)
    mean = np.einsum("th,th->t", cosine, seen) / np.maximum(count, 1)
    best = np.where(seen > 0, cosine, -2).max(axis=1)
    return np.where(count[:, None] > 0, np.stack([mean, best], axis=1), np.nan)


def _votes(cosine: np.ndarray, likes: np.ndarray, seen: np.ndarray | None) -> np.ndarray:
    """The near and the wide vote of each row, [T, 2]; NaN where nothing is seen."""
    weight = np.exp((cosine - 1) * np.float32(1 / VOTES[1]))
    if seen is None:
        rate = np.full(len(cosine), likes.mean(), np.float32)
    else:
        weight *= seen
        count = seen.sum(axis=1)
        rate = np.where(count > 0, seen @ likes / np.maximum(count, 1), np.nan)
    near = np.square(np.square(weight))  # the widths differ by a factor of 4, so one exponential serves both
    votes = [(w @ likes - rate * w.sum(axis=1)) / (w.sum(axis=1) + PRIOR) for w in (near, weight)]
    return np.stack(votes, axis=1)


def similarity_names(sets: Sequence[TextStatistics]) -> list[str]:
    """Columns of `compare`: for each item set, then for each pair of a user and an item set of one encoder."""
    items = [s for s in sets if s.entity == "item"]
    names = [f"{s.name}.{column}" for s in items for column in SIMILARITIES]
    return names + [f"{user.name}.{item.name}" for user, item in pairs([s for s in sets if s.entity == "user"], items)]


Text = TypeVar("Text", TextSet, TextStatistics)


def pairs(users: Sequence[Text], items: Sequence[Text]) -> list[tuple[Text, Text]]:
    """The user and item sets whose vectors may be compared: those of one encoder."""
    return [(user, item) for user in users for item in items if user.encoder == item.encoder]
