"""What did the LLM say about whom, when, and as which vector? Immutable versions of one feature set.

A version holds `features.parquet` (a row for each entity and each `as_of`), `vectors.parquet` (each distinct text's
vector once), `rejected.parquet`, and a manifest with the encoder's identity and the lineage. Vectors are never
repeated per row: `vector_row` points into the matrix.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from storage import files
from storage.errors import StoreError
from storage.schema import FEATURES, REJECTED, check, content_hash

Entity = Literal["user", "item"]


@dataclass(frozen=True)
class FeatureSet:
    """One version of a feature set, read whole.

    rows: columns of `schema.FEATURES` plus `vector_row` (int32, row of `vectors`), sorted by (entity_id, as_of,
    n_history). vectors: float32, shape [distinct texts, dim], unit length. encoder: identity of what made them.
    """

    name: str
    entity: Entity
    version: int
    rows: pl.DataFrame
    vectors: np.ndarray
    encoder: str
    manifest: Mapping

    def current(self) -> pl.DataFrame:
        """The newest row of each entity."""
        return self.rows.unique("entity_id", keep="last", maintain_order=True)


def folder(root: Path, name: str) -> Path:
    """Where the versions of feature set `name` are. Raises ConfigError where it is no name."""
    return files.named(root / "features", name)


def publish_features(
    root: Path,
    name: str,
    *,
    entity: Entity,
    rows: pl.DataFrame,
    rejected: pl.DataFrame,
    vectors: pl.DataFrame,
    encoder: str,
    lineage: Mapping[str, object],
) -> files.Version:
    """Publish a version, or return the latest one where nothing but clocks would differ.

    rows: `schema.FEATURES`; rejected: `schema.REJECTED`; vectors: `text_hash`, `vector` (Array of float32), one row
    for each distinct text of `rows`. Raises StoreError where a vector is missing, not finite, or not of unit length.
    """
    rows = check(rows, FEATURES, table=name).sort("entity_id", "as_of", "n_history")
    rejected = check(rejected, REJECTED, table="rejected").sort("entity_id", "as_of", "text_key")
    vectors = vectors.select("text_hash", "vector").join(rows.select("text_hash").unique(), on="text_hash", how="semi")
    vectors = vectors.unique("text_hash").sort("text_hash")
    if len(vectors) != rows["text_hash"].n_unique():
        raise StoreError(f"feature set {name!r} has {rows['text_hash'].n_unique()} texts but {len(vectors)} vectors")
    matrix = _matrix(vectors)
    lengths = np.linalg.norm(matrix, axis=1)
    bad = np.flatnonzero(~(np.abs(lengths - 1) < 1e-3))
    if len(bad):
        raise StoreError(f"vector of text {vectors['text_hash'][int(bad[0])]} has length {lengths[bad[0]]}, not 1")
    digest = content_hash(rows.drop("created_at"), rejected, extra=[name, entity, encoder])
    return files.publish(
        folder(root, name),
        {
            "features.parquet": rows.write_parquet,
            "vectors.parquet": vectors.write_parquet,
            "rejected.parquet": rejected.write_parquet,
        },
        content_hash=digest,
        meta={
            "name": name,
            "entity": entity,
            "encoder": encoder,
            "dim": matrix.shape[1] if matrix.ndim == 2 else 0,
            "rows": len(rows),
            "entities": rows["entity_id"].n_unique(),
            "distinct_texts": len(vectors),
            "rejected": len(rejected),
            "lineage": dict(lineage),
        },
    )


def load_features(root: Path, name: str, version: int | None = None) -> FeatureSet:
    """Read a version (the latest by default), every byte checked. Raises StoreError where there is none, or damage."""
    found = files.version(folder(root, name), version)
    rows = files.read_table(found, "features.parquet")
    vectors = files.read_table(found, "vectors.parquet")
    places = vectors.select("text_hash", vector_row=pl.int_range(pl.len(), dtype=pl.Int32))
    rows = rows.join(places, on="text_hash", how="left", maintain_order="left")
    meta = found.meta
    return FeatureSet(name, meta["entity"], found.number, rows, _matrix(vectors), meta["encoder"], found.manifest)


def feature_sets(root: Path) -> list[str]:
    """Names of the feature sets that have at least one version."""
    parent = root / "features"
    return sorted(p.name for p in parent.iterdir() if files.latest(p) is not None) if parent.is_dir() else []


def _matrix(vectors: pl.DataFrame) -> np.ndarray:
    matrix = vectors["vector"].to_numpy()
    return np.ascontiguousarray(matrix, dtype=np.float32)
