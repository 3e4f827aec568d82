"""SQL over what is published, and readers that are never disturbed."""

import threading
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pytest

from storage import files
from storage.catalog import build_catalog, path_of, query
from storage.errors import StoreError
from storage.features import publish_features
from storage.interactions import Dataset
from storage.schema import EARLIEST, QUARANTINE, REJECTED
from tests.storage.test_features import vectors

Rows = Callable[..., pl.DataFrame]
VIEWS = {
    "interactions", "users", "items", "quarantine", "user_preference", "item_knowledge", "feature_history",
    "rejected", "nights", "runs", "recommendations",
}  # fmt: skip


def publish_data(root: Path, dataset: Dataset) -> None:
    tables = {"interactions": dataset.interactions, "users": dataset.users, "items": dataset.items}
    tables["quarantine"] = pl.DataFrame(schema=QUARANTINE)
    writers = {f"{name}.parquet": frame.write_parquet for name, frame in tables.items()}
    files.publish(root / "dataset", writers, content_hash="d", meta={"clock": dataset.clock})


def publish_items(root: Path, rows: pl.DataFrame, n: int) -> None:
    publish_features(
        root,
        "item_knowledge",
        entity="item",
        rows=rows,
        rejected=pl.DataFrame(schema=REJECTED),
        vectors=vectors(n),
        encoder='it\'s "e"',
        lineage={"prompt": "o'clock"},
    )


def test_every_view_answers_before_the_first_night(tmp_path: Path) -> None:
    build_catalog(tmp_path, nights=[], runs=[])

    assert set(query(tmp_path, "SHOW TABLES")["name"]) == VIEWS
    for view in VIEWS:
        assert len(query(tmp_path, f"FROM {view}")) == 0


def test_views_show_what_is_published(tmp_path: Path, small_dataset: Dataset, feature_rows: Rows) -> None:
    publish_data(tmp_path, small_dataset)
    publish_items(tmp_path, feature_rows([(f"i{i}", EARLIEST, 9, 0) for i in range(12)]), 12)
    publish_items(tmp_path, feature_rows([(f"i{i}", EARLIEST, 9, 0) for i in range(11)]), 11)
    build_catalog(tmp_path, nights=[{"logical_date": "2026-01-02", "prompts": 3}], runs=[])

    assert query(tmp_path, "SELECT count(*) AS n FROM interactions")["n"].to_list() == [400]
    assert query(tmp_path, "SELECT count(*) AS n FROM item_knowledge")["n"].to_list() == [11]
    assert query(
        tmp_path, "SELECT version, count(*) FROM feature_history GROUP BY version ORDER BY version"
    ).rows() == [(1, 12), (2, 11)]
    assert query(tmp_path, "SELECT DISTINCT as_of FROM item_knowledge")["as_of"].to_list() == [None]
    assert query(tmp_path, "SELECT prompts FROM nights")["prompts"].to_list() == [3]
    near = query(tmp_path, "FROM nearest_items('i3', 4)")
    matrix = vectors(11)["vector"].to_numpy()
    expected = sorted(((float(matrix[i] @ matrix[3]), f"i{i}") for i in range(11) if i != 3), reverse=True)[:4]
    assert [item for _, item in expected] == near["item_id"].to_list()
    assert [s for s, _ in expected] == pytest.approx(near["similarity"].to_list(), abs=1e-6)


def test_an_open_reader_keeps_its_versions_and_blocks_nobody(
    tmp_path: Path, small_dataset: Dataset, feature_rows: Rows
) -> None:
    publish_data(tmp_path, small_dataset)
    counts = range(3, 12)
    publish_items(tmp_path, feature_rows([(f"i{i}", EARLIEST, 9, 0) for i in range(2)]), 2)
    build_catalog(tmp_path, nights=[], runs=[])
    analyst = duckdb.connect(str(path_of(tmp_path)), read_only=True)
    seen, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.append(
                query(tmp_path, "SELECT count(*) AS n, count(DISTINCT text_key) AS t FROM item_knowledge").row(0)
            )

    reader = threading.Thread(target=read)
    reader.start()
    for n in counts:
        publish_items(tmp_path, feature_rows([(f"i{i}", EARLIEST, 9, 0) for i in range(n)]), n)
        build_catalog(tmp_path, nights=[], runs=[])
    stop.set()
    reader.join()

    assert analyst.execute("SELECT count(*) FROM item_knowledge").fetchone() == (2,)
    analyst.close()
    assert {(n, n) for n in (2, *counts)} >= set(seen)
    assert len(seen) > 0


def test_a_bad_statement_and_a_missing_catalog_are_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist yet"):
        query(tmp_path, "SELECT 1")
    build_catalog(tmp_path, nights=[], runs=[])
    with pytest.raises(StoreError, match="SQL failed"):
        query(tmp_path, "SELECT nothing FROM nowhere")
    with pytest.raises(StoreError, match=r"read-only|read only"):
        query(tmp_path, "CREATE TABLE t (a INTEGER)")
