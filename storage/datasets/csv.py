"""How does your own data come in? Csv or Parquet files, with their columns mapped in the configuration.

[dataset]
source = "csv"
name = "shop"
domain = "beauty"
[dataset.interactions]
path = "interactions.csv"
user = "customer"
item = "sku"
rating = "stars"           # leave it out where there are no ratings
timestamp = "bought_at"    # or position = "..." where there is no clock, only an order within each user
time_format = "iso"        # unix_s (default), unix_ms, iso
[dataset.items]
path = "products.parquet"
item = "sku"
title = "name"
attributes.brand = { column = "brand_name" }
attributes.price = { type = "number" }
attributes.tags = { type = "words", separator = "|" }
[dataset.users]            # leave it out where there is no such table: users then come from the interactions
path = "customers.csv"
user = "customer"
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

import polars as pl
from pydantic import BaseModel, Field, field_validator, model_validator

from storage.datasets import Attribute, RawTable, RawTables, TimeFormat
from storage.errors import DataError
from storage.records import Format, read_delimited

_RESERVED = {"user_id", "item_id", "rating", "timestamp", "title", "line", "content", "problem"}


class MappedAttribute(Attribute, frozen=True):
    """An attribute and the column it is in."""

    column: str | None = None
    """The file's column; the attribute's own name where not given."""


class Table(BaseModel, extra="forbid", frozen=True):
    """A file: Parquet where its name ends in .parquet, else text with a header line (it may be gzip)."""

    path: Path
    separator: str = Field(default=",", min_length=1)
    encoding: Literal["utf-8", "latin-1"] = "utf-8"


class Interactions(Table, frozen=True):
    """The file of interactions; one of `timestamp` and `position` orders a user's rows."""

    user: str
    item: str
    rating: str | None = None
    timestamp: str | None = None
    position: str | None = None
    """Whole numbers from 0 that order a user's rows, where there is no clock."""
    time_format: Literal["unix_s", "unix_ms", "iso"] = "unix_s"
    time_zone: str | None = None
    """Zone of ISO texts that name none themselves, as "Europe/Athens"; without it such rows are impossible times."""

    @model_validator(mode="after")
    def _one_order(self) -> "Interactions":
        if (self.timestamp is None) == (self.position is None):
            raise ValueError("give one of timestamp (a clock) and position (an order within each user)")
        return self

    @field_validator("time_zone")
    @classmethod
    def _zone_exists(cls, zone: str | None) -> str | None:
        if zone is not None and zone not in available_timezones():
            raise ValueError(f"no time zone {zone!r}; names are those of the IANA list, as {ZoneInfo('UTC').key!r}")
        return zone


class Entities(Table, frozen=True):
    """What the files of users and of items have in common."""

    attributes: dict[str, MappedAttribute] = {}

    @field_validator("attributes")
    @classmethod
    def _names_are_free(cls, attributes: dict[str, MappedAttribute]) -> dict[str, MappedAttribute]:
        if taken := sorted(_RESERVED & set(attributes)):
            raise ValueError(f"an attribute may not be called {taken[0]!r}; give it another name and map its column")
        return attributes


class Items(Entities, frozen=True):
    """The file of items."""

    item: str
    title: str
    keep_untitled: bool = False
    """Keep items without a title, for models that need no text; otherwise they and their rows go to quarantine."""


class Users(Entities, frozen=True):
    """The file of users."""

    user: str


class Config(BaseModel, extra="forbid", frozen=True):
    """Which files, and which of their columns."""

    name: str
    domain: str = "general"
    """Words and factors of the prompts, a file of llm_features/domains."""
    interactions: Interactions
    items: Items
    users: Users | None = None


def read(config: Config) -> RawTables:
    """The mapped columns of the files. Raises DataError naming a file that cannot be read or lacks a column."""
    of = config.interactions
    order = of.timestamp or of.position or ""
    columns = {"user_id": of.user, "item_id": of.item, "timestamp": order}
    interactions = _table(of, columns if of.rating is None else {**columns, "rating": of.rating})
    items = _table(config.items, {"item_id": config.items.item, "title": config.items.title}, config.items.attributes)
    users = config.users and _table(config.users, {"user_id": config.users.user}, config.users.attributes)
    time_format: TimeFormat = "position" if of.position is not None else of.time_format
    return RawTables(
        name=config.name,
        domain=config.domain,
        time_format=time_format,
        interactions=interactions,
        items=items,
        users=users,
        time_zone=of.time_zone,
        keep_untitled=config.items.keep_untitled,
    )


def _table(table: Table, columns: dict[str, str], attributes: Mapping[str, MappedAttribute] | None = None) -> RawTable:
    attributes = attributes or {}
    columns = columns | {name: attribute.column or name for name, attribute in attributes.items()}
    path = table.path.expanduser()
    if path.suffix == ".parquet":
        expects = f"Parquet with the columns {', '.join(columns.values())}"
        rows = _parquet(path, expects, columns)
    else:
        expects = f"text separated by {table.separator!r} with the columns {', '.join(columns.values())}"
        rows = read_delimited(path, Format(expects, table.separator, table.encoding), columns=columns)
    return RawTable(rows, path, expects, attributes)


def _parquet(path: Path, expects: str, columns: Mapping[str, str]) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; expected {expects}") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}; expected {expects}") from error
    missing = [column for column in columns.values() if column not in frame.columns]
    if missing:
        raise DataError(f"{path} has no column {', '.join(map(repr, missing))}; it has {frame.columns}")
    return frame.select(**{name: pl.col(column) for name, column in columns.items()})
