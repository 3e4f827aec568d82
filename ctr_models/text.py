"""How do stored text vectors reach a model? Centred matrices, a row for each entity and time, and similarities.

Row 0 of every matrix is 'absent'. Vectors are centred on the mean over training items (or training rows, for users):
sentence embeddings share a large common part that tells nothing, and uncentred cosines are all alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import polars as pl
import torch
from torch import Tensor

from storage.errors import ConfigError, StoreError
from storage.features import FeatureSet
from storage.snapshot import Snapshot, join_as_of

SIMILARITIES = ("mean_liked", "max_liked", "mean_disliked", "max_disliked", "vote_near", "vote_wide")
VOTES = (0.05, 0.2)
"""Widths of the two cosine kernels, one four times the other: how far a vote of the history reaches."""
PRIOR = 0.02
"""Weight of 'no opinion' in a vote, as a share of the kernel's height."""


@dataclass(frozen=True)
class TextStatistics:
    """What is learned of one feature set on the training rows; saved with the run.

    mean: float32 [dim], over the distinct texts of training rows.
    """

    name: str
    entity: str
    encoder: str
    mean: np.ndarray


@dataclass(frozen=True)
class TextSet:
    """One feature set as a model sees it.

    vectors: float32 [1 + texts, dim], centred, row 0 (absent) zero; unit: the same, each of length 1. rows: int32
    [1 + entities], the newest vector row of each user or item in the dataset's order, row 0 nobody's; history: int32
    [interactions] for item sets, the row that was known when the user acted, else empty.
    """

    statistics: TextStatistics
    vectors: Tensor
    unit: np.ndarray
    rows: np.ndarray
    history: np.ndarray

    @property
    def name(self) -> str:
        """Name of the feature set."""
        return self.statistics.name

    @property
    def encoder(self) -> str:
        """What made the vectors."""
        return self.statistics.encoder

    @property
    def entity(self) -> str:
        """Whom the texts describe: "user" or "item"."""
        return self.statistics.entity


def fit_statistics(feature: FeatureSet, train: pl.DataFrame) -> TextStatistics:
    """The mean vector over the distinct texts that training rows find. Raises ConfigError where they find none."""
    rows = train[f"{feature.name}_row"].unique()
    rows = rows.filter(rows >= 0).to_numpy()
    if not len(rows):
        raise ConfigError(f"no training row has a vector of feature set {feature.name!r}; leave it out")
    mean = feature.vectors[rows].mean(axis=0, dtype=np.float64).astype(np.float32)
    return TextStatistics(feature.name, feature.entity, feature.encoder, mean)


def text_set(snapshot: Snapshot, statistics: TextStatistics) -> TextSet:
    """Centre the vectors of a feature set and find the row of every entity and every past interaction.

    Raises StoreError where the set is missing or another encoder made it.
    """
    feature = snapshot.features.get(statistics.name)
    if feature is None:
        raise StoreError(f"the model needs feature set {statistics.name!r}, which the snapshot does not hold")
    if feature.encoder != statistics.encoder:
        raise StoreError(
            f"feature set {feature.name!r} was encoded by {feature.encoder}, but the model was trained on vectors of "
            f"{statistics.encoder}; train again, or encode with the same encoder"
        )
    vectors = np.zeros((len(feature.vectors) + 1, feature.vectors.shape[1]), np.float32)
    np.subtract(feature.vectors, statistics.mean, out=vectors[1:])
    current = feature.current().select(pl.col("entity_id"), pl.col("vector_row") + 1)
    table = snapshot.dataset.users if feature.entity == "user" else snapshot.dataset.items
    rows = table.select(entity_id=f"{feature.entity}_id").join(
        current, on="entity_id", how="left", maintain_order="left"
    )
    return TextSet(
        statistics,
        torch.from_numpy(vectors),
        unit(vectors),
        np.concatenate([[0], rows["vector_row"].fill_null(0).to_numpy()]).astype(np.int32),
        _history_rows(snapshot, feature) if feature.entity == "item" else np.zeros(0, np.int32),
    )


def _history_rows(snapshot: Snapshot, feature: FeatureSet) -> np.ndarray:
    """For each interaction the vector row known strictly before it: a history never holds a text from its future."""
    rules = snapshot.lineage.get("labels")
    known_at = bool(rules["known_at"]) if isinstance(rules, Mapping) else False
    rows = snapshot.dataset.interactions.select("user_id", "item_id", "timestamp", place=pl.int_range(pl.len()))
    joined = join_as_of(rows.sort("timestamp"), feature, known_at=known_at).sort("place")
    return joined[f"{feature.name}_row"].to_numpy() + 1


def similarities(targets: np.ndarray, history: np.ndarray, liked: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """How near is each target, in text space, to what its user liked and disliked before? float32 [targets, 6].

    targets: [T, dim] and history: [H, dim], centred and of unit length, or zero where there is no text; liked: bool
    [H]; windows: int [T, 2], the part [from, to) of the history that each target may see. Columns are `SIMILARITIES`:
    mean and greatest cosine to liked and to disliked history, and two votes sum_h K(cos) (liked_h - mean liked) /
    (sum_h K(cos) + prior) with K(c) = exp((c - 1) / width) (Nadaraya 1964, Watson 1964). NaN where there is nothing
    to compare.
    """
    out = np.full((len(targets), len(SIMILARITIES)), np.nan, np.float32)
    told = np.any(targets != 0, axis=1)
    present = np.any(history != 0, axis=1)
    for start in range(0, len(targets), 1024):
        block = start + np.flatnonzero(told[start : start + 1024])
        low, high = int(windows[block, 0].min(initial=len(history))), int(windows[block, 1].max(initial=0))
        places = low + np.flatnonzero(present[low:high])
        if not len(places):
            continue
        first, last = windows[block, :1], windows[block, 1:]
        whole = bool((first == low).all() and (last == high).all())  # one user's candidates: no mask is needed
        seen = None if whole else ((places >= first) & (places < last)).astype(np.float32)
        cosine = targets[block] @ history[places].T
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


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows divided by their length; zero rows stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def similarity_names(sets: Sequence[TextStatistics]) -> list[str]:
    """Columns of the similarity matrix of samples: per item set, then per pair of user and item set of one encoder."""
    items = [s for s in sets if s.entity == "item"]
    names = [f"{s.name}.{column}" for s in items for column in SIMILARITIES]
    return names + [f"{user.name}.{item.name}" for user, item in pairs([s for s in sets if s.entity == "user"], items)]


Text = TypeVar("Text", TextSet, TextStatistics)


def pairs(users: Sequence[Text], items: Sequence[Text]) -> list[tuple[Text, Text]]:
    """The user and item sets whose vectors may be compared: those of one encoder."""
    return [(user, item) for user in users for item in items if user.encoder == item.encoder]
