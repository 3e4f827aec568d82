"""A small catalogue in which what comes next is planted, and vectors that tell the item's group."""

import numpy as np
import polars as pl
import pytest
import torch

from ctr_models.sequential.histories import Histories
from ctr_models.sequential.items import ItemText
from ctr_models.sequential.sequences import Queries, Sequences, sequences
from storage.interactions import Dataset
from storage.schema import INTERACTIONS
from storage.split import LeaveLastOut

N_ITEMS, GROUPS, DIM = 30, 5, 12


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def make_histories(*, many: int = 64, seed: int = 0, longest: int = 12) -> Histories:
    """Sequences of 3 to `longest` distinct items in which item i is followed by i + 1 or i + 7."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(many):
        item, sequence = int(random.integers(N_ITEMS)), []
        while item not in sequence and len(sequence) < random.integers(3, longest + 1):
            sequence.append(item)
            item = (item + (1 if random.random() < 0.8 else 7)) % N_ITEMS
        made.append([i + 1 for i in sequence])
    return Histories.of(made)


def make_sequences(*, many: int = 64, seed: int = 0, cold: int = 3) -> Sequences:
    """Training sequences as above; each query asks for the item after one of them. The last numbers are cold."""
    histories = make_histories(many=many, seed=seed)
    whole = [histories[q] for q in range(many)]
    target = np.array([one[-1] for one in whole], np.int32)
    users = pl.Series([f"u{q}" for q in range(many)])
    asked = Queries(users, Histories.of([one[:-1] for one in whole]), target)
    items = pl.Series(["", *(f"i{n:02d}" for n in range(1, N_ITEMS + cold + 1))])
    counts = np.bincount(histories.item, minlength=len(items))
    return Sequences(items, N_ITEMS, histories, {"validation": asked, "test": asked}, counts, {"made": "here"})


def make_text(data: Sequences, *, seed: int = 0, missing: tuple[int, ...] = (4,)) -> ItemText:
    """A vector for each item near that of its group, for cold items too; none for `missing`."""
    random = np.random.default_rng(seed)
    group = np.arange(data.n_items + 1) % GROUPS
    vectors = random.normal(size=(GROUPS, DIM))[group] + 0.3 * random.normal(size=(data.n_items + 1, DIM))
    known = np.ones(data.n_items + 1, bool)
    known[[0, *missing]] = False
    vectors[~known] = 0
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return ItemText((vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32), known)


def make_dataset(rows: list[tuple[str, str, int]], *, clock: str = "time", items: int = 0) -> Dataset:
    """Interactions (user, item, time) in shuffled order; `items` further items nobody touched."""
    frame = pl.DataFrame(
        [(u, i, None, t, place) for place, (u, i, t) in enumerate(rows)], schema=INTERACTIONS, orient="row"
    )
    users = pl.DataFrame({"user_id": sorted({u for u, _, _ in rows})})
    names = sorted({i for _, i, _ in rows} | {f"x{n}" for n in range(items)})
    catalogue = pl.DataFrame({"item_id": names, "title": names})
    shuffled = frame.sample(fraction=1, shuffle=True, seed=3)
    return Dataset("small", "general", clock, shuffled, users, catalogue)  # type: ignore[arg-type]


@pytest.fixture
def last_out() -> Sequences:
    """Three users of 5, 4 and 2 rows under leave-last-out."""
    rows = (
        [("a", f"i{n}", n) for n in range(5)]
        + [("b", f"i{n}", n) for n in range(2, 6)]
        + [("c", "i0", 1), ("c", "i9", 2)]
    )
    with pytest.warns(UserWarning, match="leaks"):
        return sequences(make_dataset(rows, items=1), LeaveLastOut())
