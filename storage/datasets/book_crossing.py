"""How is Book-Crossing read? Comma csv (BX-Ratings.csv), or the classic semicolon dump (BX-Book-Ratings.csv).

There is no clock in this data. What stands in for time is the order of a user's rows in the ratings file, as a
position 0, 1, 2 ...; it is an order of the file and not known to be the order of reading, so nothing that depends on
time may be concluded from it. The clock of the dataset is "position".

In the classic dump a rating of 0 means that a user had to do with a book and gave no rating; these rows are left out
(and logged). About a tenth of its ratings name books that BX-Books.csv lacks: it needs a larger `max_bad_share`.
Source: Ziegler et al. 2005, "Improving Recommendation Lists Through Topic Diversification".
"""

import logging
from pathlib import Path

import polars as pl
from pydantic import BaseModel

from storage.datasets import Attribute, RawTable, RawTables
from storage.download import fetch
from storage.errors import DataError
from storage.records import Format, read_delimited

logger = logging.getLogger(__name__)

COMMA, CLASSIC = "BX-Ratings.csv", "BX-Book-Ratings.csv"
BOOKS, USERS = "BX-Books.csv", "BX-Users.csv"


class Config(BaseModel, extra="forbid", frozen=True):
    """A folder of Book-Crossing files."""

    path: Path
    """The folder that holds BX-Users.csv, BX-Books.csv and BX-Ratings.csv (or BX-Book-Ratings.csv)."""
    download: bool = False
    """Fetch the classic dump into `path` where the folder holds neither form."""


def read(config: Config) -> RawTables:
    """The tables of the folder. Raises DataError listing the files looked for where they are not there."""
    folder = config.path.expanduser()
    if config.download and _form(folder) is None:
        fetch("book-crossing", folder)
    ratings = _form(folder)
    if ratings is None:
        there = sorted(p.name for p in folder.iterdir())[:20] if folder.is_dir() else "no such folder"
        raise DataError(
            f"{folder} is not a Book-Crossing folder: looked for {BOOKS}, {USERS} and {COMMA} or {CLASSIC}; "
            f"there is: {there}"
        )
    classic = ratings == CLASSIC

    def table(file: str, **columns: str) -> RawTable:
        expects = f"{'semicolon' if classic else 'comma'}-separated with the columns {', '.join(columns.values())}"
        fmt = Format(expects, ";", "latin-1", "backslash") if classic else Format(expects)
        return RawTable(read_delimited(folder / file, fmt, columns=columns), folder / file, expects)

    rated = table(ratings, user_id="User-ID", item_id="ISBN", rating="Book-Rating")
    if classic:
        explicit = rated.rows.filter(pl.col("rating").ne_missing("0"))
        logger.info("%s: %d rows of implicit feedback left out", ratings, len(rated.rows) - len(explicit))
        rated = RawTable(explicit, rated.path, rated.expects)
    books = table(
        BOOKS,
        item_id="ISBN",
        title="Book-Title",
        author="Book-Author",
        year="Year-Of-Publication",
        publisher="Book-Publisher" if not classic else "Publisher",
    )
    places = {"location": "Location"} if classic else {p: f"User-{p.title()}" for p in ("city", "state", "country")}
    readers = table(USERS, user_id="User-ID", **places, age="Age" if classic else "User-Age")
    return RawTables(
        name="book-crossing",
        domain="books",
        time_format="file_order",
        interactions=rated,
        items=RawTable(_books(books.rows), books.path, books.expects, {"year": Attribute(type="integer")}),
        users=RawTable(_readers(readers.rows), readers.path, readers.expects, {"age": Attribute(type="integer")}),
        rating_range=(1, 10),
    )


def _form(folder: Path) -> str | None:
    if not all((folder / name).is_file() for name in (BOOKS, USERS)):
        return None
    return next((name for name in (COMMA, CLASSIC) if (folder / name).is_file()), None)


def _books(rows: pl.DataFrame) -> pl.DataFrame:
    """A year of 0 is an unknown one; the dump writes `&` as in a web page."""
    texts = pl.col("title", "author", "publisher").str.replace_all("&amp;", "&", literal=True)
    return rows.with_columns(texts, year=pl.col("year").replace("0", None))


def _readers(rows: pl.DataFrame) -> pl.DataFrame:
    """Places without the stray quotes and "n/a" that the files hold; an age under 5 or over 100 is an unknown one."""
    if "location" in rows.columns:  # "city, state, country", where the city may hold commas
        parts = pl.col("location").str.split(", ")
        city = parts.list.head(parts.list.len() - 2).list.join(", ")
        rows = rows.with_columns(city=city, state=parts.list.get(-2, null_on_oob=True), country=parts.list.last())
    places = pl.col("city", "state", "country").str.strip_chars(' "').replace(["n/a", ""], [None, None])
    age = pl.col("age").str.strip_chars(' "').replace(["NULL", ""], [None, None])
    known = age.cast(pl.Float64, strict=False).is_between(5, 100).fill_null(value=True)  # no number: for the checks
    columns = ("line", "content", "problem", "user_id", "city", "state", "country", "age")
    return rows.with_columns(places, age=pl.when(known).then(age)).select(columns)
