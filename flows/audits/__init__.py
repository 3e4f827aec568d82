"""What may a data root give away that was not known at the time? One file here is one theme of leaks.

Each module exports `CHECKS`, a tuple of functions; a check takes an `Audited` and yields one sentence for each leak it
finds, with the rows that show it. A check that has nothing to look at yields nothing.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from ctr_models.sequential.sequences import Sequences
from ctr_models.sequential.train import Run as SequentialRun
from ctr_models.train import Run
from llm_features.text import clean
from storage.interactions import Dataset
from storage.plugins import available
from storage.snapshot import Snapshot


@dataclass(frozen=True)
class Life:
    """One user's interactions in order: times, titles as prompts show them, ratings."""

    times: list[int] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    ratings: list[float | None] = field(default_factory=list)


@dataclass(frozen=True)
class Audited:
    """What is audited.

    snapshot: samples, split, data and feature sets as models get them. prompts: columns of `schema.PROMPTS`, those of
    the feature sets. runs: name -> a trained run. time_split: whether the split cuts the world at one moment.
    """

    snapshot: Snapshot
    prompts: pl.DataFrame
    runs: Mapping[str, Run]
    time_split: bool
    retrievers: Mapping[str, SequentialRun] = field(default_factory=dict)
    sequences: Sequences | None = None

    @property
    def dataset(self) -> Dataset:
        """The data."""
        return self.snapshot.dataset

    @property
    def samples(self) -> pl.DataFrame:
        """The labelled rows."""
        return self.snapshot.samples

    @property
    def known_at(self) -> bool:
        """Whether a text must have existed before its label."""
        rules = self.snapshot.lineage.get("labels")
        return bool(rules["known_at"]) if isinstance(rules, Mapping) else False

    @cached_property
    def train(self) -> pl.DataFrame:
        """The rows that models learn from."""
        return self.samples.filter(pl.col("split") == "train")

    @cached_property
    def messages(self) -> dict[str, str]:
        """source_hash -> the messages as they were sent, as JSON."""
        return dict(self.prompts.select("source_hash", "messages").iter_rows())

    @cached_property
    def lives(self) -> dict[str, Life]:
        """Every user's interactions."""
        titles = dict(self.dataset.items.select("item_id", "title").iter_rows())
        lives = {user: Life() for user in self.dataset.users["user_id"]}
        rows = self.dataset.interactions.select("user_id", "item_id", "timestamp", "rating")
        for user, item, when, rating in rows.iter_rows():
            lives[user].times.append(when)
            lives[user].titles.append(clean(titles[item] or ""))
            lives[user].ratings.append(rating)
        return lives


Check = Callable[[Audited], Iterator[str]]


def findings(audited: Audited) -> list[str]:
    """Every leak that any check finds, each begun with the check's name."""
    found = []
    for module in available(importlib.import_module(__name__)):
        for check in importlib.import_module(f"{__name__}.{module}").CHECKS:
            found += [f"{check.__name__}: {said}" for said in check(audited)]
    return found


def shown(rows: pl.DataFrame, *columns: str) -> str:
    """How many rows, and the first of them."""
    first = ", ".join(f"{name} {value!r}" for name, value in rows.select(columns).row(0, named=True).items())
    return f"{len(rows)} rows, the first with {first}"
