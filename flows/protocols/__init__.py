"""Which labels and which split does a published protocol have, and how many rows? One TOML file is one protocol.

A run that names one (`protocol = "rella-ml-1m"`) has its labels and its split, and stops where the data gives other
numbers of rows than the source states: a result under another protocol than the one it names is worse than none.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, PositiveInt

from llm_features import specs
from storage.errors import DataError
from storage.snapshot import Snapshot

FOLDER = Path(__file__).parent


class Protocol(BaseModel, extra="forbid", frozen=True):
    """One protocol."""

    name: str
    source: str
    """The paper, and where in it, or in the authors' code, the protocol and its numbers stand."""
    dataset: str
    """Name of the dataset that it is of."""
    stands_in: str
    """What here differs from the source, and why."""
    labels: dict[str, Any]
    """[labels] of the run."""
    split: dict[str, Any]
    """[split] of the run."""
    rows: dict[Literal["all", "train", "validation", "test"], PositiveInt]
    """How many rows there must be, in all and of each part, as far as they are known."""


def available() -> list[str]:
    """Names of the protocols."""
    return specs.names(FOLDER)


def load(name: str) -> Protocol:
    """The protocol called `name`. Raises ConfigError listing what there is, or saying what is wrong with the file."""
    return specs.read(FOLDER, name, Protocol)


def check(protocol: Protocol, snapshot: Snapshot) -> None:
    """Raise DataError where the snapshot is of another dataset, or has other numbers of rows, than the protocol."""
    ours = snapshot.dataset.name
    if ours != protocol.dataset:
        raise DataError(f"protocol {protocol.name!r} is of dataset {protocol.dataset!r}, but this run reads {ours!r}")
    counts = dict(snapshot.samples.group_by("split").len().iter_rows())
    counts["all"] = len(snapshot.samples)
    wrong = [
        f"{counts.get(part, 0):,} rows in {part} where it has {expected:,}"
        for part, expected in protocol.rows.items()
        if counts.get(part, 0) != expected
    ]
    if wrong:
        raise DataError(
            f"this data is not that of protocol {protocol.name!r} ({protocol.source}): {'; '.join(wrong)}. Take the "
            "edition of the data that it names, or write your own [labels] and [split]"
        )
