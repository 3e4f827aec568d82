"""Tables as they come on bad days: the files of every source, and what can be wrong with one of them.

A file is read into lines of fields, spoilt, and written back in its own form, so that one list of damages serves all.
"""

import gzip
import io
import json
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.storage.test_bad_input import AMAZON, BX, CSV, ML, options_of, write_good

EVERY = 9
"""One good line in so many is spoilt where only some are."""
NOISE = random.Random(11).randbytes(5_000)


@dataclass(frozen=True)
class Table:
    """A file of a source. fields: what its fields hold, in order; `key` is the id of the table's own row.

    separator: between fields; "" for JSON lines, whose fields are called `keys`.
    """

    source: str
    file: str
    fields: tuple[str, ...]
    separator: str = ","
    header: bool = True
    keys: tuple[str, ...] = ()

    @property
    def encoding(self) -> str:
        """Of the good file."""
        return "latin-1" if self.separator == "::" else "utf-8"

    def read(self, folder: Path) -> tuple[list[str], list[list]]:
        """(lines before the first row, the fields of every row)."""
        data = (folder / self.file).read_bytes()
        lines = (gzip.decompress(data) if self.keys else data).decode(self.encoding).splitlines()
        if self.keys:
            return [], [[json.loads(line).get(key) for key in self.keys] for line in lines]
        return lines[: self.header], [line.split(self.separator) for line in lines[self.header :]]

    def line(self, fields: list) -> str:
        """A row as it is written."""
        if self.keys:
            return json.dumps(dict(zip(self.keys, fields, strict=False)))
        return self.separator.join(map(str, fields))

    def write(self, folder: Path, lines: list[str]) -> None:
        """The whole file from its lines, of which a lone surrogate stands for a byte that is no text."""
        data = "".join(f"{line}\n" for line in lines).encode(self.encoding, "surrogateescape")
        (folder / self.file).write_bytes(gzip.compress(data) if self.keys else data)


TABLES = (
    Table(ML, "ratings.dat", ("user", "item", "rating", "time"), "::", header=False),
    Table(ML, "movies.dat", ("key", "title", "words"), "::", header=False),
    Table(ML, "users.dat", ("key", "word", "word", "word", "word"), "::", header=False),
    Table(BX, "BX-Ratings.csv", ("user", "item", "rating")),
    Table(BX, "BX-Books.csv", ("key", "title", "word", "number", "word")),
    Table(BX, "BX-Users.csv", ("key", "word", "word", "word", "age")),
    Table(CSV, "interactions.csv", ("customer", "item", "rating", "time")),
    Table(CSV, "items.csv", ("key", "title")),
    Table(
        AMAZON,
        "reviews.json.gz",
        ("customer", "item", "rating", "time"),
        separator="",
        header=False,
        keys=("reviewerID", "asin", "overall", "unixReviewTime"),
    ),
    Table(AMAZON, "meta.json.gz", ("key", "title"), separator="", header=False, keys=("asin", "title")),
)

VALUES: dict[str, tuple[object, ...]] = {
    "key": ("", "  "),
    "user": ("", " ", "nobody", "-1"),
    "customer": ("", " "),
    "item": ("", " ", "nothing", "-1"),
    "rating": ("", "five", "NaN", "inf", "-inf", "1e999", "4,5", "0x5", "5 stars", "V"),
    "time": ("", "yesterday", "-5", "9" * 12, "9" * 30, "NaN", "1e40", "2001-13-45", "inf"),
    "title": ("", " \t "),
    "number": ("old", "NaN", "inf", "1e999"),
    "age": ("old", "3O"),  # one that nobody can have is an unknown one
}
"""What a field cannot be, by what it holds."""


def bad_lines(table: Table) -> Iterator[tuple[str, Callable[[list], list[str]]]]:
    """(name, a row's fields -> the lines that stand in its place) of every way in which one row can be bad."""
    for place, held in enumerate(table.fields):
        for value in VALUES.get(held, ()):
            yield f"{held} {value!r}", lambda row, at=place, new=value: [table.line([*row[:at], new, *row[at + 1 :]])]
    yield "twice", lambda row: [table.line(row)] * 2
    if table.keys:
        for name, text in (("a list", "[1, 2]"), ("a number", "7"), ("null", "null"), ("deep", "[" * 3000)):
            yield name, lambda row, text=text: [text]
        yield "cut off", lambda row: [table.line(row)[:-7]]
        yield "no text", lambda row: [f"\udcff{table.line(row)}"]
    else:
        yield "a field less", lambda row: [table.line(row[:-1])]
        yield "a field more", lambda row: [table.line([*row, "x"])]
        yield "one word", lambda row: ["rubbish"]
    if table.separator == ",":
        yield "an open quote", lambda row: [table.line([f'"{row[0]}', *row[1:]])]
        yield "no text", lambda row: [table.line([*row[:-1], f"{row[-1]}\udcff"])]


def _packed(kind: str) -> bytes:
    made = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(made, "w") as file:
            file.writestr("../../evil.txt", "evil")
    else:
        with tarfile.open(fileobj=made, mode="w:gz") as file:
            file.addfile(tarfile.TarInfo("../../evil.txt"))
    return made.getvalue()


def whole_files(table: Table) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """(name, what to do to the file's path) of every way in which a whole file can be bad."""
    yield "missing", Path.unlink
    yield "a folder", lambda path: (path.unlink(), path.mkdir())
    yield "a link to nothing", lambda path: (path.unlink(), path.symlink_to("nothing"))
    yield "a link to itself", lambda path: (path.unlink(), path.symlink_to(path))
    contents = {
        "empty": b"",
        "blank lines": b"\n \n\t\n",
        "noise": NOISE,
        "zeros": bytes(3000),
        "a web page": b"<!DOCTYPE html>\n<html><head><title>404</title></head>\n<body>Not found</body></html>\n",
        "one number": b"7",
        "Parquet": b"PAR1" + NOISE + b"PAR1",
        "a zip file": _packed("zip"),
        "a tar file": _packed("tar"),
        "half a gzip file": gzip.compress(NOISE)[:2000],
        "a gzip head": b"\x1f\x8b\x08",
        "UTF-16": ("a,b,c,d\n" * 50).encode("utf-16"),
        "UTF-32": ("a,b,c,d\n" * 50).encode("utf-32-le"),
        "separators": b"::,;\t|" * 500 + b"\n",
        "JSON": json.dumps({"rows": [1, 2, 3]}).encode(),
    }
    for name, data in contents.items():
        yield name, lambda path, data=data: path.write_bytes(data)
    yield "its own name", lambda path: path.write_text(f"{path}\n")


def spoilt_files(source: str) -> Iterator[tuple[str, Table, Callable[[Path], object], bool]]:
    """(name, the table, spoil(folder of good files), whether only some of its rows are bad) of a source's tables."""
    for table in (table for table in TABLES if table.source == source):
        for name, spoil in whole_files(table):
            yield f"{table.file}: {name}", table, lambda folder, s=spoil, t=table: s(folder / t.file), False
        for name, change in bad_lines(table):
            for some in (False, True):

                def spoil(folder: Path, table: Table = table, change: Callable = change, some: bool = some) -> None:
                    head, rows = table.read(folder)
                    lines = [
                        change(row) if not some or place % EVERY == 1 else [table.line(row)]
                        for place, row in enumerate(rows)
                    ]
                    table.write(folder, [*head, *(line for one in lines for line in one)])

                yield f"{table.file}: {'some rows' if some else 'every row'} {name}", table, spoil, some


def good_files(folder: Path) -> dict[str, str]:
    """Good files of every source under `folder`; source -> the section [dataset] of a run that reads `folder/now`."""
    now = folder / "now"
    sections = {}
    for source in (ML, CSV, AMAZON, BX):
        write_good(source, folder / source)
        sections[source] = f'source = "{source}"\n' + "".join(
            f"{name} = {_toml(value)}\n" for name, value in options_of(source, now).items()
        )
    return sections


def fresh(folder: Path, source: str) -> Path:
    """The good files of a source, copied to where they may be spoilt."""
    now = folder / "now"
    shutil.rmtree(now, ignore_errors=True)
    shutil.copytree(folder / source, now)
    return now


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(one)}" for name, one in value.items()) + "}"
    return json.dumps(str(value))
