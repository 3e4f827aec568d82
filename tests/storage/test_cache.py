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


def test_a_part_is_flushed_before_it_has_its_name(tmp_path: Path, on_disk: list[str]) -> None:
    cache = Cache(tmp_path / "c", SCHEMA, key="key")
    cache.append(rows(("a", 1), ("b", 2)))
    assert on_disk == ["flush .", "flush c/.*", "rename c/.* -> c/*.parquet", "flush c"]
    on_disk.clear()
    cache.drop(["a"])  # the new part first, then the old one goes and its folder is flushed again
    assert on_disk == ["flush c/.*", "rename c/.* -> c/*.parquet", "flush c", "flush c"]
    on_disk.clear()
    cache.drop(["b"])
    assert on_disk == ["flush c"]
    assert parts(tmp_path / "c") == []


def test_a_part_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the cache take its rows for stored."""
    cache = Cache(tmp_path / "c", SCHEMA, key="key")
    cache.append(rows(("a", 1)))

    def half(frame: pl.DataFrame, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pl.DataFrame, "write_parquet", half)
        with pytest.raises(StoreError, match=r"cannot write .*/c: No space left"):
            cache.append(rows(("b", 2)))
    assert [path.suffix for path in (tmp_path / "c").iterdir()] == [".parquet"]
    assert (cache.keys(), len(cache), "a" in cache, "b" in cache) == ({"a"}, 1, True, False)
    assert cache.append(rows(("a", 5), ("b", 2))) == 1
    assert cache.fetch(["b"])["value"].to_list() == [2]


def test_some_columns_are_read_and_nothing_is_an_empty_table(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", SCHEMA, key="key")
    assert cache.fetch([]).schema == SCHEMA
    cache.append(rows(("a", 1)))
    assert cache.fetch(["a"], columns=["key"]).to_dicts() == [{"key": "a"}]
    assert cache.fetch([]).schema == SCHEMA
    assert cache.append(rows()) == 0


def test_a_key_in_two_parts_keeps_its_first_row_and_both_go(tmp_path: Path) -> None:
    """As two writers on two machines may leave it; whichever part is read first, it is one row."""
    one, two = (Cache(tmp_path / "c", SCHEMA, key="key") for _ in range(2))
    one.append(rows(("a", 1), ("b", 1)))
    two.append(rows(("a", 2), ("c", 2)))
    both = Cache(tmp_path / "c", SCHEMA, key="key")
    assert len(both) == 3
    assert both.fetch(["a", "b", "c"])["key"].to_list() == ["a", "b", "c"]
    assert both.fetch(["a"]).height == 1


def test_only_files_called_by_a_hash_are_parts(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", SCHEMA, key="key")
    cache.append(rows(("a", 1)))
    for name in (".x.parquet", "x.parquet", "a.txt"):
        (tmp_path / "c" / name).write_bytes(b"")
    assert len(parts(tmp_path / "c")) == 1
    assert parts(tmp_path / "nothing") == []
