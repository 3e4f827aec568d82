"""What does a study find again of what it computed before?"""

from pathlib import Path

import polars as pl
import pytest

from flows.studies.parts import keep, newest, stored
from storage import files
from storage.errors import StoreError


def test_a_part_is_found_by_what_it_was_made_of_whatever_was_made_since(tmp_path: Path) -> None:
    assert stored(tmp_path, "s.a", "eight epochs") is None
    for key in ("eight epochs", "sixteen epochs"):
        keep(tmp_path, "s.a", key, {"scores": pl.DataFrame({"score": [float(len(key))]})}, {"epochs": key})

    found = stored(tmp_path, "s.a", "eight epochs")

    assert found is not None
    assert found.meta == {"epochs": "eight epochs"}
    assert files.read_table(found, "scores.parquet")["score"].to_list() == [12.0]
    last = newest(tmp_path, "s.a")
    assert last is not None
    assert last.meta == {"epochs": "sixteen epochs"}
    assert stored(tmp_path, "s.a", "sixteen epochs") == last
    assert stored(tmp_path, "s.a", "ten epochs") is None
    assert stored(tmp_path, "s.b", "eight epochs") is None


def test_damage_is_told_where_it_was_looked_at(tmp_path: Path) -> None:
    for key in ("eight epochs", "sixteen epochs"):
        keep(tmp_path, "s.a", key, {}, {})
    (tmp_path / "study_parts" / "s.a" / "v000001" / "manifest.json").unlink()

    assert stored(tmp_path, "s.a", "sixteen epochs") is not None
    with pytest.raises(StoreError, match=r"v000001/manifest\.json is missing"):
        stored(tmp_path, "s.a", "eight epochs")
