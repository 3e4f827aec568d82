"""What may a prompt know about an item or a user? Cleaned facts; never an id, never anything after the checkpoint."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from llm_features.domains import Domain
from llm_features.text import TITLE_LIMIT, clean

Value = str | int | float | tuple[str, ...]
Attributes = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """One item: its title and what else the tables say of it, in the order of the columns."""

    domain: Domain
    title: str
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class UserFacts:
    """One user at a checkpoint.

    history: (item, rating or None), oldest first. best: the end of the rating scale, None without ratings.
    """

    domain: Domain
    attributes: Attributes
    history: tuple[tuple[ItemFacts, float | None], ...]
    best: float | None = None


Facts = ItemFacts | UserFacts


def attributes_of(frame: pl.DataFrame, columns: Sequence[str]) -> list[dict[str, Value]]:
    """The attributes of every row, cleaned: words as they are shown, without those that say nothing."""
    rows: list[dict[str, Value]] = [{} for _ in range(len(frame))]
    for column in columns:
        for row, value in zip(rows, frame[column].to_list(), strict=True):
            said = _value(value)
            if said is not None:
                row[column] = said
    return rows


def attribute_lines(attributes: Attributes) -> list[str]:
    """One line of text for every attribute: "release year: 1995"."""
    return [f"{clean(name.replace('_', ' '))}: {said(value)}" for name, value in attributes.items()]


def said(value: Value) -> str:
    """How a value is written: whole numbers plain, words joined by commas, never longer than a title."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return clean(", ".join(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def rating_scale(ratings: pl.Series) -> float | None:
    """The end of the scale that `ratings` come from: the first of 1, 5, 10, 20, 100 that none is above; None if empty.

    The usual scales and not the greatest rating, so that the first five-star rating of a small dataset changes nothing.
    """
    greatest = ratings.max()
    if not isinstance(greatest, int | float) or math.isnan(greatest):
        return None
    return next((float(end) for end in (1, 5, 10, 20, 100) if greatest <= end), float(greatest))


def _value(value: object) -> Value | None:
    if isinstance(value, str):
        return clean(value, TITLE_LIMIT) or None
    if isinstance(value, list):
        return tuple(word for word in (clean(v) for v in value if v is not None) if word) or None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value
    return None
