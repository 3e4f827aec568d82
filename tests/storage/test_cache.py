"""A key is paid for once; parts are whole; damage is found."""

from pathlib import Path

import polars as pl
import pytest

from storage.cache import Cache, parts, verify
from storage.errors import DataError, StoreError

SCHEMA = {"key": pl.String, "value": pl.Int64}


def rows(*pairs: tuple[str, int]) -> pl.DataFrame:
    return pl.DataFrame(pairs, schema=SCHEMA, orient="row")


def test_rows_come_back_in_the_order_asked_and_survive_a_restart(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", SCHEMA, key="key")
    assert cache.append(rows(("a", 1), ("b", 2))) == 2
    assert cache.append(rows(("c", 3))) == 1

    for reader in (cache, Cache(tmp_path / "c", SCHEMA, key="key")):
        assert reader.fetch(["c", "a", "c"])["value"].to_list() == [3, 1, 3]
        assert reader.missing(["a", "d", "d", "c"]) == ["d"]
        assert {"a", "b", "c"} == reader.keys()
        assert verify(tmp_path / "c") == []


def test_the_first_row_of_a_key_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", SCHEMA, key="key")
    cache.append(rows(("a", 1), ("a", 9)))

    assert cache.append(rows(("a", 2))) == 0
    assert cache.fetch(["a"])["value"].to_list() == [1]
    assert len(parts(tmp_path / "c")) == 1


def test_a_temporary_file_left_by_a_killed_writer_is_not_data(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", SCHEMA, key="key")
    cache.append(rows(("a", 1)))
    (tmp_path / "c" / ".dead.tmp").write_bytes(b"half a file")

    assert {"a"} == Cache(tmp_path / "c", SCHEMA, key="key").keys()


def test_damage_and_missing_keys_are_named(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", SCHEMA, key="key")
    cache.append(rows(("a", 1)))
    part = parts(tmp_path / "c")[0]
    part.write_bytes(part.read_bytes()[:-1] + b"?")

    assert [f"{part} is damaged: its sha256 is not its name"] == verify(tmp_path / "c")
    with pytest.raises(StoreError, match="no row for 1 keys, the first z"):
        cache.fetch(["z"])


def test_a_wrong_table_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", SCHEMA, key="key")
    with pytest.raises(DataError, match="'value'"):
        cache.append(pl.DataFrame({"key": ["a"]}))
    assert not (tmp_path / "c").exists()


def test_dropped_rows_are_gone_from_the_disk_and_the_others_stay(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", SCHEMA, key="key")
    cache.append(rows(("a", 1), ("b", 2)))
    cache.append(rows(("c", 3)))

    assert cache.drop(["a", "c", "z"]) == 2
    for reader in (cache, Cache(tmp_path / "c", SCHEMA, key="key")):
        assert {"b"} == reader.keys()
        assert reader.fetch(["b"])["value"].to_list() == [2]
        assert verify(tmp_path / "c") == []
    assert cache.append(rows(("a", 9))) == 1
    assert cache.fetch(["a"])["value"].to_list() == [9]


def test_a_part_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", SCHEMA, key="key")
    cache.append(rows(("a", 1)))
    part = parts(tmp_path / "c")[0]
    part.write_bytes(b"")

    with pytest.raises(StoreError, match=f"{part.name} is damaged"):
        Cache(tmp_path / "c", SCHEMA, key="key")
