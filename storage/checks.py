"""Which rows are bad, and why? One schema for the rows of every source, checked in this one place, column by column.

A row gets the first reason that fits, in the order of `REASONS`; a row without a reason is kept and typed.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from storage.datasets import Attribute, RawTable, RawTables
from storage.errors import DataError
from storage.times import seconds, whole_number

REASONS: Mapping[str, str] = {
    "bad_encoding": "the line holds bytes that are no text in the file's encoding",
    "unparsable": "the line does not have the fields of its file",
    "missing_field": "an id, a rating or a time is empty",
    "missing_title": "an item without a title (keep_untitled = true keeps them, for models that need no text)",
    "bad_number": "a number that does not read as one",
    "not_finite": "a number that is NaN or infinite",
    "rating_out_of_range": "a rating outside the source's scale",
    "impossible_time": "a time that is negative, more than a day in the future, or not readable as a time",
    "duplicate_id": "a user or an item that an earlier line holds already",
    "unknown_user": "the table of users does not hold this user",
    "quarantined_user": "the line of this user is itself in quarantine",
    "unknown_item": "the table of items does not hold this item",
    "quarantined_item": "the line of this item is itself in quarantine",
    "duplicate_interaction": "an earlier line says the same of user, item and time (where there is no time: of both)",
}
"""Every reason a row can be in quarantine for, in the order in which they are looked at."""

DAY = 86_400
LONGEST_CONTENT = 500
"""Characters of a bad row that are kept."""

_OWN = ("line", "content", "problem")


@dataclass(frozen=True)
class Checked:
    """What became of a table: `kept` rows with their types, `bad` ones (`line`, `reason`, `content`), all `ids`."""

    kept: pl.DataFrame
    bad: pl.DataFrame
    ids: pl.Series

    @property
    def n_read(self) -> int:
        """Rows of the file, good and bad."""
        return len(self.kept) + len(self.bad)


def check_entities(table: RawTable, key: str, *, keep_untitled: bool = False) -> Checked:
    """Users (key "user_id") or items (key "item_id", with `title`). Of rows with one id the first good one is kept.

    keep_untitled: an item without a title is a good row with a null title.
    """
    rows = _texts(table, [key, "title"] if key == "item_id" else [key])
    values, reasons = [pl.col(key)], [_because(pl.col(key).is_null(), "missing_field")]
    if key == "item_id":
        values.append(pl.col("title"))
        if not keep_untitled:
            reasons.append(_because(pl.col("title").is_null(), "missing_title"))
    for name in rows.columns:
        if name not in (key, "title", *_OWN):
            value, *why = _attribute(name, rows.schema[name], table.attributes.get(name), table)
            values.append(value.alias(name))
            reasons.extend(why)
    rows = rows.with_columns(reason=pl.coalesce("problem", *reasons))
    again = pl.col("reason").is_null() & ~pl.struct(key, pl.col("reason").is_null()).is_first_distinct()
    rows = rows.with_columns(reason=pl.coalesce("reason", _because(again, "duplicate_id")))
    return Checked(rows.filter(pl.col("reason").is_null()).select(values), _bad(rows), rows[key].unique())


def check_interactions(tables: RawTables, users: Checked | None, items: Checked) -> Checked:
    """Interactions against the users (None: any user will do) and items that were kept.

    The columns of `schema.INTERACTIONS`; `source_row` is the line. Of repeated rows the first is kept.
    """
    table = tables.interactions
    columns = table.rows.schema
    there = [name for name in ("user_id", "item_id", "rating", "timestamp") if name in columns]
    rows = _texts(table, [name for name in there if name.endswith("_id") or columns[name] == pl.String])
    rating, rating_reasons = pl.lit(None, pl.Float32), []
    if "rating" in there:
        rating, rating_reasons = _number("rating", pl.Float32)
        if tables.rating_range is not None:
            rating_reasons.append(_because(~rating.is_between(*tables.rating_range), "rating_out_of_range"))
    clocked = tables.time_format != "file_order"
    when = seconds("timestamp", rows.schema["timestamp"], tables) if clocked else pl.lit(0, pl.Int64)
    latest = int(time.time()) + DAY if tables.clock == "time" else None
    late = when > latest if latest is not None else pl.lit(value=False)
    missing = pl.any_horizontal(pl.col(name).is_null() for name in there)
    rows = rows.with_columns(
        reason=pl.coalesce(
            "problem",
            _because(missing, "missing_field"),
            *rating_reasons,
            _because(when.is_null() | (when < 0) | late, "impossible_time"),
            *(_strangers("user_id", users, "user") if users is not None else []),
            *_strangers("item_id", items, "item"),
        ),
        rating=rating,
        timestamp=when,
        source_row="line",
    )
    good = pl.col("reason").is_null()
    again = good & ~pl.struct("user_id", "item_id", "timestamp", good=good).is_first_distinct()
    rows = rows.with_columns(reason=pl.coalesce("reason", _because(again, "duplicate_interaction")))
    kept = rows.filter(pl.col("reason").is_null())
    if not clocked:
        kept = kept.with_columns(timestamp=pl.int_range(pl.len(), dtype=pl.Int64).over("user_id"))
    kept = kept.select("user_id", "item_id", "rating", "timestamp", "source_row")
    raw = table.rows.sort("line").with_columns(reason=rows["reason"])
    return Checked(kept, _bad(raw), rows["user_id"].unique())


def _because(condition: pl.Expr, reason: str) -> pl.Expr:
    return pl.when(condition).then(pl.lit(reason))


def _texts(table: RawTable, names: Sequence[str]) -> pl.DataFrame:
    """The rows by line, named columns as text without blanks around it; text of nothing but blanks is null."""
    for name in ("user_id", "item_id", "title", "rating", "timestamp"):
        dtype = table.rows.schema.get(name)
        if dtype is not None and (dtype.is_nested() or dtype in (pl.Binary, pl.Object)):
            raise DataError(
                f"{table.path or 'the source'}: column for {name!r} is {dtype}; it must be text or a number"
            )
    text = pl.col(names).cast(pl.String).str.strip_chars()
    return table.rows.sort("line").with_columns(pl.when(text != "").then(text))


def _number(name: str, dtype: type[pl.DataType]) -> tuple[pl.Expr, list[pl.Expr]]:
    """A column as numbers, and the reasons for rows where it is none."""
    value = pl.col(name).cast(pl.Float64, strict=False).cast(dtype)
    bad = value.is_null() & pl.col(name).is_not_null()
    return value, [_because(bad, "bad_number"), _because(~value.is_finite(), "not_finite")]


def _attribute(name: str, dtype: pl.DataType, wanted: Attribute | None, table: RawTable) -> list[pl.Expr]:
    """The attribute's value, then the reasons for rows where it has none. Empty is no value and no reason."""
    text = pl.col(name).cast(pl.String, strict=False).str.strip_chars() if not dtype.is_nested() else pl.col(name)
    column = pl.when(text != "").then(text) if not dtype.is_nested() else text
    kind = wanted.type if wanted is not None else _kind(dtype)
    if kind == "words" and isinstance(dtype, pl.List):
        words = pl.col(name).cast(pl.List(pl.String))
    elif kind == "words" and wanted is not None:
        words = column.str.split(wanted.separator or "|")
    elif kind is None or dtype.is_nested():
        file = table.path or "the source"
        raise DataError(
            f"{file}: the column for attribute {name!r} is {dtype}, which cannot be read as {kind or 'one'}"
        )
    elif kind == "category":
        return [column]
    else:
        number = column.cast(pl.Float64, strict=False)
        value = whole_number(column, pl.String()) if kind == "integer" else number
        infinite = number.is_not_null() & ~number.is_finite()
        unread = value.is_null() & column.is_not_null()
        return [value, _because(infinite, "not_finite"), _because(unread, "bad_number")]
    words = words.list.eval(pl.element().str.strip_chars()).list.eval(pl.element().filter(pl.element() != ""))
    return [words.fill_null(pl.lit([], pl.List(pl.String)))]


def _kind(dtype: pl.DataType) -> str | None:
    """How an attribute is read that was not described: by the type its column has."""
    if dtype.is_integer():
        return "integer"
    if dtype.is_float():
        return "number"
    if isinstance(dtype, pl.List):
        return "words"
    return None if dtype.is_nested() else "category"


def _strangers(column: str, table: Checked, entity: str) -> list[pl.Expr]:
    """Reasons for rows that name an entity which is not in its table, or is there but not kept."""
    kept = pl.col(column).is_in(table.kept[f"{entity}_id"].implode())
    known = pl.col(column).is_in(table.ids.drop_nulls().implode())
    return [_because(~known, f"unknown_{entity}"), _because(~kept, f"quarantined_{entity}")]


def _bad(rows: pl.DataFrame) -> pl.DataFrame:
    """`line`, `reason` and bounded `content` of the rows with a reason."""
    bad = rows.filter(pl.col("reason").is_not_null())
    fields = [name for name in bad.columns if name not in (*_OWN, "reason", "source_row")]
    made = pl.struct(fields).struct.json_encode()
    content = pl.coalesce("content", made).str.head(LONGEST_CONTENT)
    return bad.select("line", "reason", content=content)
