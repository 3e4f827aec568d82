"""What is published in the fault tests: an old state, one act that changes it, and what a reader sees.

Nothing here runs polars when it is imported, so that a process which imported it may fork.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from flows.night import nights
from storage import files
from storage.cache import Cache, verify
from storage.catalog import build_catalog, query
from storage.disk import write_sealed
from storage.errors import StoreError
from storage.features import folder, load_features, publish_features
from storage.lock import WriterLock
from storage.schema import FEATURES, REJECTED

SCHEMA = {"key": pl.String, "value": pl.Int64}


@dataclass(frozen=True)
class Publishing:
    """before: makes the old state under a folder; act: publishes; see: what a reader sees, equal for equal states."""

    before: Callable[[Path], object]
    act: Callable[[Path], object]
    see: Callable[[Path], object]


def publish_texts(root: Path, words: str, *, entities: int = 3) -> files.Version:
    """A version of feature set "taste" in which every text says `words` and every vector and number agree with it."""
    ids = [f"u{i}" for i in range(entities)]
    shade = len(words)
    rows = pl.DataFrame(
        [(e, 10, 20, shade, "s", f"k{words}", f"h{e}{words}", f"{e} {words}", 2, False) for e in ids],
        schema=FEATURES,
        orient="row",
    )
    angle = np.array([[np.cos(shade), np.sin(shade)]] * entities, np.float32)
    vectors = pl.DataFrame(
        {"text_hash": rows["text_hash"], "vector": angle},
        schema={"text_hash": pl.String, "vector": pl.Array(pl.Float32, 2)},
    )
    rejected = pl.DataFrame(schema=REJECTED)
    return publish_features(
        root, "taste", entity="user", rows=rows, rejected=rejected, vectors=vectors, encoder="e", lineage={"w": words}
    )


def see_texts(root: Path) -> object:
    """The words of the newest version, or None. Raises AssertionError where its parts are of two versions."""
    if files.latest(folder(root, "taste")) is None:
        return None
    read = load_features(root, "taste")
    said = {text.split(" ", 1)[1] for text in read.rows["text"]}
    words = said.pop()
    assert not said
    assert read.manifest["meta"]["lineage"] == {"w": words}
    assert np.allclose(read.vectors[read.rows["vector_row"].to_numpy()], [np.cos(len(words)), np.sin(len(words))])
    assert set(read.rows["n_history"]) == {len(words)}
    return words


def _cache(root: Path) -> Cache:
    return Cache(root / "texts", SCHEMA, key="key")


def _append(root: Path, *keys: str) -> None:
    _cache(root).append(pl.DataFrame({"key": list(keys), "value": [len(k) for k in keys]}, schema=SCHEMA))


def _see_cache(root: Path) -> object:
    cache = _cache(root)
    if problems := verify(cache.folder):
        raise StoreError(problems[0])
    keys = sorted(cache.keys())
    assert cache.fetch(keys)["value"].to_list() == [len(key) for key in keys]
    return tuple(keys)


def _catalog(root: Path) -> None:
    build_catalog(root, nights=[], runs=[])


def _see_catalog(root: Path) -> object:
    return query(root, "SELECT DISTINCT split_part(text, ' ', 2) FROM taste").item()


def _record(root: Path, status: str) -> None:
    with WriterLock(root, purpose="a night"):
        write_sealed(root / "nights" / "2026-01-01.job.json", {"status": status})


def _texts_and_catalog(root: Path) -> None:
    publish_texts(root, "one")
    _catalog(root)
    publish_texts(root, "three")


PUBLISHINGS = {
    "first version": Publishing(lambda root: None, lambda root: publish_texts(root, "one"), see_texts),
    "next version": Publishing(
        lambda root: publish_texts(root, "one"), lambda root: publish_texts(root, "three"), see_texts
    ),
    "first part": Publishing(lambda root: None, lambda root: _append(root, "a", "bb"), _see_cache),
    "next part": Publishing(lambda root: _append(root, "a", "bb"), lambda root: _append(root, "ccc"), _see_cache),
    "dropped rows": Publishing(
        lambda root: _append(root, "a", "bb", "ccc"), lambda root: _cache(root).drop(["bb"]), _see_cache
    ),
    "catalog": Publishing(_texts_and_catalog, _catalog, _see_catalog),
    "record": Publishing(
        lambda root: _record(root, "failed"), lambda root: _record(root, "completed"), lambda root: nights(root)
    ),
}


def publish_watched(name: str, root: Path, plan: object) -> None:
    """Act with every call given to `plan`; run in a process of its own, which the plan may kill."""
    from tests.faults.calls import watched

    with watched(root, plan):  # type: ignore[arg-type]
        PUBLISHINGS[name].act(root)
