"""How is MovieLens read? The `::` files of ml-1m, and the csv files of ml-latest and its sisters.

Which of the two a folder holds is seen from its files. Source: Harper and Konstan 2015, "The MovieLens Datasets:
History and Context", and the README that comes with ml-1m (age bands and occupations).
"""

from pathlib import Path

import polars as pl
from pydantic import BaseModel

from storage.datasets import Attribute, RawTable, RawTables
from storage.download import fetch
from storage.errors import DataError
from storage.records import Format, read_delimited

AGES = {
    "1": "Under 18",
    "18": "18-24",
    "25": "25-34",
    "35": "35-44",
    "45": "45-49",
    "50": "50-55",
    "56": "56+",
}
OCCUPATIONS = (
    "other or not specified",
    "academic/educator",
    "artist",
    "clerical/admin",
    "college/grad student",
    "customer service",
    "doctor/health care",
    "executive/managerial",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "sales/marketing",
    "scientist",
    "self-employed",
    "technician/engineer",
    "tradesman/craftsman",
    "unemployed",
    "writer",
)
GENDERS = {"F": "female", "M": "male"}
DAT_FILES = ("ratings.dat", "movies.dat", "users.dat")
CSV_FILES = ("ratings.csv", "movies.csv")
MOVIES = {"genres": Attribute(type="words", separator="|"), "year": Attribute(type="integer")}


class Config(BaseModel, extra="forbid", frozen=True):
    """A folder of MovieLens files."""

    path: Path
    """The folder that holds ratings.dat, movies.dat, users.dat (ml-1m), or ratings.csv, movies.csv (ml-latest)."""
    download: bool = False
    """Fetch the edition that the folder is named after (ml-1m, ml-latest-small ...) where its files are not there."""


def read(config: Config) -> RawTables:
    """The tables of the folder. Raises DataError listing the files looked for where neither form is there."""
    folder = config.path.expanduser()
    if config.download and not (_has(folder, DAT_FILES) or _has(folder, CSV_FILES)):
        fetch(folder.resolve().name, folder)
    if _has(folder, DAT_FILES):
        return _read_dat(folder)
    if _has(folder, CSV_FILES):
        return _read_csv(folder)
    there = sorted(p.name for p in folder.iterdir())[:20] if folder.is_dir() else "no such folder"
    raise DataError(
        f"{folder} is not a MovieLens folder: looked for {', '.join(DAT_FILES)} (ml-1m) or {', '.join(CSV_FILES)} "
        f"(ml-latest); there is: {there}"
    )


def _has(folder: Path, names: tuple[str, ...]) -> bool:
    return all((folder / name).is_file() for name in names)


def _read_dat(folder: Path) -> RawTables:
    def table(file: str, *names: str, **columns: str) -> RawTable:
        expects = f"lines {'::'.join(names)} in latin-1, as in ml-1m/{file}"
        fmt = Format(expects, separator="::", encoding="latin-1", quotes="none")
        return RawTable(read_delimited(folder / file, fmt, columns=columns, header=names), folder / file, expects)

    ratings = table(
        "ratings.dat",
        *("UserID", "MovieID", "Rating", "Timestamp"),
        user_id="UserID",
        item_id="MovieID",
        rating="Rating",
        timestamp="Timestamp",
    )
    movies = table("movies.dat", "MovieID", "Title", "Genres", item_id="MovieID", title="Title", genres="Genres")
    users = table(
        "users.dat",
        *("UserID", "Gender", "Age", "Occupation", "Zip-code"),
        user_id="UserID",
        gender="Gender",
        age="Age",
        occupation="Occupation",
        zip="Zip-code",
    )
    jobs = {str(i): name for i, name in enumerate(OCCUPATIONS)}
    people = users.rows.with_columns(
        pl.col("gender").replace(GENDERS), pl.col("age").replace(AGES), pl.col("occupation").replace(jobs)
    )
    return RawTables(
        name="ml-1m",
        domain="movies",
        time_format="unix_s",
        interactions=ratings,
        items=_movies(movies),
        users=RawTable(people, users.path, users.expects),
        rating_range=(1, 5),
    )


def _read_csv(folder: Path) -> RawTables:
    def table(file: str, **columns: str) -> RawTable:
        fmt = Format(f"csv in UTF-8 with the columns {', '.join(columns.values())}, as in ml-latest/{file}")
        return RawTable(read_delimited(folder / file, fmt, columns=columns), folder / file, fmt.expects)

    ratings = table("ratings.csv", user_id="userId", item_id="movieId", rating="rating", timestamp="timestamp")
    return RawTables(
        name=folder.resolve().name,
        domain="movies",
        time_format="unix_s",
        interactions=ratings,
        items=_movies(table("movies.csv", item_id="movieId", title="title", genres="genres")),
        rating_range=(0.5, 5),
    )


def _movies(table: RawTable) -> RawTable:
    """With the year, which the title ends with, as a column of its own; the title stays as it is."""
    rows = table.rows.with_columns(
        year=pl.col("title").str.extract(r"\((\d{4})(?:[-–]\d{4}|[-–] ?)?\)\s*$"),
        genres=pl.col("genres").replace({"(no genres listed)": ""}),
    )
    return RawTable(rows, table.path, table.expects, MOVIES)
