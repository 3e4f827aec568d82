"""Every source finds the fields of its files: titles, attributes, clocks, in all the forms its files have."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from pydantic import BaseModel

import storage.datasets
from storage.datasets import Attribute, RawTable
from storage.datasets.movielens import AGES, OCCUPATIONS
from storage.errors import ConfigError, DataError
from storage.ingest import Ingested, ingest
from storage.plugins import available, load
from tests.storage.sources import csv_options, write_csv, write_json_lines, write_ml_1m


@pytest.mark.parametrize("name", available(storage.datasets))
def test_every_source_has_a_strict_config_and_a_reader(name: str) -> None:
    plugin = load(storage.datasets, name)

    assert issubclass(plugin.Config, BaseModel)
    assert plugin.Config.model_config.get("extra") == "forbid"
    assert plugin.Config.model_config.get("frozen") is True
    assert callable(plugin.read)


def test_an_unknown_source_is_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"no 'netflix'.*movielens"):
        ingest("netflix", {})


def test_a_raw_table_numbers_its_rows() -> None:
    table = RawTable(pl.DataFrame({"user_id": ["a", "b"]}))

    assert table.rows.to_dict(as_series=False) == {
        "user_id": ["a", "b"],
        "line": [1, 2],
        "content": [None] * 2,
        "problem": [None] * 2,
    }


def test_only_words_have_a_separator() -> None:
    with pytest.raises(ValueError, match="separator"):
        Attribute(type="words")
    with pytest.raises(ValueError, match="separator"):
        Attribute(type="number", separator="|")


# --- movielens ------------------------------------------------------------------------------------------------------


def test_ml_1m_reads_latin_1_titles_years_genres_and_the_words_of_its_readme(tmp_path: Path) -> None:
    ingested = ingest("movielens", {"path": write_ml_1m(tmp_path)})
    dataset = ingested.dataset

    assert (dataset.name, dataset.domain, dataset.clock) == ("ml-1m", "movies", "time")
    assert (ingested.n_rows_read, len(ingested.quarantine)) == (200, 0)
    film = dataset.items.row(by_predicate=pl.col("item_id") == "2", named=True)
    assert film == {
        "item_id": "2",
        "title": "Misérables 2, Les (1982)",
        "genres": ["Animation", "Children's", "Comedy"],
        "year": 1982,
    }
    person = dataset.users.row(by_predicate=pl.col("user_id") == "12", named=True)
    assert person == {
        "user_id": "12",
        "gender": "male",
        "age": "25-34",
        "occupation": "programmer",
        "zip": "00012",
    }
    first = dataset.interactions.filter(pl.col("user_id") == "2").row(0, named=True)
    expected = {"user_id": "2", "item_id": "3", "rating": 1.0, "timestamp": 978_300_200, "source_row": 11}
    assert expected == first


def test_windows_line_ends_utf_8_and_a_missing_last_newline_change_nothing(tmp_path: Path) -> None:
    plain = ingest("movielens", {"path": write_ml_1m(tmp_path / "ml")})
    for file in (tmp_path / "ml").iterdir():
        text = file.read_bytes().decode("latin-1").removesuffix("\n")
        file.write_bytes(text.replace("\n", "\r\n").encode("utf-8"))

    assert plain.content_hash == ingest("movielens", {"path": tmp_path / "ml"}).content_hash


def test_ml_latest_reads_quoted_titles_and_makes_users_from_the_ratings(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text(
        "movieId,title,genres\n"
        '1,"American President, The (1995)",Comedy|Drama\n'
        "2,Babylon 5,Sci-Fi\n"
        '3,"She said ""Go"" (2006–2007)",(no genres listed)\n',
        encoding="utf-8",
    )
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n7,1,4.5,964982703\n7,3,0.5,964982704\n")
    dataset = ingest("movielens", {"path": tmp_path}).dataset

    assert dataset.items.rows() == [
        ("1", "American President, The (1995)", ["Comedy", "Drama"], 1995),
        ("2", "Babylon 5", ["Sci-Fi"], None),
        ("3", 'She said "Go" (2006–2007)', [], 2006),
    ]
    assert dataset.users.to_dict(as_series=False) == {"user_id": ["7"]}
    assert dataset.interactions["rating"].to_list() == [4.5, 0.5]


def test_a_folder_of_neither_form_is_told_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::1::5::978300000\n")
    with pytest.raises(DataError, match=r"users\.dat \(ml-1m\) or ratings\.csv, movies\.csv .*there is: \['ratings"):
        ingest("movielens", {"path": tmp_path})


# --- book_crossing --------------------------------------------------------------------------------------------------


def write_book_crossing(folder: Path, *, classic: bool) -> Path:
    folder.mkdir()
    if classic:
        files = {
            "BX-Users.csv": '"User-ID";"Location";"Age"\n"1";"málaga, n/a, spain";NULL\n"2";"ny, new york, usa";"34"\n'
            '"3";"lost, in space, x, mars";"239"\n',
            "BX-Books.csv": '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher"\n'
            '"X1";"Tom & \\"Huck\\"; a tale";"Twain &amp; Co";"1884";"Chatto"\n"X2";"Zero";"Nobody";"0";"None"\n',
            "BX-Book-Ratings.csv": '"User-ID";"ISBN";"Book-Rating"\n"1";"X1";"8"\n"2";"X1";"0"\n"1";"X2";"10"\n',
        }
    else:
        files = {
            "BX-Users.csv": "User-ID,User-City,User-State,User-Country,User-Age\n"
            '1,málaga, n/a," spain""",\n2,ny, new york," usa""",34\n3,"lost, in space", x,," 239"""\n',
            "BX-Books.csv": "ISBN,Book-Title,Book-Author,Year-Of-Publication,Book-Publisher\n"
            'X1,"Tom & ""Huck""; a tale",Twain & Co,1884,Chatto\nX2,Zero,Nobody,0,None\n',
            "BX-Ratings.csv": "User-ID,ISBN,Book-Rating\n1,X1,8\n1,X2,10\n",
        }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="latin-1" if classic else "utf-8")
    return folder


@pytest.mark.parametrize("classic", [False, True])
def test_book_crossing_orders_by_file_and_cleans_places_and_ages(tmp_path: Path, classic: bool) -> None:
    dataset = ingest("book_crossing", {"path": write_book_crossing(tmp_path / "bx", classic=classic)}).dataset

    assert dataset.clock == "position"
    assert dataset.interactions.drop("source_row").rows() == [("1", "X1", 8.0, 0), ("1", "X2", 10.0, 1)]
    assert dataset.items.row(0) == ("X1", 'Tom & "Huck"; a tale', "Twain & Co", 1884, "Chatto")
    assert dataset.items.row(1) == ("X2", "Zero", "Nobody", None, "None")
    assert dataset.users.row(0) == ("1", "málaga", None, "spain", None)
    assert dataset.users.row(1) == ("2", "ny", "new york", "usa", 34)
    assert ("3", "lost, in space", "x", "mars" if classic else None, None) == dataset.users.row(2)


def test_a_repeated_user_and_book_is_a_duplicate_where_there_is_no_time(tmp_path: Path) -> None:
    folder = write_book_crossing(tmp_path / "bx", classic=False)
    with (folder / "BX-Ratings.csv").open("a") as file:
        file.write("1,X1,9\n2,X2,7\n")
    ingested = ingest("book_crossing", {"path": folder}, max_bad_share=0.5)

    assert ingested.quarantine.rows() == [("BX-Ratings.csv", 4, "duplicate_interaction", "1,X1,9")]
    assert ingested.dataset.interactions["timestamp"].to_list() == [0, 1, 0]


# --- amazon ---------------------------------------------------------------------------------------------------------

REVIEWS = [("u1", "p1", 5.0, 1_400_000_000), ("u2", "p2", 3.0, 1_400_000_500), ("u1", "p2", 1.0, 1_400_001_000)]


def read_amazon(folder: Path, edition: int, *, packed: bool = False, **options: object) -> Ingested:
    ending = ".json.gz" if packed else ".json"
    reviews, items = folder / f"reviews{ending}", folder / f"meta{ending}"
    if edition == 2023:
        rows = [{"user_id": u, "asin": "x" + i, "parent_asin": i, "rating": r, "timestamp": 1000 * t + 7, "text": "no"}
                for u, i, r, t in REVIEWS]  # fmt: skip
        meta = [
            {"parent_asin": "p1", "title": "Soap &amp; more", "store": "Dove", "categories": ["Beauty", "Bath"],
             "price": 4.5, "description": []},
            {"parent_asin": "p2", "title": "Comb", "store": None, "categories": [], "price": None,
             "description": ["It"]},
        ]  # fmt: skip
    else:
        rows = [{"reviewerID": u, "asin": i, "overall": r, "unixReviewTime": t, "helpful": [0, 0]}
                for u, i, r, t in REVIEWS]  # fmt: skip
        nested = edition == 2014
        meta = [
            {"asin": "p1", "title": "Soap &amp; more", "brand": "Dove", "price": 4.5 if nested else "$4.50",
             ("categories" if nested else "category"): [["Beauty", "Bath"]] if nested else ["Beauty", "Bath"]},
            {"asin": "p2", "title": "Comb", "price": "$1.00 - $2.00", "description": "It"},
        ]  # fmt: skip
    meta.append({"asin": "p3", "parent_asin": "p3", "title": "Nobody's"})
    write_json_lines(reviews, rows)
    write_json_lines(items, meta, python=edition == 2014)
    return ingest("amazon", {"reviews": reviews, "metadata": items, "domain": "beauty", **options})


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("edition", [2014, 2018, 2023])
def test_amazon_editions_say_the_same(tmp_path: Path, edition: int, packed: bool) -> None:
    dataset = read_amazon(tmp_path, edition, packed=packed).dataset

    assert sorted(REVIEWS, key=lambda r: (r[0], r[3])) == dataset.interactions.drop("source_row").rows()
    assert dataset.items.columns == ["item_id", "title", "brand", "categories", "price"]
    assert dataset.items.rows() == [
        ("p1", "Soap & more", "Dove", ["Beauty", "Bath"], 4.5),
        ("p2", "Comb", None, [], None),
    ]
    assert dataset.users["user_id"].to_list() == ["u1", "u2"]


def test_amazon_can_keep_unreviewed_items_and_descriptions(tmp_path: Path) -> None:
    items = read_amazon(tmp_path, 2018, reviewed_only=False, attributes=["description"]).dataset.items

    assert items.rows() == [("p1", "Soap & more", None), ("p2", "Comb", "It"), ("p3", "Nobody's", None)]


def test_amazon_reads_python_lines_with_odd_escapes(tmp_path: Path) -> None:
    read_amazon(tmp_path, 2014)
    (tmp_path / "meta.json").write_text(
        """{'asin': 'p1', 'title': "It's a \\d \\'n\\' b"}\n{'asin': 'p2', 'title': u'\\xe9'}\n"""
    )
    items = ingest("amazon", {"reviews": tmp_path / "reviews.json", "metadata": tmp_path / "meta.json"}).dataset.items

    assert items["title"].to_list() == ["It's a \\d 'n' b", "é"]


def test_amazon_sets_aside_lines_that_are_no_objects(tmp_path: Path) -> None:
    read_amazon(tmp_path, 2018)
    lines = ["{'asin': nothing", '["p1"]', "{" * 5000, '{"reviewerID": "u9", "asin": "p1", "overall": NaN, ']
    with (tmp_path / "reviews.json").open("ab") as file:
        file.write(("\n".join(lines) + "\n\n").encode() + b'{"asin": "\xff"}\n')
    ingested = ingest(
        "amazon", {"reviews": tmp_path / "reviews.json", "metadata": tmp_path / "meta.json"}, max_bad_share=0.7
    )

    expected = [(4, "unparsable"), (5, "unparsable"), (6, "unparsable"), (7, "unparsable"), (9, "bad_encoding")]
    assert expected == ingested.quarantine.select("line", "reason").rows()
    assert ingested.quarantine["content"][2] == "{" * 500


# --- csv ------------------------------------------------------------------------------------------------------------


def test_csv_maps_columns_of_every_type(tmp_path: Path) -> None:
    (tmp_path / "deals.csv").write_text(
        "who;what;stars;when\nann;s1;4;2024-03-01T12:00:00+02:00\nbob;s2;5;2024-03-02\n"
    )
    (tmp_path / "things.csv").write_text(
        "sku;name;maker;tags;weight;year\ns1;Soap;Dove;a, b ,;1.5;1999\ns2;Comb;;;;\n", encoding="utf-8"
    )
    (tmp_path / "people.csv").write_text("id;town;content\nann;Oslo;x\nbob;;y\ncem;Bern;\n")
    options = {
        "name": "shop",
        "domain": "beauty",
        "interactions": {
            "path": tmp_path / "deals.csv",
            "separator": ";",
            "user": "who",
            "item": "what",
            "rating": "stars",
            "timestamp": "when",
            "time_format": "iso",
            "time_zone": "UTC",
        },
        "items": {
            "path": tmp_path / "things.csv",
            "separator": ";",
            "item": "sku",
            "title": "name",
            "attributes": {
                "brand": {"column": "maker"},
                "tags": {"type": "words", "separator": ","},
                "weight": {"type": "number"},
                "year": {"type": "integer"},
            },
        },
        "users": {
            "path": tmp_path / "people.csv",
            "separator": ";",
            "user": "id",
            "attributes": {"town": {}, "note": {"column": "content"}},
        },
    }
    dataset = ingest("csv", options).dataset

    assert (dataset.name, dataset.domain, dataset.clock) == ("shop", "beauty", "time")
    assert dataset.interactions.rows() == [
        ("ann", "s1", 4.0, 1_709_287_200, 2),
        ("bob", "s2", 5.0, 1_709_337_600, 3),
    ]
    assert dataset.items.rows() == [("s1", "Soap", "Dove", ["a", "b"], 1.5, 1999), ("s2", "Comb", None, [], None, None)]
    assert dataset.users.rows() == [("ann", "Oslo", "x"), ("bob", None, "y"), ("cem", "Bern", None)]


def test_csv_reads_parquet_with_its_own_types(tmp_path: Path) -> None:
    pl.DataFrame(
        {
            "user": [1, 2],
            "item": ["a", "b"],
            "time": [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)],
        }
    ).write_parquet(tmp_path / "i.parquet")
    pl.DataFrame({"item": ["a", "b"], "title": ["A", "B"], "tags": [["x"], None], "year": [1990, None]}).write_parquet(
        tmp_path / "t.parquet"
    )
    options = {
        "name": "p",
        "interactions": {"path": tmp_path / "i.parquet", "user": "user", "item": "item", "timestamp": "time"},
        "items": {
            "path": tmp_path / "t.parquet",
            "item": "item",
            "title": "title",
            "attributes": {"tags": {"type": "words", "separator": "|"}, "year": {"type": "integer"}},
        },
    }
    dataset = ingest("csv", options).dataset

    assert dataset.interactions.rows() == [("1", "a", None, 1_704_067_200, 1), ("2", "b", None, 1_704_153_600, 2)]
    assert dataset.items.rows() == [("a", "A", ["x"], 1990), ("b", "B", [], None)]


def test_csv_takes_a_position_where_there_is_no_clock(tmp_path: Path) -> None:
    write_csv(tmp_path, "user,item,place\nu,b,1\nu,a,0\nv,c,0\n")
    dataset = ingest("csv", csv_options(tmp_path, rating=None, timestamp=None, position="place")).dataset

    assert dataset.clock == "position"
    expected = [("u", "a", None, 0, 3), ("u", "b", None, 1, 2), ("v", "c", None, 0, 4)]
    assert expected == dataset.interactions.rows()
    assert dataset.users["user_id"].to_list() == ["u", "v"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"position": "place"}, "one of timestamp"),
        ({"timestamp": None}, "one of timestamp"),
        ({"time_format": "excel"}, "time_format"),
        ({"time_zone": "Mars/Olympus"}, "no time zone 'Mars/Olympus'"),
        ({"clock": "time"}, "interactions.clock.*(not permitted|Extra)"),
        ({"separator": ""}, "separator"),
    ],
)
def test_csv_options_that_make_no_sense_are_refused_by_name(tmp_path: Path, change: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ingest("csv", csv_options(write_csv(tmp_path, "user,item,rating,time\nu,a,1,1\n"), **change))


def test_csv_refuses_attributes_with_the_names_of_columns(tmp_path: Path) -> None:
    options = csv_options(write_csv(tmp_path, "user,item,rating,time\nu,a,1,1\n"))
    options["items"]["attributes"] = {"title": {}}
    with pytest.raises(ConfigError, match="may not be called 'title'"):
        ingest("csv", options)


# --- the real files -------------------------------------------------------------------------------------------------


@pytest.mark.realdata
def test_all_of_ml_1m_is_good(realdata: Path) -> None:
    ingested = ingest("movielens", {"path": realdata / "ml-1m"})

    assert (ingested.n_rows_read, len(ingested.quarantine)) == (1_000_209, 0)
    assert tuple(len(t) for t in (ingested.dataset.interactions, ingested.dataset.users, ingested.dataset.items)) == (
        1_000_209,
        6_040,
        3_883,
    )
    genres = ingested.dataset.items["genres"].explode().unique()
    assert len(genres) == 18
    assert ingested.dataset.items["year"].null_count() == 0
    assert set(OCCUPATIONS) == set(ingested.dataset.users["occupation"])
    assert set(AGES.values()) == set(ingested.dataset.users["age"])


@pytest.mark.realdata
def test_ml_latest_small_and_book_crossing_are_good(realdata: Path) -> None:
    latest = ingest("movielens", {"path": realdata / "ml-latest-small"})
    books = ingest("book_crossing", {"path": realdata / "book-crossing"})

    assert (
        *(latest.n_rows_read, len(latest.quarantine)),
        *(len(latest.dataset.users), len(latest.dataset.items)),
    ) == (100_836, 0, 610, 9_742)
    assert (
        *(books.n_rows_read, len(books.quarantine)),
        *(len(books.dataset.users), len(books.dataset.items)),
    ) == (204_164, 0, 48_299, 18_185)


@pytest.mark.realdata
@pytest.mark.parametrize("keep_untitled", [False, True])
def test_amazon_beauty_is_read_by_configuration_alone(realdata: Path, keep_untitled: bool) -> None:
    folder = realdata / "amazon-beauty"
    items = {"path": folder / "items.csv", "item": "item_id", "title": "title", "keep_untitled": keep_untitled}
    options = {
        "name": "amazon-beauty",
        "domain": "beauty",
        "interactions": {
            "path": folder / "interactions.csv",
            "user": "user_id",
            "item": "item_id",
            "position": "position",
        },
        "items": items,
    }
    ingested = ingest("csv", options)
    dataset = ingested.dataset

    assert (ingested.n_rows_read, dataset.clock, len(dataset.users)) == (198_502, "position", 22_363)
    if keep_untitled:
        assert (len(dataset.items), len(dataset.interactions), len(ingested.quarantine)) == (12_101, 198_502, 0)
        assert dataset.items["title"].null_count() == 7
    else:
        assert ingested.counts["items"]["quarantined"] == {"missing_title": 7}
        assert ingested.counts["interactions"]["quarantined"] == {"quarantined_item": 131}
