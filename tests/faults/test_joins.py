"""Random timelines against a naive reference: no label finds a text that is as of its time or later."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from storage.datasets import csv
from storage.features import FeatureSet
from storage.ingest import ingest
from storage.schema import EARLIEST, FEATURES
from storage.snapshot import join_as_of

Fact = tuple[str, int, int, int]
"""(entity, as_of, created_at, n_history)."""


def timeline(user: str, rng: np.random.Generator) -> tuple[list[Fact], list[tuple[str, int]]]:
    """Texts and labels of one user at few instants, so that equal times are the rule; some backfilled, some late."""
    instants = int(rng.integers(1, 15))
    facts: dict[tuple[int, int], Fact] = {}
    for _ in range(rng.integers(0, 14)):
        as_of = EARLIEST if rng.random() < 0.1 else int(rng.integers(instants))
        late = int(rng.integers(-3, 20)) if rng.random() < 0.5 else 0
        facts.setdefault((as_of, n := int(rng.integers(4))), (user, as_of, max(0, as_of) + late, n))
    labels = [(user, int(rng.integers(instants + 2))) for _ in range(rng.integers(1, 12))]
    return list(facts.values()), labels


def naive(facts: list[tuple[int, Fact]], when: int, *, known_at: bool) -> int:
    """Row of the greatest (as_of, n_history) strictly before `when`, by looking at every one, or -1."""
    best, row = (EARLIEST - 1, -1), -1
    for place, (_, as_of, created, n) in facts:
        if as_of < when and (created < when or not known_at) and (as_of, n) > best:
            best, row = (as_of, n), place
    return row


def test_random_timelines(count: Callable[[int, int], int]) -> None:
    rng = np.random.default_rng(3)
    n = count(500, 10_000)
    for start in range(0, n, 500):
        lives = {f"u{i}": timeline(f"u{i}", rng) for i in range(start, start + 500)}
        facts = [fact for told, _ in lives.values() for fact in told]
        order = rng.permutation(len(facts))
        facts = [facts[place] for place in order]
        labels = [label for _, asked in lives.values() for label in asked]
        rows = pl.DataFrame(
            [(e, a, c, n, "s", "k", f"h{i}", "t", 1, False) for i, (e, a, c, n) in enumerate(facts)],
            schema=FEATURES,
            orient="row",
        ).with_columns(vector_row=pl.int_range(pl.len(), dtype=pl.Int32))
        feature = FeatureSet("taste", "user", 1, rows, np.zeros((len(facts), 2)), "e", {})
        samples = pl.DataFrame(labels, schema=["user_id", "timestamp"], orient="row").sort("timestamp")
        own: dict[str, list[tuple[int, Fact]]] = {}
        for place, fact in enumerate(facts):
            own.setdefault(fact[0], []).append((place, fact))
        for known_at in (False, True):
            joined = join_as_of(samples, feature, known_at=known_at)
            assert samples["user_id"].equals(joined["user_id"])
            for user, when, row in joined.select("user_id", "timestamp", "taste_row").iter_rows():
                assert row == naive(own.get(user, []), when, known_at=known_at)
                assert row < 0 or facts[row][1] < when
                assert row < 0 or not known_at or facts[row][2] < when


def test_instants_written_in_any_zone_are_one_order(tmp_path: Path) -> None:
    """The same 400 instants, written in eight zones with daylight saving and with offsets, come out as they are."""
    rng = np.random.default_rng(4)
    zones = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia")
    first = datetime(2024, 10, 26, tzinfo=UTC)
    instants = [first + timedelta(seconds=int(s)) for s in rng.integers(0, 3 * 86_400, 400)]
    written = [when.astimezone(ZoneInfo(zones[i % len(zones)])).isoformat() for i, when in enumerate(instants)]
    lines = "".join(f"u{i % 7},a,{1 + i % 5},{text}\n" for i, text in enumerate(written))
    (tmp_path / "r.csv").write_text("user,item,stars,at\n" + lines)
    (tmp_path / "i.csv").write_text("item,title\na,A\n")
    options = {
        "name": "zones",
        "interactions": {
            "path": tmp_path / "r.csv",
            "user": "user",
            "item": "item",
            "rating": "stars",
            "timestamp": "at",
            "time_format": "iso",
        },
        "items": {"path": tmp_path / "i.csv", "item": "item", "title": "title"},
    }
    rows = ingest("csv", csv.Config.model_validate(options)).dataset.interactions

    true = {line + 2: int(when.timestamp()) for line, when in enumerate(instants)}
    assert {row: true[row] for row in rows["source_row"]} == dict(rows.select("source_row", "timestamp").iter_rows())
    assert len(rows) > 390  # the same user and second twice is a duplicate
