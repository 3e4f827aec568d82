"""Every row is judged by one schema; what is published is whole, the same for any row order, and read back equal."""

import dataclasses
import math
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import files
from storage.checks import LONGEST_CONTENT, REASONS, check_entities, check_interactions
from storage.datasets import Attribute, RawTable, RawTables, TimeFormat
from storage.disk import sha256_file
from storage.errors import DataError, StoreError
from storage.ingest import ingest, load_dataset, publish_dataset
from storage.schema import QUARANTINE
from storage.times import seconds
from tests.storage.sources import csv_options, write_csv, write_ml_1m

FUTURE = int(time.time()) + 86_400 + 3_600


def good_rows(n: int, *, start: int = 0) -> str:
    return "".join(f"u{i % 7},{'abc'[i % 3]},{1 + i % 5},{1_000_000_000 + i}\n" for i in range(start, start + n))


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


# --- one reason for every bad row -----------------------------------------------------------------------------------

BAD_ROWS = {
    "u1,a": "unparsable",
    "u1,a,5,1000,x": "unparsable",
    'u1,"a,5,1000': "unparsable",
    ",a,5,1000": "missing_field",
    "u1, ,5,1000": "missing_field",
    "u1,a,,1000": "missing_field",
    "u1,a,5,": "missing_field",
    "u1,a,five,1000": "bad_number",
    'u1,a,"4,5",1000': "bad_number",
    "u1,a,nan,1000": "not_finite",
    "u1,a,-inf,1000": "not_finite",
    "u1,a,1e39,1000": "not_finite",  # too large for float32
    "u1,a,5,-1": "impossible_time",
    "u1,a,5,soon": "impossible_time",
    "u1,a,5,1000.5": "impossible_time",
    "u1,a,5,nan": "impossible_time",
    "u1,a,5,99999999999999999999999": "impossible_time",
    f"u1,a,5,{FUTURE}": "impossible_time",
    f"u1,a,5,{1000 * (FUTURE - 10**6)}": "impossible_time",  # milliseconds taken for seconds
    "u1,zzz,5,1000": "unknown_item",
    "u0,a,1,1000000000": "duplicate_interaction",
}


@pytest.mark.parametrize(("line", "reason"), BAD_ROWS.items())
def test_a_bad_row_is_set_aside_with_file_line_reason_and_content(tmp_path: Path, line: str, reason: str) -> None:
    text = f"user,item,rating,time\n{good_rows(60)}{line}\n{good_rows(3, start=60)}"
    ingested = ingest("csv", csv_options(write_csv(tmp_path, text)), max_bad_share=0.1)

    assert {reason} <= set(REASONS)
    assert [("interactions.csv", 62, reason, line)] == ingested.quarantine.rows()
    assert dict(QUARANTINE) == dict(ingested.quarantine.schema)
    assert ingested.n_rows_read == len(ingested.dataset.interactions) + 1
    assert {reason: 1} == ingested.counts["interactions"]["quarantined"]


@pytest.mark.parametrize("line", ["d,", "d,   "])
def test_items_without_a_title_are_kept_where_that_is_asked(tmp_path: Path, line: str) -> None:
    items = f"item,title\na,A\nb,B\nc,C\n{line}\n,No id\n"
    options = csv_options(write_csv(tmp_path, f"user,item,rating,time\n{good_rows(60)}u1,d,5,1000\n", items=items))
    ingested = ingest("csv", {**options, "items": {**options["items"], "keep_untitled": True}}, max_bad_share=0.3)

    assert ingested.dataset.items["title"].to_list() == ["A", "B", "C", None]
    assert "d" in ingested.dataset.interactions["item_id"].to_list()
    assert ingested.quarantine["reason"].to_list() == ["missing_field"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a,Again", "duplicate_id"),
        (" a ,Again", "duplicate_id"),
        (",Nameless", "missing_field"),
        ("d,", "missing_title"),
        ("d,   ", "missing_title"),
        ("d", "unparsable"),
    ],
)
def test_a_bad_item_takes_its_interactions_along(tmp_path: Path, line: str, reason: str) -> None:
    items = f"item,title\na,A\nb,B\nc,C\n{line}\n"
    text = f"user,item,rating,time\n{good_rows(60)}u1,d,5,1000\n"
    ingested = ingest("csv", csv_options(write_csv(tmp_path, text, items=items)), max_bad_share=0.3)

    # An interaction with d is unknown where no line of items.csv is d's, and quarantined where that line is bad.
    then = "quarantined_item" if reason == "missing_title" else "unknown_item"
    if reason == "unparsable":
        then = "quarantined_item"  # its id could still be read
    assert [
        ("interactions.csv", 62, then, "u1,d,5,1000"),
        ("items.csv", 5, reason, line),
    ] == ingested.quarantine.rows()
    assert ingested.dataset.items["title"].to_list() == ["A", "B", "C"]


def test_users_of_a_table_are_checked_too(tmp_path: Path) -> None:
    folder = write_csv(tmp_path, "user,item,rating,time\nann,a,1,1\nbob,a,1,1\ncem,a,1,1\ndan,a,1,1\n")
    (tmp_path / "users.csv").write_text("id,age\nann,30\nbob,old\nann,31\neve,\nfay,inf\n")
    options = csv_options(folder)
    options["users"] = {"path": tmp_path / "users.csv", "user": "id", "attributes": {"age": {"type": "integer"}}}
    ingested = ingest("csv", options, max_bad_share=0.9)

    assert ingested.quarantine.select("file", "line", "reason").rows() == [
        ("interactions.csv", 3, "quarantined_user"),
        ("interactions.csv", 4, "unknown_user"),
        ("interactions.csv", 5, "unknown_user"),
        ("users.csv", 3, "bad_number"),
        ("users.csv", 4, "duplicate_id"),
        ("users.csv", 6, "not_finite"),
    ]
    assert ingested.dataset.users.rows() == [("ann", 30), ("eve", None)]  # eve has no history, which is no fault


def test_a_second_good_line_stands_where_the_first_of_its_id_is_bad() -> None:
    rows = pl.DataFrame({"item_id": ["a", "a", "a"], "title": ["", "A", "B"]})
    checked = check_entities(RawTable(rows), "item_id")

    assert checked.kept.rows() == [("a", "A")]
    assert checked.bad.select("line", "reason").rows() == [(1, "missing_title"), (3, "duplicate_id")]


def test_a_bad_row_does_not_make_a_duplicate_of_a_good_one(tmp_path: Path) -> None:
    text = "user,item,rating,time\nu,a,nan,7\nu,a,3,7\nu,a,4,7\n"
    ingested = ingest("csv", csv_options(write_csv(tmp_path, text)), max_bad_share=0.9)

    assert ingested.quarantine.select("line", "reason").rows() == [(2, "not_finite"), (4, "duplicate_interaction")]
    assert ingested.dataset.interactions["rating"].to_list() == [3.0]


def test_ratings_outside_the_scale_of_the_source_are_set_aside(tmp_path: Path) -> None:
    folder = write_ml_1m(tmp_path)
    append(folder / "ratings.dat", "1::1::6::978400000\n1::2::0::978400001\n")
    ingested = ingest("movielens", {"path": folder}, max_bad_share=0.1)

    expected = [(201, "rating_out_of_range", "1::1::6::978400000"), (202, "rating_out_of_range", "1::2::0::978400001")]
    assert expected == ingested.quarantine.select("line", "reason", "content").rows()


def test_what_is_kept_of_a_bad_row_is_bounded(tmp_path: Path) -> None:
    text = f"user,item,rating,time\n{good_rows(60)}{'x' * 100_000},a,5,-1\n"
    ingested = ingest("csv", csv_options(write_csv(tmp_path, text)), max_bad_share=0.1)

    assert ingested.quarantine["content"][0] == "x" * LONGEST_CONTENT


def test_a_row_without_raw_text_is_shown_as_json(tmp_path: Path) -> None:
    write_csv(tmp_path, "")
    pl.DataFrame({"user": ["u", None], "item": ["a", "b"], "rating": [1.0, 2.0], "time": [5, 6]}).write_parquet(
        tmp_path / "i.parquet"
    )
    options = csv_options(tmp_path)
    options["interactions"]["path"] = tmp_path / "i.parquet"
    ingested = ingest("csv", options, max_bad_share=0.5)

    expected = ("i.parquet", 2, "missing_field", '{"user_id":null,"item_id":"b","timestamp":6,"rating":2.0}')
    assert [expected] == ingested.quarantine.rows()


# --- the checker against plain Python -------------------------------------------------------------------------------

USERS, ITEMS = ("u1", "u2", "bad"), ("a", "b", "untitled")
ROW = st.tuples(
    st.sampled_from(["u1", "u2", " u1 ", "bad", "stranger", "", None]),
    st.sampled_from(["a", "b", "untitled", "stranger", "", None]),
    st.sampled_from(["1", "5", "4.5", "0", "6", "nan", "inf", "x", "", None]),
    st.sampled_from(["0", "7", "7.0", "1e2", "-1", "7.5", "now", str(FUTURE), "", None]),
)


def judge(rows: list[tuple]) -> tuple[list[tuple[int, str]], list[tuple]]:
    """The same rules row by row: (line, reason) of bad rows, and the good ones."""
    bad, good, seen = [], [], set()
    for line, row in enumerate(rows, start=1):
        user, item, rating, when = (value.strip() or None if value is not None else None for value in row)

        def number(text: str) -> float | None:
            try:
                return float(text)
            except ValueError:
                return None

        reason = None
        stars, moment = (number(text) if text is not None else None for text in (rating, when))
        if None in (user, item, rating, when):
            reason = "missing_field"
        elif stars is None:
            reason = "bad_number"
        elif not math.isfinite(stars):
            reason = "not_finite"
        elif not 1 <= stars <= 5:
            reason = "rating_out_of_range"
        elif moment is None or moment != math.floor(moment) or not 0 <= moment <= FUTURE - 3_600:
            reason = "impossible_time"
        elif user not in ("u1", "u2"):
            reason = "quarantined_user" if user == "bad" else "unknown_user"
        elif item not in ("a", "b"):
            reason = "quarantined_item" if item == "untitled" else "unknown_item"
        elif (user, item, moment) in seen:
            reason = "duplicate_interaction"
        if reason is not None:
            bad.append((line, reason))
        else:
            seen.add((user, item, moment))
            good.append((user, item, stars, moment, line))
    return bad, good


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(ROW, max_size=40))
def test_the_checker_agrees_with_a_row_by_row_judge(rows: list[tuple]) -> None:
    columns = [(name, pl.String) for name in ("user_id", "item_id", "rating", "timestamp")]
    users = check_entities(
        RawTable(
            pl.DataFrame({"user_id": USERS, "age": ["1", "2", "old"]}), attributes={"age": Attribute(type="integer")}
        ),
        "user_id",
    )
    items = check_entities(RawTable(pl.DataFrame({"item_id": ITEMS, "title": ["A", "B", ""]})), "item_id")
    table = RawTable(pl.DataFrame(rows, schema=columns, orient="row"))
    nothing = RawTable(pl.DataFrame())
    raw = RawTables("x", "general", "unix_s", table, nothing, rating_range=(1, 5))
    checked = check_interactions(raw, users, items)

    bad, good = judge(rows)
    assert bad == checked.bad.select("line", "reason").rows()
    assert good == checked.kept.rows()
    assert len(rows) == checked.n_read


# --- times ----------------------------------------------------------------------------------------------------------


def read_times(texts: list, time_format: TimeFormat, zone: str | None = None) -> list[int | None]:
    frame = pl.DataFrame({"t": texts})
    nothing = RawTable(pl.DataFrame())
    tables = RawTables("x", "general", time_format, nothing, nothing, time_zone=zone)
    return frame.select(seconds("t", frame.schema["t"], tables))["t"].to_list()


@settings(max_examples=200, deadline=None)
@given(
    moment=st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)),
    offset=st.integers(-12 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m))),
    written=st.sampled_from(
        [
            lambda t: t.isoformat(),
            lambda t: t.isoformat(" "),
            lambda t: t.isoformat(timespec="milliseconds"),
            lambda t: t.strftime("%Y-%m-%dT%H:%M:%S%z"),
            lambda t: t.strftime("%Y-%m-%d %H:%M:%S %z"),
        ]
    ),
)
def test_iso_texts_with_an_offset_are_moments(moment: datetime, offset: timezone, written: Callable) -> None:
    moment = moment.replace(tzinfo=offset)

    assert [math.floor(moment.timestamp())] == read_times([written(moment)], "iso")


def test_iso_texts_without_an_offset_need_a_zone() -> None:
    texts = ["2024-07-01 12:00:00", "2024-07-01T12:00", "2024-07-01", "2024-07-01T10:00:00Z", "2024-07-01 12:00:00+02"]
    noon = int(datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("Europe/Athens")).timestamp())

    assert [noon, noon, noon - 12 * 3600, noon + 3600, noon + 3600] == read_times(texts, "iso", "Europe/Athens")
    assert [None, None, None, noon + 3600, noon + 3600] == read_times(texts, "iso")


def test_an_hour_that_comes_twice_is_the_first_and_one_that_never_comes_is_no_time() -> None:
    autumn, spring = "2024-10-27 03:30:00", "2024-03-31 03:30:00"
    first = int(datetime(2024, 10, 27, 3, 30, tzinfo=ZoneInfo("Europe/Athens")).timestamp())

    assert [first, None] == read_times([autumn, spring], "iso", "Europe/Athens")


def test_what_is_no_time_is_null() -> None:
    assert read_times(["", "yesterday", "2024-13-01", "2024-02-30", "12:00"], "iso", "UTC") == [None] * 5
    assert read_times(["978300760999", "9.7830076e11", "x", None], "unix_ms") == [978_300_760, 978_300_760, None, None]
    assert read_times([3.0, 3, 3.5, math.nan], "position") == [3, 3, None, None]
    assert read_times([datetime(2000, 12, 31, 22, 12, 40)], "iso", "UTC") == [978_300_760]


# --- too many bad rows ----------------------------------------------------------------------------------------------


def test_the_share_of_bad_rows_is_allowed_up_to_its_bound_in_each_file(tmp_path: Path) -> None:
    text = f"user,item,rating,time\n{good_rows(98)}u1,a,x,5\nu1,a,x,6\n"
    options = csv_options(write_csv(tmp_path, text))

    assert len(ingest("csv", options, max_bad_share=0.02).quarantine) == 2
    with pytest.raises(DataError) as error:
        ingest("csv", options, max_bad_share=0.0199)
    said = str(error.value)
    assert f"{tmp_path / 'interactions.csv'}: 2 of 100 rows are bad (2.0%); at most 2.0%" in said
    assert "bad_number: 2 (a number that does not read as one)" in said
    assert "line 100: 'u1,a,x,5'" in said
    assert "expected: text separated by ',' with the columns user, item, time, rating" in said


def test_one_percent_is_the_default(tmp_path: Path) -> None:
    head = "user,item,rating,time\n"
    options = csv_options(write_csv(tmp_path, f"{head}{good_rows(99)}u1,a,x,5\n"))
    assert len(ingest("csv", options).quarantine) == 1
    write_csv(tmp_path, f"{head}{good_rows(98)}u1,a,x,5\n")
    with pytest.raises(DataError, match="1 of 99 rows are bad"):
        ingest("csv", options)


# --- the same data, the same dataset --------------------------------------------------------------------------------


def shuffle_lines(path: Path, seed: int, *, header: bool = False) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    head, body = (lines[:1], lines[1:]) if header else ([], lines)
    body = pl.Series(body).sample(fraction=1, shuffle=True, seed=seed).to_list()
    path.write_bytes(b"".join([*head, *body]))


def test_shuffled_rows_give_the_same_dataset(tmp_path: Path) -> None:
    folder = write_ml_1m(tmp_path / "ml")
    append(folder / "ratings.dat", "1::1::5::-4\n1::nothing::5::978300000\n")
    before = ingest("movielens", {"path": folder}, max_bad_share=0.1)
    for seed, file in enumerate(sorted(folder.iterdir())):
        shuffle_lines(file, seed)
    after = ingest("movielens", {"path": folder}, max_bad_share=0.1)

    assert before.dataset.interactions["source_row"].to_list() != after.dataset.interactions["source_row"].to_list()
    assert before.dataset.interactions.drop("source_row").equals(after.dataset.interactions.drop("source_row"))
    assert before.dataset.users.equals(after.dataset.users)
    assert before.dataset.items.equals(after.dataset.items)
    assert before.counts == after.counts
    assert before.content_hash == after.content_hash


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: append(folder / "ratings.dat", "1::1::5::978400000\n"),
        lambda folder: (folder / "ratings.dat").write_bytes((folder / "ratings.dat").read_bytes()[:-1] + b"9\n"),
        lambda folder: append(folder / "movies.dat", "99::New (2001)::Drama\n"),
        lambda folder: append(folder / "users.dat", "99::F::1::0::1\n"),
        lambda folder: append(folder / "ratings.dat", "1::1::9::978400000\n"),  # in quarantine only
    ],
)
def test_any_change_of_content_changes_the_hash(tmp_path: Path, change: Callable[[Path], object]) -> None:
    folder = write_ml_1m(tmp_path)
    before = ingest("movielens", {"path": folder}, max_bad_share=0.1).content_hash
    change(folder)

    assert before != ingest("movielens", {"path": folder}, max_bad_share=0.1).content_hash


# --- the store ------------------------------------------------------------------------------------------------------


def test_a_dataset_is_read_back_as_it_was_published(tmp_path: Path) -> None:
    folder = write_ml_1m(tmp_path / "ml")
    append(folder / "ratings.dat", "1::1::5::-4\n")
    ingested = ingest("movielens", {"path": folder})
    version = publish_dataset(tmp_path / "root", ingested)
    dataset = load_dataset(tmp_path / "root")

    for part in dataclasses.fields(dataset):
        said, read = getattr(ingested.dataset, part.name), getattr(dataset, part.name)
        assert said.equals(read) if isinstance(said, pl.DataFrame) else said == read
    assert ingested.quarantine.equals(pl.read_parquet(version.path / "quarantine.parquet"))
    assert files.verify(version) == []
    counts = {"read": 201, "kept": 200, "quarantined": {"impossible_time": 1}}
    assert counts == version.meta["counts"]["interactions"]
    assert tuple(version.meta[key] for key in ("name", "domain", "clock")) == ("ml-1m", "movies", "time")
    ratings = folder / "ratings.dat"
    source = {"file": "ratings.dat", "bytes": ratings.stat().st_size, "sha256": sha256_file(ratings)}
    assert source in version.meta["sources"]


def test_the_same_content_is_published_once(tmp_path: Path) -> None:
    folder = write_ml_1m(tmp_path / "ml")
    first = publish_dataset(tmp_path / "root", ingest("movielens", {"path": folder}))
    shuffle_lines(folder / "ratings.dat", 1)
    again = publish_dataset(tmp_path / "root", ingest("movielens", {"path": folder}))
    append(folder / "ratings.dat", "1::1::5::978400000\n")
    second = publish_dataset(tmp_path / "root", ingest("movielens", {"path": folder}))

    assert first == again
    assert second.number == 2
    assert len(load_dataset(tmp_path / "root", 1).interactions) == 200
    assert len(load_dataset(tmp_path / "root").interactions) == 201


def test_a_damaged_dataset_is_not_read(tmp_path: Path) -> None:
    version = publish_dataset(tmp_path, ingest("movielens", {"path": write_ml_1m(tmp_path / "ml")}))
    path = version.path / "interactions.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(StoreError, match=r"interactions\.parquet is missing or damaged"):
        load_dataset(tmp_path)


@pytest.mark.realdata
@pytest.mark.slow
def test_ml_1m_is_ingested_and_published_and_hashed_alike(realdata: Path, tmp_path: Path) -> None:
    ingested = ingest("movielens", {"path": realdata / "ml-1m"})
    version = publish_dataset(tmp_path, ingested)

    assert version == publish_dataset(tmp_path, ingest("movielens", {"path": realdata / "ml-1m"}))
    assert load_dataset(tmp_path).interactions.equals(ingested.dataset.interactions)
