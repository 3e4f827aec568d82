"""Bad input of every kind: a clear error that names the file (and the line), and a store that is as it was."""

import gzip
import hashlib
import random
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from storage.errors import ConfigError, DataError, NightshiftError, StoreError
from storage.ingest import ingest, load_dataset, publish_dataset
from tests.storage.sources import csv_options, write_csv, write_json_lines, write_ml_1m

Build = Callable[[Path], object]

NOISE = random.Random(7).randbytes(20_000)


@dataclass(frozen=True)
class Case:
    """`spoil` gets a folder of good files of `source`; `said` must all be in the message."""

    name: str
    source: str
    spoil: Build
    said: tuple[str, ...]
    error: type[NightshiftError] = DataError


def rewrite(file: str, change: Callable[[str], str], *, encoding: str = "latin-1") -> Build:
    def spoil(folder: Path) -> None:
        path = folder / file
        path.write_text(change(path.read_bytes().decode(encoding)), encoding=encoding)

    return spoil


def fill(file: str, data: bytes) -> Build:
    return lambda folder: (folder / file).write_bytes(data)


def cut(file: str, share: float) -> Build:
    def spoil(folder: Path) -> None:
        data = (folder / file).read_bytes()
        (folder / file).write_bytes(data[: int(len(data) * share)])

    return spoil


def lines(change: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    """A change of the fields of every `::` line."""
    return lambda text: "".join("::".join(change(line.split("::"))) + "\n" for line in text.splitlines())


def folder_in_place_of(file: str) -> Build:
    def spoil(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    return spoil


def flip_a_byte(file: str) -> Build:
    def spoil(folder: Path) -> None:
        data = bytearray((folder / file).read_bytes())
        data[-6] ^= 0xFF  # in the checksum at the end of the gzip member
        (folder / file).write_bytes(data)

    return spoil


def options_of(source: str, folder: Path) -> dict:
    if source == "amazon":
        return {"reviews": folder / "reviews.json.gz", "metadata": folder / "meta.json.gz"}
    return csv_options(folder) if source == "csv" else {"path": folder}


def write_good(source: str, folder: Path) -> None:
    if source == "movielens":
        write_ml_1m(folder)
    elif source == "csv":
        rows = "".join(f"u{i % 9},{'abc'[i % 3]},{1 + i % 5},{10**9 + i}\n" for i in range(90))
        write_csv(folder, f"user,item,rating,time\n{rows}")
    elif source == "amazon":
        reviews = [
            {"reviewerID": f"u{i % 9}", "asin": f"p{i % 5}", "overall": 1.0 + i % 5, "unixReviewTime": 10**9 + i}
            for i in range(90)
        ]
        write_json_lines(folder / "reviews.json.gz", reviews)
        write_json_lines(folder / "meta.json.gz", [{"asin": f"p{i}", "title": f"T{i}"} for i in range(5)])
    else:
        folder.mkdir(parents=True)
        users = "".join(f"{i},oslo,n/a,norway,3{i % 10}\n" for i in range(30))
        (folder / "BX-Users.csv").write_text(f"User-ID,User-City,User-State,User-Country,User-Age\n{users}")
        books = "".join(f"b{i},Book {i},Author,19{10 + i},House\n" for i in range(9))
        (folder / "BX-Books.csv").write_text(f"ISBN,Book-Title,Book-Author,Year-Of-Publication,Book-Publisher\n{books}")
        ratings = "".join(f"{i},b{(i + k) % 9},{1 + k}\n" for i in range(30) for k in range(4))
        (folder / "BX-Ratings.csv").write_text(f"User-ID,ISBN,Book-Rating\n{ratings}")


ML, CSV, AMAZON, BX = "movielens", "csv", "amazon", "book_crossing"
RATINGS = "UserID::MovieID::Rating::Timestamp"
CASES = [
    # whole files
    Case("a folder that is not there", ML, shutil.rmtree, ("{folder} is not a MovieLens folder", "no such folder")),
    Case("ratings missing", ML, lambda f: (f / "ratings.dat").unlink(), ("{folder}", "looked for ratings.dat")),
    Case("ratings empty", ML, fill("ratings.dat", b""), ("{folder}/ratings.dat is empty", RATINGS)),
    Case("users empty", ML, fill("users.dat", b""), ("{folder}/users.dat is empty", "UserID::Gender")),
    Case("movies of blank lines", ML, fill("movies.dat", b"\n \n\n"), ("{folder}/movies.dat is empty",)),
    Case("ratings a folder", ML, folder_in_place_of("ratings.dat"), ("{folder}", "looked for ratings.dat")),
    Case("random bytes", ML, fill("ratings.dat", NOISE), ("{folder}/ratings.dat is a binary file", RATINGS)),
    Case(
        "a picture",
        ML,
        fill("ratings.dat", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + NOISE),
        ("{folder}/ratings.dat is a binary file",),
    ),
    Case(
        "UTF-16",
        ML,
        lambda f: (f / "ratings.dat").write_text("1::1::5::978300000\n" * 99, encoding="utf-16"),
        ("{folder}/ratings.dat is text in UTF-16", "save it as UTF-8"),
    ),
    Case(
        "UTF-16 without its mark",
        ML,
        lambda f: (f / "movies.dat").write_text("1::T (1999)::Drama\n" * 99, encoding="utf-16-le"),
        ("{folder}/movies.dat is text in UTF-16",),
    ),
    Case(
        "a cut-off gzip file under another name",
        ML,
        fill("ratings.dat", gzip.compress(NOISE)[:900]),
        ("{folder}/ratings.dat is a damaged or cut-off gzip file",),
    ),
    # whole columns of ::-files
    Case(
        "wrong delimiter",
        ML,
        rewrite("ratings.dat", lambda text: text.replace("::", "\t")),
        ("{folder}/ratings.dat: 200 of 200 rows are bad", "unparsable: 200", "line 1: ", f"lines {RATINGS}"),
    ),
    Case(
        "one colon",
        ML,
        rewrite("movies.dat", lambda text: text.replace("::", ":")),
        ("{folder}/movies.dat: 15 of 15", "unparsable", "line 2: "),
    ),
    Case(
        "cut off in the middle of a line",
        ML,
        lambda f: (f / "movies.dat").write_text("1::Alone"),
        ("{folder}/movies.dat: 1 of 1 rows", "unparsable", "line 1: '1::Alone'"),
    ),
    Case(
        "two columns swapped",
        ML,
        rewrite("ratings.dat", lines(lambda f: [f[0], f[1], f[3], f[2]])),
        ("{folder}/ratings.dat: 200 of 200", "rating_out_of_range: 200"),
    ),
    Case(
        "every user twice",
        ML,
        rewrite("users.dat", lambda text: text * 2),
        ("{folder}/users.dat: 20 of 40", "duplicate_id: 20", "line 21: '1::F"),
    ),
    Case(
        "every movie twice",
        ML,
        rewrite("movies.dat", lambda text: text * 2),
        ("{folder}/movies.dat: 15 of 30", "duplicate_id: 15", "line 16: '1::"),
    ),
    Case(
        "every rating twice",
        ML,
        rewrite("ratings.dat", lambda text: text * 2),
        ("{folder}/ratings.dat: 200 of 400", "duplicate_interaction: 200", "line 201: "),
    ),
    Case(
        "ratings that are NaN",
        ML,
        rewrite("ratings.dat", lines(lambda f: [f[0], f[1], "NaN", f[3]])),
        ("{folder}/ratings.dat: 200 of 200", "not_finite: 200", "line 1: '1::2::NaN::"),
    ),
    Case(
        "times before 1970",
        ML,
        rewrite("ratings.dat", lines(lambda f: [*f[:3], "-" + f[3]])),
        ("{folder}/ratings.dat: 200 of 200", "impossible_time: 200", "negative", "line 1: "),
    ),
    Case(
        "milliseconds taken for seconds",
        ML,
        rewrite("ratings.dat", lines(lambda f: [*f[:3], f[3] + "000"])),
        ("{folder}/ratings.dat: 200 of 200", "impossible_time: 200", "a day in the future"),
    ),
    Case(
        "movies without titles",
        ML,
        rewrite("movies.dat", lines(lambda f: [f[0], "", f[2]])),
        ("{folder}/movies.dat: 15 of 15", "missing_title: 15", "line 1: '1::::"),
    ),
    Case(
        "ratings of other users",
        ML,
        rewrite("ratings.dat", lines(lambda f: ["9" + f[0], *f[1:]])),
        ("{folder}/ratings.dat: 200 of 200", "unknown_user: 200", "line 1: '91::"),
    ),
    Case(
        "one bad movie that most have rated",
        ML,
        lambda f: (
            rewrite(
                "movies.dat", lambda text: text + "99::::Drama\n" + "".join(f"{i}::T::Drama\n" for i in range(200, 400))
            )(f),
            rewrite("ratings.dat", lines(lambda f: [f[0], "99", *f[2:]]))(f),
        ),
        ("{folder}/ratings.dat: 200 of 200", "quarantined_item: 200", "itself in quarantine"),
    ),
    # csv
    Case(
        "a header without a column",
        CSV,
        rewrite("interactions.csv", lambda text: text.replace("time", "when")),
        ("{folder}/interactions.csv line 1", "no column 'time'", "it has ['user', 'item', 'rating', 'when']"),
    ),
    Case(
        "semicolons",
        CSV,
        rewrite("interactions.csv", lambda text: text.replace(",", ";")),
        ("{folder}/interactions.csv line 1", "['user;item;rating;time'] when split at ','"),
    ),
    Case(
        "a header with a column twice",
        CSV,
        rewrite("items.csv", lambda text: text.replace("item,title", "item,title,title")),
        ("{folder}/items.csv line 1", "'title' more than once"),
    ),
    Case(
        "a header and no more",
        CSV,
        fill("interactions.csv", b"user,item,rating,time\n"),
        ("{folder}/interactions.csv holds no rows",),
    ),
    Case("no header", CSV, fill("items.csv", b"a,A\nb,B\n"), ("{folder}/items.csv line 1", "'item', 'title'")),
    Case("items missing", CSV, lambda f: (f / "items.csv").unlink(), ("{folder}/items.csv does not exist",)),
    Case("items a folder", CSV, folder_in_place_of("items.csv"), ("{folder}/items.csv is a folder",)),
    Case(
        "latin-1 where UTF-8 was said",
        CSV,
        fill("items.csv", "item,title\na,café\nb,thé\nc,fiancé\n".encode("latin-1")),
        ("{folder}/items.csv: 3 of 3", "bad_encoding: 3", "line 2: 'a,caf"),
    ),
    Case(
        "quotes that never close",
        CSV,
        rewrite("items.csv", lambda text: text.replace(",A", ',"A').replace(",B", ',"B')),
        ("{folder}/items.csv: 2 of 3", "unparsable: 2", "line 2: "),
    ),
    Case(
        "dates in a column of seconds",
        CSV,
        rewrite("interactions.csv", lambda text: text.replace(",1000000", ",2001-09-09 0")),
        ("{folder}/interactions.csv: 90 of 90", "impossible_time: 90", "not readable as a time"),
    ),
    # amazon
    Case("reviews cut off", AMAZON, cut("reviews.json.gz", 0.6), ("{folder}/reviews.json.gz", "cut-off gzip")),
    Case("metadata cut off", AMAZON, cut("meta.json.gz", 0.9), ("{folder}/meta.json.gz", "cut-off gzip")),
    Case("a gzip head alone", AMAZON, cut("meta.json.gz", 0.1), ("{folder}/meta.json.gz", "cut-off gzip")),
    Case("wrong checksum", AMAZON, flip_a_byte("reviews.json.gz"), ("{folder}/reviews.json.gz", "damaged")),
    Case("reviews empty", AMAZON, fill("reviews.json.gz", b""), ("{folder}/reviews.json.gz is empty", "reviewerID")),
    Case("packed nothing", AMAZON, fill("meta.json.gz", gzip.compress(b"")), ("{folder}/meta.json.gz is empty",)),
    Case(
        "metadata missing",
        AMAZON,
        lambda f: (f / "meta.json.gz").unlink(),
        ("{folder}/meta.json.gz does not exist", "one JSON object a line"),
    ),
    Case(
        "csv in place of JSON",
        AMAZON,
        fill("reviews.json.gz", b"u1,p1,5,1000\nu2,p2,4,1000\n"),
        ("{folder}/reviews.json.gz: 2 of 2", "unparsable: 2", "line 1: 'u1,p1,5,1000'"),
    ),
    Case(
        "metadata without titles",
        AMAZON,
        lambda f: write_json_lines(f / "meta.json.gz", [{"asin": f"p{i}"} for i in range(5)]),
        ("{folder}/meta.json.gz: 5 of 5", "missing_title: 5", "line 1: "),
    ),
    Case(
        "metadata of other items",
        AMAZON,
        lambda f: write_json_lines(f / "meta.json.gz", [{"asin": "x", "title": "X"}]),
        ("{folder}/reviews.json.gz: 90 of 90", "unknown_item: 90", "line 1: "),
    ),
    # book_crossing
    Case("books missing", BX, lambda f: (f / "BX-Books.csv").unlink(), ("{folder}", "looked for BX-Books.csv")),
    Case(
        "the semicolons of the classic dump in a comma file",
        BX,
        rewrite("BX-Ratings.csv", lambda text: text.replace(",", ";")),
        ("{folder}/BX-Ratings.csv line 1", "User-ID;ISBN;Book-Rating"),
    ),
    Case(
        "ages that are words",
        BX,
        rewrite("BX-Users.csv", lambda text: text.replace(",3", ",old")),
        ("{folder}/BX-Users.csv: 30 of 30", "bad_number: 30", "line 2: '0,oslo"),
    ),
]


def content_of(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in root.rglob("*")
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store that holds a good dataset."""
    publish_dataset(tmp_path / "root", ingest(ML, {"path": write_ml_1m(tmp_path / "stored", users=5)}))
    return tmp_path / "root"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.source}: {case.name}")
def test_bad_input_is_named_and_nothing_is_published(tmp_path: Path, root: Path, case: Case) -> None:
    folder = tmp_path / "data"
    write_good(case.source, folder)
    case.spoil(folder)
    before = content_of(root)

    with pytest.raises(case.error) as error:
        publish_dataset(root, ingest(case.source, options_of(case.source, folder)))
    for part in case.said:
        assert part.format(folder=folder) in str(error.value)
    assert before == content_of(root)


@pytest.mark.parametrize("source", [ML, CSV, AMAZON, BX])
def test_the_same_files_before_they_are_spoilt_are_good(tmp_path: Path, root: Path, source: str) -> None:
    write_good(source, tmp_path / "data")
    ingested = ingest(source, options_of(source, tmp_path / "data"))

    assert len(ingested.quarantine) == 0
    assert publish_dataset(root, ingested).number == 2


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(NOISE), "cannot be read as Parquet"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "cannot be read as Parquet"),
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: pl.DataFrame({"item": ["a"]}).write_parquet(path), "has no column 'title'"),
        (lambda path: pl.DataFrame({"item": ["a"], "title": [{"x": 1}]}).write_parquet(path), "'title' is Struct"),
    ],
)
def test_bad_parquet_is_named(tmp_path: Path, root: Path, spoil: Build, said: str) -> None:
    write_good(CSV, tmp_path / "data")
    path = tmp_path / "data" / "items.parquet"
    pl.DataFrame({"item": ["a", "b", "c"], "title": ["A", "B", "C"]}).write_parquet(path)
    options = options_of(CSV, tmp_path / "data")
    options["items"]["path"] = path
    assert ingest(CSV, options).dataset.items["title"].to_list() == ["A", "B", "C"]
    before = content_of(root)
    spoil(path)

    with pytest.raises(DataError) as error:
        publish_dataset(root, ingest(CSV, options))
    assert f"{path}" in str(error.value)
    assert said in str(error.value)
    assert before == content_of(root)


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        (ML, {}, "path: Field required"),
        (ML, {"path": 7}, "path: "),
        (ML, {"path": "x", "colour": "red"}, "colour: Extra inputs are not permitted (got 'red')"),
        (AMAZON, {"reviews": "x"}, "metadata: Field required"),
        (CSV, {"name": "n", "interactions": {"path": "x"}}, "interactions.user: Field required"),
    ],
)
def test_bad_options_are_named(source: str, options: dict, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        ingest(source, options)
    assert f"options of dataset source {source!r}" in str(error.value)
    assert said in str(error.value)


def test_a_full_disk_leaves_the_store_as_it_was(tmp_path: Path, root: Path) -> None:
    ingested = ingest(ML, {"path": write_ml_1m(tmp_path / "more", users=400, ratings_each=14)})
    before = content_of(root)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))  # the kernel refuses to write on, as on a full disk
    try:
        with pytest.raises(StoreError, match=r"cannot write .*interactions\.parquet"):
            publish_dataset(root, ingested)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert before == content_of(root)
    assert load_dataset(root).users.height == 5
    assert publish_dataset(root, ingested).number == 2
