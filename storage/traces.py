"""Does anything in a data root still speak of a person? Every byte is searched, compressed contents unpacked.

An id that is only a short number ("42") stands in many places that mean something else: of such an id only values of
columns and keys that hold user ids count. Any other id counts wherever it stands as a word of its own.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from storage.disk import reading
from storage.forget import alone

_SHORT = re.compile(r"\d{1,5}")


def traces(root: Path, user_id: str, texts: Sequence[str]) -> tuple[int, list[str]]:
    """(files searched, one sentence for each that holds the id or one of `texts`). Raises StoreError."""
    searched, found = 0, []
    telling = _SHORT.fullmatch(user_id) is None
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        searched += 1
        with reading(path):
            data = path.read_bytes()
        contents = [data.decode("latin-1"), data.decode("utf-8", "replace"), *_unpacked(path, data)]
        if any(text in content for text in texts for content in contents):
            found.append(f"{path} holds a text of this person")
        named = any(_named(user_id, content) for content in contents) if telling else False
        if named or user_id in _user_values(path, data):
            found.append(f"{path} holds the id")
    return searched, found


def _named(user_id: str, content: str) -> bool:
    start = content.find(user_id)
    while start >= 0:
        if alone(content, start, start + len(user_id)):
            return True
        start = content.find(user_id, start + 1)
    return False


def _unpacked(path: Path, data: bytes) -> Iterator[str]:
    """What is in a compressed or escaped file, as text, a line a value."""
    if path.suffix == ".parquet":
        for column in pl.read_parquet(data).iter_columns():
            if column.dtype == pl.List(pl.String):
                column = column.explode()
            if column.dtype == pl.String:
                values = column.drop_nulls().unique()
                yield "\n".join(values)
                yield "\n".join(_said(value) for value in values if value[:1] in "[{")
    elif path.suffix == ".duckdb":
        yield "\n".join(str(row) for rows in _tables(path).values() for row in rows)
    elif path.suffix == ".json":
        yield json.dumps(json.loads(data), ensure_ascii=False)


def _said(text: str) -> str:
    """The strings of a JSON text as they read unescaped; the text itself where it is none."""
    try:
        return "\n".join(_strings(json.loads(text)))
    except ValueError:
        return text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for one in value:
            yield from _strings(one)
    elif isinstance(value, str):
        yield value


def _user_values(path: Path, data: bytes) -> set[str]:
    """Values of the columns and keys that hold user ids."""
    if path.suffix == ".parquet":
        frame = pl.read_parquet(data)
        about_users = "n_history" not in frame.columns or bool((frame["n_history"] > 0).any())
        columns = ["user_id", "entity_id"] if about_users else ["user_id"]
        return {value for name in columns if name in frame.columns for value in frame[name].drop_nulls()}
    if path.suffix == ".json":
        return set(_of_users(json.loads(data)))
    return set()


def _of_users(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if value.get("name") == "user.user_id":
            yield from map(str, value.get("values", ()))
        for key, one in value.items():
            if key == "user_id" and isinstance(one, str):
                yield one
            yield from _of_users(one)
    elif isinstance(value, list):
        for one in value:
            yield from _of_users(one)


def _tables(path: Path) -> dict[str, list[tuple]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        names = connection.sql("SELECT table_name FROM duckdb_tables()").fetchall()
        return {name: connection.sql(f'SELECT * FROM "{name}"').fetchall() for (name,) in names}
