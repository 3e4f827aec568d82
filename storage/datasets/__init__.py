"""What must a source of data give? One file here is one source; its name in the configuration is its file name.

Each module exports `Config`, a pydantic model (extra="forbid", frozen=True) of the source's options, and
`read(config) -> RawTables`. A reader only finds fields: it casts nothing, drops nothing and judges nothing. What is
a good row is decided in one place for all of them, `storage.checks`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import BaseModel, model_validator

from storage.interactions import Clock

TimeFormat = Literal["unix_s", "unix_ms", "iso", "position", "file_order"]


class Attribute(BaseModel, extra="forbid", frozen=True):
    """How the text of an attribute column becomes a value of `schema.ATTRIBUTE_TYPES`."""

    type: Literal["category", "integer", "number", "words"] = "category"
    """category: one word (String); integer (Int64); number (Float64); words: several words (List[String])."""
    separator: str | None = None
    """What stands between the words of type "words"."""

    @model_validator(mode="after")
    def _separator_belongs_to_words(self) -> "Attribute":
        if (self.type == "words") != bool(self.separator):
            raise ValueError('a separator is needed by type "words", and by no other type')
        return self


@dataclass(frozen=True)
class RawTable:
    """Rows of one file as they were found.

    rows: `user_id`, `item_id`, `rating`, `timestamp`, `title` where the table has them, and attribute columns; text
    (String) where it still has to be read as a number, a time or words, otherwise typed already. Beside them `line`
    (Int64, 1-based place in the file), `content` (String, the raw line; null: made from the columns when needed) and
    `problem` (String, a reason of `storage.checks.REASONS` the reader itself saw, else null); each may be left out.
    path: the file, or None where the rows were made and not read. expects: what a good line looks like, for messages.
    attributes: how attribute columns of text are to be read; those not named are categories.
    """

    rows: pl.DataFrame
    path: Path | None = None
    expects: str = ""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = self.rows
        if "line" not in rows.columns:
            rows = rows.with_columns(line=pl.int_range(1, pl.len() + 1, dtype=pl.Int64))
        missing = [pl.lit(None, pl.String).alias(name) for name in ("content", "problem") if name not in rows.columns]
        object.__setattr__(self, "rows", rows.with_columns(missing))


@dataclass(frozen=True)
class RawTables:
    """All tables of one source, not yet checked.

    domain: a file of `llm_features/domains`. time_format says how to read `timestamp`; "file_order" where there is
    none, then a row's place among its user's rows in the file stands in. time_zone: of ISO texts that name none
    themselves; without it those are impossible times. rating_range: least and greatest rating that
    can be, where the source defines one. users: None where the source has no table of them; they are then made from
    the interactions. A source without ratings gives no `rating` column. keep_untitled: items without a title are
    kept (their title is null, so no text is written about them); otherwise they are bad rows.
    """

    name: str
    domain: str
    time_format: TimeFormat
    interactions: RawTable
    items: RawTable
    users: RawTable | None = None
    rating_range: tuple[float, float] | None = None
    time_zone: str | None = None
    keep_untitled: bool = False

    @property
    def clock(self) -> Clock:
        """ "time" where timestamps are UTC seconds, "position" where the source only has an order."""
        return "position" if self.time_format in ("position", "file_order") else "time"
