"""How are Amazon reviews read? McAuley's review and metadata files: one JSON object a line, plain or gzip.

All three editions are read: 2014 (whose metadata lines are Python dicts and no JSON), 2018 and 2023. Which one a file
is, is seen from the fields of its first good line. Sources: He and McAuley 2016; Ni, Li and McAuley 2019; Hou et al.
2024, "Bridging Language and Items for Retrieval and Recommendation".
"""

import ast
import html
import json
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel

from storage.datasets import Attribute, RawTable, RawTables, TimeFormat
from storage.download import SOURCES, fetch_file
from storage.errors import DataError
from storage.records import read_lines

REVIEWS = "one JSON object a line with reviewerID, asin, overall, unixReviewTime (or user_id, parent_asin, rating, ...)"
METADATA = "one JSON object a line with asin (or parent_asin) and title"
_AMOUNT = re.compile(r"\$?\s*(\d[\d,]*(?:\.\d+)?)")


class Config(BaseModel, extra="forbid", frozen=True):
    """One file of reviews and one of metadata."""

    reviews: Path
    """Reviews, as reviews_Beauty_5.json.gz (2014, 2018) or All_Beauty.jsonl.gz (2023)."""
    metadata: Path
    """Metadata, as meta_Beauty.json.gz or meta_All_Beauty.jsonl.gz."""
    name: str = "amazon"
    domain: str = "general"
    """Words and factors of the prompts: "beauty", "books" ... where one fits."""
    attributes: tuple[Literal["brand", "categories", "price", "description"], ...] = ("brand", "categories", "price")
    """Which attributes items get beside the title; each becomes a field of the models and a fact of the prompts."""
    reviewed_only: bool = True
    """Leave out items that have no review: metadata files hold many times more items than a reviews file."""
    keep_untitled: bool = False
    """Keep items without a title, for models that need no text; otherwise they and their rows go to quarantine."""
    download: bool = False
    """Fetch the 2014 Beauty 5-core files to `reviews` and `metadata` where they are not there yet."""


def read(config: Config) -> RawTables:
    """The tables of the two files. Raises DataError naming a file that is missing, empty, cut off or no JSON lines."""
    reviews, metadata = config.reviews.expanduser(), config.metadata.expanduser()
    if config.download:
        for remote, path in zip(SOURCES["amazon-beauty"], (reviews, metadata), strict=True):
            if not path.is_file():
                fetch_file(remote, path)
    rows, time_format = _reviews(reviews)
    items = _items(metadata, config)
    if config.reviewed_only:
        reviewed = pl.col("item_id").is_in(rows["item_id"].drop_nulls().unique().implode())
        if items.select(reviewed.any()).item():  # else the checks say better what is wrong with which file
            nameless = pl.col("item_id").str.strip_chars().fill_null("") == ""  # for the checks, as is a broken line
            items = items.filter(reviewed | nameless | pl.col("problem").is_not_null())
    return RawTables(
        name=config.name,
        domain=config.domain,
        time_format=time_format,
        interactions=RawTable(rows, reviews, REVIEWS),
        items=RawTable(items, metadata, METADATA, {"price": Attribute(type="number")}),
        rating_range=(1, 5),
        keep_untitled=config.keep_untitled,
    )


def _reviews(path: Path) -> tuple[pl.DataFrame, TimeFormat]:
    form: list[str] = []
    older, newer = (
        ["reviewerID", "asin", "overall", "unixReviewTime"],
        ["user_id", "parent_asin", "rating", "timestamp"],
    )

    def fields(record: Mapping[str, Any]) -> tuple:
        if not form:
            form.extend(newer if "user_id" in record else older)
        return tuple(_text(record.get(name)) for name in form)

    columns: dict[str, Any] = dict.fromkeys(("user_id", "item_id", "rating", "timestamp"), pl.String)
    return _table(path, REVIEWS, columns, fields), "unix_ms" if form == newer else "unix_s"


def _items(path: Path, config: Config) -> pl.DataFrame:
    readers: dict[str, tuple[Any, Callable[[Mapping[str, Any]], Any]]] = {
        "brand": (pl.String, lambda r: _text(r.get("brand") or r.get("store"))),
        "categories": (pl.List(pl.String), lambda r: _words(r.get("categories") or r.get("category"))),
        "price": (pl.String, lambda r: _amount(r.get("price"))),
        "description": (pl.String, lambda r: " ".join(_words(r.get("description")))[:2000] or None),
    }
    chosen = {name: readers[name] for name in dict.fromkeys(config.attributes)}

    def fields(record: Mapping[str, Any]) -> tuple:
        title = _text(record.get("title"))
        key = _text(record.get("parent_asin") or record.get("asin"))
        return (key, html.unescape(title) if title else title, *(find(record) for _, find in chosen.values()))

    columns = {"item_id": pl.String, "title": pl.String} | {name: dtype for name, (dtype, _) in chosen.items()}
    return _table(path, METADATA, columns, fields)


def _table(
    path: Path, expects: str, columns: Mapping[str, Any], fields: Callable[[Mapping[str, Any]], tuple]
) -> pl.DataFrame:
    """One row a line; a line that is no object of fields keeps its content and has a problem."""
    rows: list[tuple] = []
    for number, raw in enumerate(read_lines(path, expects=expects), start=1):
        raw = raw.strip()
        if not raw:
            continue
        try:
            record = _record(raw.decode("utf-8"))
        except UnicodeDecodeError:
            record, problem = None, "bad_encoding"
        else:
            problem = "unparsable"
        if record is None:
            rows.append((number, raw[:2000].decode("utf-8", "replace"), problem, *[None] * len(columns)))
        else:
            rows.append((number, None, None, *fields(record)))
    schema = {"line": pl.Int64, "content": pl.String, "problem": pl.String, **columns}
    if not rows:
        raise DataError(f"{path} is empty; expected {expects}")
    return pl.DataFrame(rows, schema=schema, orient="row")


def _record(line: str) -> Mapping[str, Any] | None:
    """The object of a line of JSON, or of a Python literal as in 2014; None where it is neither."""
    try:
        record = json.loads(line)
    except ValueError:
        try:
            with warnings.catch_warnings(action="ignore"):  # of escapes such as \d, which Python keeps as they are
                record = ast.literal_eval(line)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    except RecursionError:
        return None
    return record if isinstance(record, dict) else None


def _text(value: object) -> str | None:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def _words(value: object) -> list[str]:
    """Texts of a text, a list of them, or lists of lists (2014), each once, in order."""
    if isinstance(value, str):
        return [word] if (word := html.unescape(value).strip()) else []
    if isinstance(value, list):
        return list(dict.fromkeys(word for part in value for word in _words(part)))
    return []


def _amount(value: object) -> str | None:
    """A price that is one amount; a range, a text or nothing is an unknown price."""
    match = _AMOUNT.fullmatch(text.strip()) if (text := _text(value)) else None
    return match[1].replace(",", "") if match else None
