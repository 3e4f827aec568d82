"""Bytes reach the disk whole and in order, and whatever is refused names the file."""

import hashlib
import os
from pathlib import Path

import polars as pl
import pytest

from storage.disk import (
    make_folder,
    naming,
    read_sealed,
    reading,
    seal,
    sha256_file,
    write_atomic,
    write_sealed,
    write_through,
)
from storage.errors import StoreError

REFUSED = [
    (OSError(28, "No space left on device"), "No space left on device"),
    (pl.exceptions.ComputeError("parquet: no room"), "parquet: no room"),
    (OSError("said without a number"), "said without a number"),
]


@pytest.mark.parametrize(("error", "said"), REFUSED)
def test_what_the_system_refuses_names_the_file(error: Exception, said: str) -> None:
    with pytest.raises(StoreError) as written, naming(Path("a/b")):
        raise error
    assert str(written.value) == f"cannot write a/b: {said}; nothing stored before is touched"
    with pytest.raises(StoreError) as read, reading(Path("a/b")):
        raise error
    assert str(read.value) == f"cannot read a/b: {said}; see `nightshift verify`"


def test_a_bug_stays_a_bug() -> None:
    for context in (naming, reading):
        with pytest.raises(KeyError), context(Path("a")):
            raise KeyError("a bug")
    with pytest.raises(pl.exceptions.ColumnNotFoundError), naming(Path("a")):
        raise pl.exceptions.ColumnNotFoundError("a bug in what is written")
    with pytest.raises(StoreError), reading(Path("a")):
        raise pl.exceptions.ColumnNotFoundError("a file that is not what it should be")


def test_the_hash_of_a_file_is_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 300_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"x" * 300_000).hexdigest()


def test_folders_are_flushed_where_their_name_stands(tmp_path: Path, on_disk: list[str]) -> None:
    make_folder(tmp_path / "a" / "b")
    assert on_disk == ["flush .", "flush a"]
    make_folder(tmp_path / "a" / "b")
    assert on_disk == ["flush .", "flush a"]
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="File exists"):
        make_folder(tmp_path / "file")


def test_a_file_is_flushed_renamed_and_its_folder_flushed(tmp_path: Path, on_disk: list[str]) -> None:
    write_atomic(tmp_path / "new" / "a.json", b"1")
    assert on_disk == ["flush .", "flush new/.a.json.*", "rename new/.a.json.* -> new/a.json", "flush new"]
    assert (tmp_path / "new" / "a.json").read_bytes() == b"1"


def test_a_write_that_fails_leaves_the_old_bytes_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the rubbish cannot be removed: what went wrong first is what is said."""
    write_atomic(tmp_path / "a", b"old")

    def half(path: Path) -> None:
        path.write_bytes(b"ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match=r"cannot write .*/a: No space left"):
        write_through(tmp_path / "a", half)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]

    def stuck(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", stuck)
    with pytest.raises(StoreError, match=r"cannot write .*/a: No space left"):
        write_through(tmp_path / "a", half)
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_sealed_record_is_read_back(tmp_path: Path) -> None:
    write_sealed(tmp_path / "r.json", {"b": [1, None], "a": "é"})
    assert read_sealed(tmp_path / "r.json") == seal({"a": "é", "b": [1, None]})
    assert set(read_sealed(tmp_path / "r.json")) == {"a", "b", "seal"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is damaged (JSONDecodeError"),
        (b"{", "is damaged (JSONDecodeError"),
        (b'"\xff"', "is damaged (UnicodeDecodeError"),
        (b"[1]", "is damaged (TypeError"),
        (b"7", "is damaged (TypeError"),
        (b"{}", "is damaged (KeyError"),
        (b"[" * 100_000, "is damaged (RecursionError"),
        (b'{"a": 1, "seal": "x"}', "is damaged: its content does not match its seal"),
        (b'{"a": 2, "seal": "%s"}' % seal({"a": 1})["seal"].encode(), "does not match its seal"),
    ],
)
def test_a_record_that_was_touched_is_named(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(data)
    with pytest.raises(StoreError) as error:
        read_sealed(path)
    assert str(error.value).startswith(f"{path} ")
    assert said in str(error.value)


def test_a_record_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read .*gone\.json: No such file"):
        read_sealed(tmp_path / "gone.json")
