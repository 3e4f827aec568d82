"""Rows keep their line number and content, whatever their quotes do."""

import csv
import gzip
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import records
from storage.errors import DataError
from storage.records import Format, read_delimited

CSV = Format("columns a, b")


def read(tmp_path: Path, text: str | bytes, fmt: Format = CSV, **more) -> pl.DataFrame:
    path = tmp_path / "file.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return read_delimited(path, fmt, **{"columns": {"a": "a", "b": "b"}, **more})


def test_a_stray_quote_spoils_its_own_line_only(tmp_path: Path) -> None:
    text = (
        '\ufeffa,b\n\n1,"x ""y"" z"\n2,"two\nlines, yes"\n3,"stray\n4,fine\n5,5" disc\n6,"a"b\n7,too,many\n8\n"9","q"\n'
    )
    rows = read(tmp_path, text)

    assert rows.select("line", "problem", "a", "b").rows() == [
        (3, None, "1", 'x "y" z'),
        (4, None, "2", "two\nlines, yes"),
        (6, "unparsable", None, None),
        (7, None, "4", "fine"),
        (8, None, "5", '5" disc'),
        (9, "unparsable", None, None),
        (10, "unparsable", "7", "too"),
        (11, "unparsable", "8", None),
        (12, None, "9", "q"),
    ]
    assert rows["content"][1] == '2,"two\nlines, yes"'
    assert rows["content"][2] == '3,"stray'


def test_a_quote_that_never_closes_does_not_swallow_the_file(tmp_path: Path) -> None:
    good = "".join(f"{i},x\n" for i in range(500))
    rows = read(tmp_path, f'a,b\n0,"open\n{good}')

    assert (len(rows), rows["problem"].count()) == (501, 1)
    assert [0, *range(500)][1:] == rows["a"][1:].cast(pl.Int64).to_list()


def test_many_stray_quotes_cost_linear_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    real = records._fields
    monkeypatch.setattr(records, "_fields", lambda record, fmt: parsed.append(1) or real(record, fmt))
    monkeypatch.setattr(records, "_MOST_STRAYS", 10)
    lines = "".join(f'{i},"a"\n{i},"open, and a third field\n' for i in range(1000))
    rows = read(tmp_path, f"a,b\n{lines}")

    assert len(rows) == 2000
    assert rows["problem"].count() == 1000
    assert len(parsed) < 2 * 2000 + 10 * 100


def test_backslash_quotes_latin_1_and_semicolons(tmp_path: Path) -> None:
    text = '"a";"b"\n"1";"x \\"y\\"; z"\n"2";"a\\\\b"\n"3";"é"\n4;plain\n'.encode("latin-1")
    rows = read(tmp_path, text, Format("", ";", "latin-1", "backslash"))

    assert rows["b"].to_list() == ['x "y"; z', "a\\b", "é", "plain"]


def test_bytes_that_are_no_utf_8_spoil_their_line_only(tmp_path: Path) -> None:
    rows = read(tmp_path, b"a,b\n1,ok\n2,caf\xe9\n3,caf\xc3\xa9\n")

    assert rows["problem"].to_list() == [None, "bad_encoding", None]
    assert rows["content"][1] == "2,caf\ufffd"


def test_packed_and_plain_files_read_alike_and_blocks_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "a,b\n" + "".join(f'{i},"v{i}"\r\n' if i % 3 else f"{i},v{i}\n" for i in range(200))
    plain = read(tmp_path, text)
    packed = read(tmp_path, gzip.compress(text.encode()))
    monkeypatch.setattr(records, "_BLOCK", 7)

    assert [f"v{i}" for i in range(200)] == plain["b"].to_list()
    assert list(range(2, 202)) == plain["line"].to_list()
    assert plain.equals(packed)
    assert plain.equals(read(tmp_path, text))


def test_a_control_character_may_be_the_separator(tmp_path: Path) -> None:
    rows = read(tmp_path, "a\x01b\n1\x012\n", Format("", "\x01"))

    assert rows.select("a", "b").rows() == [("1", "2")]


def test_columns_are_found_by_name_and_one_may_serve_twice(tmp_path: Path) -> None:
    rows = read(tmp_path, "line,b,a\n1,2,3\n", columns={"x": "line", "y": "a", "z": "a"})

    assert rows.select("x", "y", "z").rows() == [("1", "3", "3")]


FIELD = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.sampled_from('\n\t,"'), max_size=8)


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=12))
def test_what_python_writes_as_csv_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    rows = [("key" + a, b) for a, b in rows]  # a row of blanks only is no row
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("a", "b"), *rows])
    found = read(tmp_path_factory.mktemp("csv"), text.getvalue())

    assert rows == found.select("a", "b").rows()
    starts = [2 + sum(a.count("\n") + b.count("\n") + 1 for a, b in rows[:i]) for i in range(len(rows))]
    assert starts == found["line"].to_list()


def test_a_small_gzip_file_that_unpacks_to_everything_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_ROOM", 10_000)
    (tmp_path / "bomb.csv").write_bytes(gzip.compress(b"a,b\n" + b"1" * 30_000_000))
    with pytest.raises(DataError, match=r"bomb\.csv unpacks to more than"):
        read_delimited(tmp_path / "bomb.csv", Format("a,b"), columns={"a": "a"})
