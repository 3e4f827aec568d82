"""Which item came next? A dataset under a protocol, as training sequences and questions with one answer each.

Every row counts, whatever its rating: what a user turned to next is the question, not whether it was liked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from ctr_models.sequential.histories import Histories
from storage.errors import DataError
from storage.interactions import Dataset
from storage.split import ByUser, Sessions, Split, assign

PARTS = ("validation", "test")


@dataclass(frozen=True)
class Queries:
    """Questions: after `history[q]`, user `users[q]` turned to item `target[q]` (int32 [Q])."""

    users: pl.Series
    history: Histories
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.target)

    def sample(self, many: int | None) -> "Queries":
        """At most so many of them, drawn once and for all; all if None."""
        if many is None or len(self) <= many:
            return self
        places = np.sort(np.random.default_rng(0).permutation(len(self))[:many])
        return Queries(self.users[places], self.history.take(places), self.target[places])


@dataclass(frozen=True)
class Sequences:
    """What sequential models learn from and are asked.

    items: external id of every number, `items[0]` is ""; numbers up to `n_known` occur in training rows, the others
    are in the catalogue only (cold). train: one sequence a user; validation and test: at most one query a user;
    counts: int64 [items], training rows of each item. lineage says how they were made; skipped: queries without any
    history, which nobody can answer from a sequence.
    """

    items: pl.Series
    n_known: int
    train: Histories
    queries: Mapping[str, Queries]
    counts: np.ndarray
    lineage: Mapping[str, object] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_items(self) -> int:
        """Items of the catalogue, known and cold."""
        return len(self.items) - 1


def sequences(dataset: Dataset, split: Split, *, lineage: Mapping[str, object] | None = None) -> Sequences:
    """Cut a dataset by a protocol.

    leave_last_out: the last row of a user is the test target, the one before it the validation target. global_time
    and ratio: the first row of a user after each cut is its target, as on the day a model goes live. sessions and
    user: the last row of each held-out user is the target and its other rows are the history. The history of a query
    is everything its user did before the target. Raises ConfigError where the split needs a clock there is not,
    DataError where nothing is left to train on or to ask.
    """
    rows = assign(dataset.interactions, split, clock=dataset.clock)
    known = rows.filter(split="train")["item_id"].unique().sort()
    cold = dataset.items["item_id"].filter(~dataset.items["item_id"].is_in(known.implode())).sort()
    items = pl.concat([pl.Series([""], dtype=pl.String), known, cold]).alias("item_id")
    numbers = pl.DataFrame({"item_id": items, "item": np.arange(len(items), dtype=np.int32)})
    rows = rows.join(numbers, on="item_id", how="left", maintain_order="left")
    item, user = rows["item"].to_numpy(), rows["user_id"].rle_id().to_numpy()
    part, names = rows["split"].to_numpy(), rows["user_id"]
    learned = np.flatnonzero(part == "train")
    train = _by_user(item[learned], user[learned])
    whole = isinstance(split, Sessions | ByUser)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(user)) + 1]) if len(user) else np.zeros(0, np.int64)
    queries, skipped = {}, {}
    for name in PARTS:
        asked = np.flatnonzero(part == name)
        _, first = np.unique(user[asked], return_index=True)
        last = np.concatenate([first[1:], [len(asked)]]) - 1
        target = asked[last if whole else first]
        before = starts[user[target]]
        answerable = target > before
        skipped[name] = int((~answerable).sum())
        target, before = target[answerable], before[answerable]
        if not len(target):
            raise DataError(f"the split {split.kind!r} leaves no {name} target with a history before it")
        history = Histories.of([item[start:end] for start, end in zip(before, target, strict=True)])
        queries[name] = Queries(names[target], history, item[target])
    counts = np.bincount(item[learned], minlength=len(items))
    said = {**(lineage or {}), "split": split.model_dump(mode="json"), "clock": dataset.clock}
    return Sequences(items, len(known), train, queries, counts, said, skipped)


def _by_user(item: np.ndarray, user: np.ndarray) -> Histories:
    starts = np.concatenate([[0], np.flatnonzero(np.diff(user)) + 1, [len(user)]])
    return Histories(item.astype(np.int32), starts.astype(np.int64))
