"""How do texts and numbers become times? UTC seconds where there is a clock, places in a sequence where there is none.

Every function gives null for what cannot be read; who judges that is `storage.checks`.
"""

import polars as pl

from storage.datasets import RawTables

_EXACT = 2**53  # beyond it a float is not every whole number


def whole_number(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Int64 of whole numbers, also of those written as 978300760.0 or 9.7e8."""
    if dtype.is_integer():
        return column.cast(pl.Int64, strict=False)
    number = column.cast(pl.Float64, strict=False)
    whole = pl.when((number.abs() < _EXACT) & (number == number.floor())).then(number).cast(pl.Int64, strict=False)
    return whole if dtype.is_float() else pl.coalesce(column.cast(pl.Int64, strict=False), whole)


def seconds(name: str, dtype: pl.DataType, tables: RawTables) -> pl.Expr:
    """Int64 of a time column: UTC seconds by `tables.time_format`, or a place in the user's sequence."""
    column = pl.col(name)
    if isinstance(dtype, pl.Datetime | pl.Date):
        return _instants(column, dtype, tables.time_zone)
    if tables.time_format == "iso":
        return _iso(column.cast(pl.String), tables.time_zone)
    number = whole_number(column, dtype)
    return number // 1000 if tables.time_format == "unix_ms" else number


def _instants(column: pl.Expr, dtype: pl.Datetime | pl.Date, zone: str | None) -> pl.Expr:
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return column.dt.epoch("s")
    return _local(column.cast(pl.Datetime("us")), zone)


def _iso(text: pl.Expr, zone: str | None) -> pl.Expr:
    """ISO 8601: `2024-03-01`, `2024-03-01 10:30`, `2024-03-01T10:30:05.25Z`, `2024-03-01T10:30:05+0200` ..."""
    text = (
        text.str.replace(r"^(\d{4}-\d{2}-\d{2})[Tt]", "$1 ")
        .str.replace(r"[Zz]$", "+00:00")
        .str.replace(r" ?([+-]\d{2}):?(\d{2})$", "$1:$2")
        .str.replace(r"^(.{10} .*[+-]\d{2})$", "$1:00")
        .str.replace(r"^(\d{4}-\d{2}-\d{2})$", "$1 00:00:00")
        .str.replace(r"^(.{10} \d{2}:\d{2})([+-]|$)", "$1:00$2")
    )
    zoned = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", strict=False, time_unit="us").dt.epoch("s")
    return pl.coalesce(zoned, _local(text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us"), zone))


def _local(column: pl.Expr, zone: str | None) -> pl.Expr:
    """Seconds of wall-clock times in `zone`: the earlier of two in autumn, null for an hour that spring leaves out."""
    if zone is None:
        return pl.lit(None, pl.Int64)
    return column.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.epoch("s")
