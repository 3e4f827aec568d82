"""Nights that are killed, writers that race, readers that never stop: nothing is lost, mixed, or paid for twice."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flows.night import nights, run_night
from flows.verify import verify
from storage import files
from storage.cache import parts
from tests.faults.processes import PATIENCE, command, racer, reader, server
from tests.faults.publishing import publish_texts
from tests.flows.test_night import tiny

pytestmark = pytest.mark.slow

SHARD = 16
KILLS_A_NIGHT = 10


def newest(root: Path) -> dict[str, str]:
    """Content hash of the newest version of every table."""
    folders = [root / "dataset", *sorted((root / "features").iterdir())]
    return {folder.name: files.version(folder).content_hash for folder in folders}


def test_killed_at_random_and_resumed(tmp_path: Path, count: Callable[[int, int], int]) -> None:
    """By the real commands: every row once, the same content, at most a shard of prompts paid for again by a kill."""
    processes, rng = server(), np.random.default_rng(8)

    def run(path: Path, *arguments: str, kill_after: float | None = None) -> tuple[int | None, float]:
        started = time.monotonic()
        asked = [*arguments, "-c", str(path), "--set", f"generate.shard_size={SHARD}"]
        process = processes.Process(target=command, args=(asked, path.with_suffix(".sent")))
        process.start()
        process.join(kill_after)
        process.kill() if kill_after is not None else None
        process.join()
        return process.exitcode, time.monotonic() - started

    def sent(path: Path) -> int:
        return path.with_suffix(".sent").stat().st_size if path.with_suffix(".sent").exists() else 0

    (tmp_path / "whole").mkdir()
    whole, config = tiny(tmp_path / "whole", users=150)
    assert run(whole, "ingest")[0] == 0
    exitcode, seconds = run(whole, "generate")
    assert exitcode == 0
    truth, paid = newest(config.store.root), sent(whole)
    assert paid > 3 * SHARD

    died = 0
    for night in range(count(5, 50)):
        (tmp_path / f"{night}").mkdir()
        path, config = tiny(tmp_path / f"{night}", users=150)
        for attempt in range(KILLS_A_NIGHT):
            wanted = "ingest" if attempt == 0 else "generate"
            exitcode, _ = run(path, wanted, kill_after=float(rng.uniform(0, 0.9 * seconds)))
            died += exitcode != 0
            if attempt == 0:
                assert run(path, "ingest")[0] == 0
        assert run(path, "generate")[0] == 0

        assert truth == newest(config.store.root)
        assert sent(path) <= paid + SHARD * KILLS_A_NIGHT
        keys = pl.concat([pl.read_parquet(part)["text_key"] for part in parts(config.store.root / "texts")])
        assert keys.n_unique() == len(keys)
        assert verify(config, users=20 if night == 0 else 0)["problems"] == []
    assert died > 0.5 * KILLS_A_NIGHT * count(5, 50)


def test_of_two_writers_exactly_one_wins(tmp_path: Path, count: Callable[[int, int], int]) -> None:
    races, processes = count(20, 200), server()
    together, results = processes.Barrier(2), processes.Queue()
    writers = [
        processes.Process(target=racer, args=(tmp_path, name, races, together, results)) for name in ("one", "two")
    ]
    for writer in writers:
        writer.start()
    outcomes = dict(results.get(timeout=10 * PATIENCE) for _ in writers)
    for writer in writers:
        writer.join()

    for race, both in enumerate(zip(outcomes["one"], outcomes["two"], strict=True)):
        assert sorted(said == "won" for said in both) == [False, True], f"race {race}: {both}"
        assert any("another writer published" in said for said in both)
    winners = [version.meta["by"] for version in files.versions(tmp_path)]
    assert winners == ["one" if said == "won" else "two" for said in outcomes["one"]]
    assert {path.name for path in tmp_path.iterdir()} == {f"v{n:06d}" for n in range(1, races + 1)}


def test_readers_during_publishes_see_whole_versions(tmp_path: Path, count: Callable[[int, int], int]) -> None:
    publishes, enough, processes = count(25, 500), count(200, 10_000), server()
    publish_texts(tmp_path, "x")
    reads, stop, results = processes.Value("q", 0), processes.Event(), processes.Queue()
    readers = [processes.Process(target=reader, args=(tmp_path, reads, stop, results)) for _ in range(4)]
    for process in readers:
        process.start()
    published = 0
    while (published < publishes or reads.value < enough) and all(process.is_alive() for process in readers):
        publish_texts(tmp_path, "x" * (2 + published % 50))
        published += 1
    stop.set()
    said = [results.get(timeout=PATIENCE) for _ in readers]
    for process in readers:
        process.join()

    assert said == [""] * 4
    assert published >= publishes
    assert reads.value >= enough


def test_a_night_that_died_is_seen_by_the_next_and_blocks_nobody(tmp_path: Path) -> None:
    died = {"pid": 1, "boot": "b", "host": os.uname().nodename, "started": "2026-01-01T02:00:00Z"}
    died |= {"heartbeat": 1_767_232_860, "purpose": "generate-features of 2026-01-01"}
    (tmp_path / "writer.lock").write_text(json.dumps(died))
    run_night(tmp_path, "generate-features", "2026-01-02", dict, then=lambda: None)
    seen = {night["logical_date"]: (night["status"], night["seconds"]) for night in nights(tmp_path)}
    assert seen["2026-01-01"] == ("died", 60.0)
    assert seen["2026-01-02"][0] == "completed"

    again = run_night(tmp_path, "generate-features", "2026-01-01", dict, then=lambda: None)
    assert again["already_done"] is False
    assert {night["status"] for night in nights(tmp_path)} == {"completed"}
