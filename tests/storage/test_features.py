"""Feature sets: immutable versions, vectors once, nothing mixed or missing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from storage.errors import StoreError
from storage.features import feature_sets, load_features, publish_features
from storage.files import Version
from storage.schema import REJECTED

Rows = Callable[..., pl.DataFrame]


def vectors(n: int, dim: int = 4) -> pl.DataFrame:
    matrix = np.random.default_rng(0).normal(size=(n, dim)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    hashes = [f"h{i:06d}" for i in range(n)]
    return pl.DataFrame({"text_hash": hashes, "vector": pl.Series(matrix, dtype=pl.Array(pl.Float32, dim))})


def publish(root: Path, rows: pl.DataFrame, made: pl.DataFrame, encoder: str = "e") -> Version:
    nothing = pl.DataFrame(schema=REJECTED)
    return publish_features(
        root, "taste", entity="user", rows=rows, rejected=nothing, vectors=made, encoder=encoder, lineage={"a": 1}
    )


def test_rows_point_to_their_own_vectors_whatever_the_order_written(tmp_path: Path, feature_rows: Rows) -> None:
    rows = feature_rows([("b", 5, 9, 5), ("a", 7, 9, 10), ("a", 3, 9, 5)])
    made = vectors(5).sample(fraction=1, shuffle=True, seed=1)
    publish(tmp_path, rows.sample(fraction=1, shuffle=True, seed=2), made)
    read = load_features(tmp_path, "taste")

    assert read.vectors.shape == (3, 4)
    assert read.rows.select("entity_id", "as_of").rows() == [("a", 3), ("a", 7), ("b", 5)]
    by_hash = dict(zip(made["text_hash"], made["vector"].to_numpy(), strict=True))
    for row in read.rows.iter_rows(named=True):
        np.testing.assert_array_equal(by_hash[row["text_hash"]], read.vectors[row["vector_row"]])
    assert read.current().select("entity_id", "as_of").rows() == [("a", 7), ("b", 5)]


def test_only_clocks_differing_is_no_new_version(tmp_path: Path, feature_rows: Rows) -> None:
    first = publish(tmp_path, feature_rows([("a", 3, 9, 5)]), vectors(1))

    assert first == publish(tmp_path, feature_rows([("a", 3, 99, 5)]), vectors(1))
    assert publish(tmp_path, feature_rows([("a", 4, 9, 5)]), vectors(1)).number == 2
    assert publish(tmp_path, feature_rows([("a", 4, 9, 5)]), vectors(1), encoder="another").number == 3
    assert load_features(tmp_path, "taste", version=1).rows["as_of"].to_list() == [3]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, 3.0])
def test_vectors_that_are_not_finite_unit_vectors_are_refused(tmp_path: Path, feature_rows: Rows, bad: float) -> None:
    matrix = np.zeros((1, 4), dtype=np.float32)
    matrix[0, 0] = bad
    made = pl.DataFrame({"text_hash": ["h000000"], "vector": pl.Series(matrix, dtype=pl.Array(pl.Float32, 4))})

    with pytest.raises(StoreError, match="has length"):
        publish(tmp_path, feature_rows([("a", 3, 9, 5)]), made)
    assert not (tmp_path / "features").exists()


def test_a_missing_vector_is_refused(tmp_path: Path, feature_rows: Rows) -> None:
    with pytest.raises(StoreError, match="2 texts but 1 vectors"):
        publish(tmp_path, feature_rows([("a", 3, 9, 5), ("b", 3, 9, 5)]), vectors(1))


def test_what_is_published_is_listed_and_counted(tmp_path: Path, feature_rows: Rows) -> None:
    assert feature_sets(tmp_path) == []
    version = publish(tmp_path, feature_rows([("a", 3, 9, 5), ("a", 4, 9, 6)]), vectors(3))
    (tmp_path / "features" / "empty").mkdir()
    assert feature_sets(tmp_path) == ["taste"]
    counts = {name: version.meta[name] for name in ("rows", "entities", "distinct_texts", "rejected", "dim")}
    assert counts == {"rows": 2, "entities": 1, "distinct_texts": 2, "rejected": 0, "dim": 4}
    said = {name: version.meta[name] for name in ("name", "entity", "encoder", "lineage")}
    assert said == {"name": "taste", "entity": "user", "encoder": "e", "lineage": {"a": 1}}
    read = load_features(tmp_path, "taste")
    assert (read.name, read.entity, read.encoder, read.version) == ("taste", "user", "e", 1)
    assert read.vectors.dtype == np.float32


def test_a_name_of_a_text_or_an_encoder_makes_another_version(tmp_path: Path, feature_rows: Rows) -> None:
    rows = feature_rows([("a", 3, 9, 5)])
    first = publish(tmp_path, rows, vectors(1))
    other = publish_features(
        tmp_path,
        "more",
        entity="item",
        rows=rows,
        rejected=pl.DataFrame(schema=REJECTED),
        vectors=vectors(1),
        encoder="e",
        lineage={},
    )
    assert len({first.content_hash, other.content_hash}) == 2
    rejected = pl.DataFrame([("a", 3, "empty", "k", "", "stop")], schema=REJECTED, orient="row")
    again = publish_features(
        tmp_path,
        "taste",
        entity="user",
        rows=rows,
        rejected=rejected,
        vectors=vectors(1),
        encoder="e",
        lineage={"a": 1},
    )
    assert (again.number, again.meta["rejected"]) == (2, 1)
