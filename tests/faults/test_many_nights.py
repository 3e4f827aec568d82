"""Night after night in one process: people come and are forgotten, things break, and nothing piles up anywhere."""

import gc
import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest

from flows import learning, recommending, steps, upkeep
from flows.config import RunConfig, load_config
from flows.night import nights, run_night
from flows.verify import verify
from llm_features.engines import template
from storage import files
from storage.cache import parts, read_part
from storage.catalog import path_of
from storage.errors import GenerationError, StoreError
from storage.layout import ENCODER, cache_folders, records, version_folders
from tests.faults.calls import Fail, watched
from tests.flows.test_night import TINY

pytestmark = pytest.mark.slow

ITEMS, AT_FIRST, NEW, DAY = 30, 24, 2, 86_400


def write_world(folder: Path, night: int) -> None:
    """Ratings as they are on a night: everybody who ever came rates an item a day, of a list that grows as well."""
    rng = np.random.default_rng(4)
    n_items, rows = ITEMS + night, []
    for user in range(AT_FIRST + NEW * night):
        for day in range(max(0, (user - AT_FIRST) // NEW), night + 12):
            item = rng.integers(n_items) if day else user % ITEMS
            rows.append((f"u{user:03d}", f"i{item}", 1 + (user + day) % 5, DAY * day + 9 * user))
    ratings = pl.DataFrame(rows, schema=["u", "i", "r", "t"], orient="row").unique(["u", "i"], keep="first")
    ratings.sort("t", "u").write_csv(folder / "r.csv")
    titles = [(f"i{i}", f"Title {i}") for i in range(n_items)]
    pl.DataFrame(titles, schema=["i", "title"], orient="row").write_csv(folder / "i.csv")


def configured(folder: Path) -> RunConfig:
    dataset = f"""source = "csv"
name = "own"
interactions = {{path = "{folder}/r.csv", user = "u", item = "i", rating = "r", timestamp = "t"}}
items = {{path = "{folder}/i.csv", item = "i", title = "title"}}"""
    text = TINY.format(root=folder / "store", users=1).replace('source = "world"\nusers = 1\nitems = 60', dataset)
    (folder / "own.toml").write_text(text)
    return load_config(folder / "own.toml", ["train.epochs=1"])


def work(config: RunConfig) -> dict:
    summary: dict = {"ingest": steps.ingest(config)}
    summary["features"] = [steps.generate(config, name) for name in config.features]
    return summary | learning.train(config) | recommending.recommend_all(config)


def engine_dies(config: RunConfig, attempt: Callable[[], dict]) -> None:
    """After a few answers, for good."""
    real = template.Engine.generate

    def dying(*args: object, **options: object) -> object:
        for place, answer in enumerate(real(*args, **options)):  # type: ignore[arg-type]
            if place == 3:
                raise GenerationError("the engine is gone")
            yield answer

    with patch.object(template.Engine, "generate", dying), pytest.raises(GenerationError, match="is gone"):
        attempt()


def disk_is_full(config: RunConfig, attempt: Callable[[], dict]) -> None:
    """From some call on."""
    with watched(config.store.root, Fail(60, 28, persistent=True)), pytest.raises(StoreError, match="No space left"):
        attempt()


def bit_flips(config: RunConfig, attempt: Callable[[], dict]) -> None:
    """In a part of the cache of texts, on the disk."""
    part = parts(config.store.root / "texts")[0]
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(StoreError, match="is damaged"):
        attempt()
    assert f"set aside texts/{part.name}" in upkeep.repair(config)[0]


def writer_left_something(config: RunConfig, attempt: Callable[[], dict]) -> None:
    """Half a part and half a version, under their temporary names."""
    (config.store.root / "texts" / ".dead.tmp").write_bytes(b"half")
    (config.store.root / "dataset" / ".v000099.dead.tmp").mkdir()


FAULTS = (engine_dies, disk_is_full, bit_flips, writer_left_something)


def open_files() -> list[str]:
    """What this process holds open, pipes and sockets apart."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except FileNotFoundError:  # the listing's own
            continue
    return sorted(link for link in links if link.startswith("/"))


def memory() -> int:
    """Bytes of this process that lie in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def live(root: Path) -> set[Path]:
    """What must be there after a vacuum: the newest versions, the caches, records, and four files of the root."""
    found = {path_of(root), root / "writer.lock", root / "forgotten.json", *records(root)}
    for folder in version_folders(root):
        if (newest := files.latest(folder)) is not None:
            found |= {newest.path / name for name in (*newest.manifest["files"], files.MANIFEST)}
    for folder in cache_folders(root):
        found |= set(parts(folder)) | ({folder / ENCODER} if folder.parent.name == "vectors" else set())
    return found


def named_and_cached(root: Path) -> tuple[set[str], set[str]]:
    """(keys of texts that the newest feature sets name, keys that the cache holds)."""
    named: set[str] = set()
    for folder in (root / "features").iterdir():
        for table in ("features", "rejected"):
            named |= set(files.read_table(files.version(folder), f"{table}.parquet")["text_key"].drop_nulls())
    return named, {key for part in parts(root / "texts") for key in read_part(part, columns=["text_key"])["text_key"]}


def test_night_after_night_nothing_piles_up(tmp_path: Path, count: Callable[[int, int], int]) -> None:
    """Memory within 5 % of what it was after the first third, the same files open, the disk full of what is live."""
    config, root, n_nights = configured(tmp_path), tmp_path / "store", count(6, 30)
    seen: list[tuple[int, list[str]]] = []
    for night in range(n_nights):
        date = f"2026-{1 + night // 28:02d}-{1 + night % 28:02d}"
        write_world(tmp_path, night)

        def attempt(date: str = date) -> dict:
            return run_night(root, "night", date, lambda: work(config), then=lambda: steps.publish_catalog(config))

        if night:
            FAULTS[night % len(FAULTS)](config, attempt)
        done = attempt()
        assert done["already_done"] is False
        assert attempt()["already_done"] is True
        if night % 2:
            assert upkeep.forget(config, f"u{night:03d}")["traces"] == []
        upkeep.vacuum(config, grace_days=0, dry_run=False)

        assert verify(config, users=3)["problems"] == []
        assert {path for path in root.rglob("*") if path.is_file()} | {root / "forgotten.json"} == live(root)
        named, cached = named_and_cached(root)
        assert named == cached
        assert {one["status"] for one in nights(root)} == {"completed"}
        seen.append((memory(), open_files()))

    warm = n_nights // 3
    assert seen[-1][1] == seen[warm][1]
    print("MiB:", *(round(size / 2**20) for size, _ in seen))
    assert max(size for size, _ in seen[warm:]) <= 1.05 * seen[warm][0]
