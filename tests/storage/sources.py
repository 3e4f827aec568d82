"""Small files in the form of each public data set, written by tests."""

import gzip
import json
from pathlib import Path

GENRES = ("Drama", "Comedy|Romance", "Animation|Children's|Comedy", "Sci-Fi")


def write_ml_1m(folder: Path, *, users: int = 20, movies: int = 15, ratings_each: int = 10) -> Path:
    """`::` files in latin-1; user u rates movies u, u+1 ... at one-second steps."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "users.dat").write_bytes(
        b"".join(b"%d::%s::25::%d::%05d\n" % (u, b"MF"[u % 2 :][:1], u % 21, u) for u in range(1, users + 1))
    )
    titles = [f"{m}::Misérables {m}, Les ({1980 + m})::{GENRES[m % 4]}\n" for m in range(1, movies + 1)]
    (folder / "movies.dat").write_bytes("".join(titles).encode("latin-1"))
    lines = [
        f"{u}::{1 + (u + k) % movies}::{1 + (u * k) % 5}::{978_300_000 + 100 * u + k}\n"
        for u in range(1, users + 1)
        for k in range(ratings_each)
    ]
    (folder / "ratings.dat").write_text("".join(lines), encoding="latin-1")
    return folder


def write_json_lines(path: Path, records: list[dict], *, python: bool = False) -> Path:
    """One record a line, as JSON or (like the metadata of 2014) as Python dicts; gzip where the name ends in .gz."""
    text = "".join((repr(r) if python else json.dumps(r)) + "\n" for r in records).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def csv_options(folder: Path, **interactions: object) -> dict:
    """Options of source "csv" for `interactions.csv` and `items.csv` in `folder`."""
    columns = {"user": "user", "item": "item", "rating": "rating", "timestamp": "time", **interactions}
    return {
        "name": "shop",
        "interactions": {"path": folder / "interactions.csv", **{k: v for k, v in columns.items() if v is not None}},
        "items": {"path": folder / "items.csv", "item": "item", "title": "title"},
    }


def write_csv(folder: Path, interactions: str, *, items: str = "item,title\na,A\nb,B\nc,C\n") -> Path:
    """`interactions.csv` and `items.csv` with these texts."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "interactions.csv").write_text(interactions, encoding="utf-8")
    (folder / "items.csv").write_text(items, encoding="utf-8")
    return folder
