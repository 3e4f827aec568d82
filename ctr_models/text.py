"""How do stored text vectors reach a model? Centred, in few dimensions, and with a row for each entity and time.

Row 0 of every matrix is 'absent'. Vectors are centred on the mean over the texts of training rows: sentence embeddings
share a large common part that tells nothing, and uncentred cosines are all alike. They are then turned onto their
principal components, of which the first are kept, and by default whitened, each to unit variance. What these texts
differ in is all they are asked for, and a fact told in a rare word counts as much as one told in a loud one. Cosines
have no weights to learn what matters: for them directions are only half whitened, to the root of their deviation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from storage.errors import ConfigError, StoreError
from storage.features import FeatureSet
from storage.snapshot import Snapshot, join_as_of

NO_VARIANCE = 1e-6
"""Directions with less than this share of the greatest variance hold rounding errors only."""


@dataclass(frozen=True)
class TextStatistics:
    """What is learned of one feature set on the training rows; saved with the run.

    mean: float32 [dim], over the distinct texts of training rows; components: float32 [dim, kept], principal directions
    over the standard deviation along them (over one deviation where nothing is whitened), the same for all sets of one
    encoder, so that texts of users and items can be compared.
    """

    name: str
    entity: str
    encoder: str
    mean: np.ndarray
    components: np.ndarray

    @property
    def kept(self) -> int:
        """How many dimensions a model sees."""
        return self.components.shape[1]

    @property
    def deviations(self) -> np.ndarray:
        """What whitening has divided by: the deviation along each direction, float32 [kept]; all alike without."""
        return 1 / np.linalg.norm(self.components, axis=0)


@dataclass(frozen=True)
class TextSet:
    """One feature set as a model sees it.

    vectors: float32 [1 + texts, kept], whitened, row 0 (absent) zero; unit: half whitened, each of length 1, to compare
    texts by. rows: int32 [1 + entities], the newest vector row of each user or item in the dataset's order, row 0
    nobody's; history: int32 [interactions] for item sets, the row that was known when the user acted, else empty.
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


def fit_statistics(
    features: Sequence[FeatureSet], train: pl.DataFrame, *, dimensions: int, whiten: bool = True
) -> tuple[TextStatistics, ...]:
    """Mean and principal components of the distinct texts that training rows find, at most `dimensions` wide.

    whiten: PCA whitening (Kessy, Lewin, Strimmer 2018, "Optimal Whitening and Decorrelation", section 2); else the
    components keep their shares of the variance, whose mean is made 1. Sets of one encoder share both: those of the
    mean of their covariances. Raises ConfigError where training rows find no text.
    """
    known: list[np.ndarray] = []
    for feature in features:
        rows = train[f"{feature.name}_row"].unique()
        rows = rows.filter(rows >= 0).sort().to_numpy()
        if not len(rows):
            raise ConfigError(f"no training row has a vector of feature set {feature.name!r}; leave it out")
        known.append(feature.vectors[rows].astype(np.float64))
    means = [vectors.mean(axis=0) for vectors in known]
    spread: dict[str, list[np.ndarray]] = {}
    for feature, vectors in zip(features, known, strict=True):
        spread.setdefault(feature.encoder, []).append(np.cov(vectors, rowvar=False, bias=True))
    components = {
        encoder: _components(np.mean(each, axis=0), dimensions, whiten=whiten) for encoder, each in spread.items()
    }
    return tuple(
        TextStatistics(
            feature.name, feature.entity, feature.encoder, mean.astype(np.float32), components[feature.encoder]
        )
        for feature, mean in zip(features, means, strict=True)
    )


def _components(covariance: np.ndarray, dimensions: int, *, whiten: bool) -> np.ndarray:
    """Float32 [dim, kept]: the directions of greatest variance, each over its own or all over one deviation."""
    variance, axes = np.linalg.eigh(covariance)
    kept = np.argsort(-variance)[:dimensions]
    kept = kept[variance[kept] > variance.max() * NO_VARIANCE]
    scale = variance[kept] if whiten else variance[kept].mean()
    return np.ascontiguousarray(axes[:, kept] / np.sqrt(scale), np.float32)


def text_set(snapshot: Snapshot, statistics: TextStatistics) -> TextSet:
    """Centre and whiten the vectors of a feature set, and find the row of every entity and every past interaction.

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
    vectors = np.zeros((len(feature.vectors) + 1, statistics.kept), np.float32)
    np.matmul(feature.vectors - statistics.mean, statistics.components, out=vectors[1:])
    current = feature.current().select(pl.col("entity_id"), pl.col("vector_row") + 1)
    table = snapshot.dataset.users if feature.entity == "user" else snapshot.dataset.items
    ids = table.select(entity_id=f"{feature.entity}_id")
    rows = ids.join(current, on="entity_id", how="left", maintain_order="left")
    return TextSet(
        statistics,
        torch.from_numpy(vectors),
        unit(vectors * np.sqrt(statistics.deviations)),
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


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows divided by their length; zero rows stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
