"""Which rows does a text file hold, and on which line does each begin?

Files are split here and not by a CSV library, so that every row keeps its line number and its raw content, and a
broken line is one bad row and never a broken file. Only lines with quotes are parsed one by one (by Python's `csv`);
all the others are split by polars at once.
"""

import contextlib
import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from storage.errors import DataError

Quotes = Literal["none", "double", "backslash"]
"""How a quote inside a quoted field is written: fields are never quoted; as `""`; as `\\"`."""

_WIDE = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_LONGEST_RECORD = 100  # lines of one quoted field; beyond it the quote is taken for a stray one
_MOST_STRAYS = 1000  # in one file; then no further record is looked for beyond its line
_ROOM, _PACKED = 1 << 30, 100  # a gzip file may hold so many bytes, or so many times its own
_BLOCK = 1 << 28  # characters given to polars as one string; it holds less than 4 GiB in one


@dataclass(frozen=True)
class Format:
    """How the rows of a text file are written, and what a good file looks like, for messages."""

    expects: str
    separator: str = ","
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    quotes: Quotes = "double"


def read_delimited(
    path: Path, fmt: Format, *, columns: Mapping[str, str], header: Sequence[str] | None = None
) -> pl.DataFrame:
    """All rows as text (String; null where the row has no such field), with `line`, `content` and `problem`.

    columns: name of a column of the result -> name of the file's column. header: the file's columns in order where it
    has no header line. A row with too few or too many fields, or a quote that never closes, has the problem
    "unparsable"; bytes that are no text in the file's encoding have "bad_encoding". Blank lines are not rows.
    Raises DataError naming the file: missing, empty, binary, in another encoding, a cut-off gzip file, or a header
    that lacks a column.
    """
    text, damaged = _decode(_read(path, fmt), fmt)
    blocks = [pl.Series("content", [block]).str.split("\n").explode() for block in _blocks(text)]
    content = pl.concat(blocks).str.strip_suffix("\r")
    lines = content.to_frame().with_columns(line=pl.int_range(1, pl.len() + 1, dtype=pl.Int64))
    if header is None:
        header, lines = _header(path, fmt, lines, sorted(set(columns.values())))
    rows = _split(lines, fmt, len(header))
    if damaged:
        broken = pl.col("content").str.contains("\ufffd", literal=True)
        rows = rows.with_columns(problem=pl.when(broken).then(pl.lit("bad_encoding")).otherwise("problem"))
    chosen = {name: pl.col(f"field_{header.index(source)}") for name, source in columns.items()}
    return rows.select("line", "content", "problem", **chosen)


def _read(path: Path, fmt: Format) -> bytes:
    """The bytes of a file, unpacked where it is gzip."""
    with _naming(path, fmt.expects):
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = _unpacked(path, room=max(_ROOM, _PACKED * len(data)))
    _look_at(data[: 1 << 16], path, fmt.expects, separator=fmt.separator)
    return data


def _unpacked(path: Path, *, room: int) -> bytes:
    data = bytearray()
    with gzip.open(path) as file:
        while chunk := file.read(1 << 22):
            data += chunk
            if len(data) > room:
                raise DataError(f"{path} unpacks to more than {room:,} bytes, which no table of text does")
    return bytes(data)


def read_lines(path: Path, *, expects: str) -> Iterator[bytes]:
    """The lines of a file as bytes, one at a time, unpacked where it is gzip.

    Raises DataError naming the file: missing, empty, binary, in UTF-16, or a cut-off gzip file.
    """
    with _naming(path, expects):
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            start = file.peek(1 << 16)[: 1 << 16]
            _look_at(start, path, expects)
            yield from file


@contextlib.contextmanager
def _naming(path: Path, expects: str) -> Iterator[None]:
    """Turn what the system and gzip say of a file into a DataError that names it."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; expected a file: {expects}")
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; expected a file: {expects}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a damaged or cut-off gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _look_at(start: bytes, path: Path, expects: str, *, separator: str = "") -> None:
    """Refuse an empty file, UTF-16 and what is no text at all, from the first 64 KiB."""
    if not start.strip():
        raise DataError(f"{path} is empty; expected {expects}")
    if start[:2] in _WIDE:
        raise DataError(f"{path} is text in {_WIDE[start[:2]]}; save it as UTF-8. Expected {expects}")
    control = sum(start.count(byte) for byte in {*range(9), 11, 12, *range(14, 32)} - set(separator.encode()))
    if control > 0.05 * len(start):
        what = "text in UTF-16" if start.count(0) > 0.4 * len(start) else "a binary file"
        raise DataError(f"{path} is {what}: {control} of its first {len(start)} bytes are no text. Expected {expects}")


def _decode(data: bytes, fmt: Format) -> tuple[str, bool]:
    """The text, and whether some bytes were none and became U+FFFD. A "latin-1" file may be in UTF-8 as well."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode("utf-8"), False
    except UnicodeDecodeError:
        return data.decode(fmt.encoding, errors="replace"), fmt.encoding == "utf-8"


def _blocks(text: str) -> Iterator[str]:
    """Pieces of the text that end where a line ends."""
    text = text.removesuffix("\n")
    start = 0
    while start < len(text) or start == 0:
        end = text.find("\n", start + _BLOCK)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1


def _header(path: Path, fmt: Format, lines: pl.DataFrame, needed: Sequence[str]) -> tuple[list[str], pl.DataFrame]:
    """Column names from the first line that is not blank, and the lines after it."""
    first = int((lines["content"].str.strip_chars() != "").arg_true()[0])
    names = [name.strip() for name in _fields(lines["content"][first], fmt) or [lines["content"][first]]]
    missing = [name for name in needed if name not in names]
    if missing:
        raise DataError(
            f"{path} line {first + 1}: the header has no column {', '.join(map(repr, missing))}; it has {names} when "
            f"split at {fmt.separator!r}. Expected {fmt.expects}"
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{path} line {first + 1}: the header names {', '.join(map(repr, repeated))} more than once")
    return names, lines[first + 1 :]


def _split(lines: pl.DataFrame, fmt: Format, n_fields: int) -> pl.DataFrame:
    """`line`, `content`, `problem` and the texts `field_0` ... of every row."""
    quoted, consumed = _quoted(lines, fmt, n_fields) if fmt.quotes != "none" else ([], [])
    plain = lines.filter(pl.col("content").str.strip_chars() != "")
    if consumed:
        plain = plain.filter(~pl.col("line").is_in(pl.Series(consumed, dtype=pl.Int64).implode()))
    columns = [f"field_{i}" for i in range(n_fields + 1)]  # the last one is there to notice a field too many
    fields = pl.col("content").str.split_exact(fmt.separator, n_fields).struct.rename_fields(columns).alias("fields")
    plain = plain.with_columns(fields).unnest("fields")
    schema = {"content": pl.String, "line": pl.Int64, **dict.fromkeys(columns, pl.String)}
    rows = pl.concat([plain.select(*schema), pl.DataFrame(quoted, schema=schema, orient="row")]).sort("line")
    whole = pl.col(columns[-2]).is_not_null() & pl.col(columns[-1]).is_null()
    return rows.with_columns(problem=pl.when(~whole).then(pl.lit("unparsable")))


def _quoted(lines: pl.DataFrame, fmt: Format, n_fields: int) -> tuple[list[tuple], list[int]]:
    """Records that hold a quote, as rows (content, line, fields...), and the numbers of all lines they took."""
    places = lines["content"].str.contains('"', literal=True).arg_true().to_list()
    contents = lines["content"]
    first_line = int(lines["line"][0]) if len(lines) else 1
    rows, consumed = [], []
    free = strays = 0
    for place in places:
        if place < free:
            continue
        record, end = contents[place], place + 1
        fields = _fields(record, fmt)
        longest = min(len(contents), place + (_LONGEST_RECORD if strays < _MOST_STRAYS else 0))
        while fields is None and end < longest:
            record = f"{record}\n{contents[end]}"
            end += 1
            fields = _fields(record, fmt)
        if fields is None or (end > place + 1 and len(fields) != n_fields):  # a stray quote spoils its own line only
            record, end, fields, strays = contents[place], place + 1, [], strays + 1
        cells = [*fields[: n_fields + 1], *[None] * (n_fields + 1 - len(fields))]
        rows.append((record, first_line + place, *cells))
        consumed.extend(range(first_line + place, first_line + end))
        free = end
    return rows, consumed


def _fields(record: str, fmt: Format) -> list[str] | None:
    """Fields of one record; [] where its quotes make no sense; None where a quoted field is still open at its end."""
    if '"' not in record or fmt.quotes == "none":
        return record.split(fmt.separator)
    escaped = fmt.quotes == "backslash"
    dialect = {"doublequote": not escaped, "escapechar": "\\" if escaped else None, "strict": True}
    try:
        return next(csv.reader([record], delimiter=fmt.separator, **dialect))
    except csv.Error as error:
        return None if "unexpected end" in str(error) else []
