"""What is a dataset? Interactions, users, items, a clock, and the history before a time."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from storage.errors import DataError
from storage.schema import INTERACTIONS, ITEMS, USERS, check

Clock = Literal["time", "position"]


@dataclass(frozen=True)
class Dataset:
    """Canonical tables of one domain, checked where they are made.

    interactions: columns of `schema.INTERACTIONS`, sorted by (user_id, timestamp, source_row) whatever order came in.
    users, items: `user_id` / `item_id`, `title`, and attribute columns of the types `schema.ATTRIBUTE_TYPES`.
    clock: "time" where timestamps are UTC seconds, "position" where the source only has an order.
    domain: name of the words and factors that prompts use (a file of `llm_features/domains`).

    Raises DataError where a table breaks its schema, an id repeats, or an interaction names an unknown user or item.
    """

    name: str
    domain: str
    clock: Clock
    interactions: pl.DataFrame
    users: pl.DataFrame
    items: pl.DataFrame

    def __post_init__(self) -> None:
        rows = check(self.interactions, INTERACTIONS, table="interactions")
        users = check(self.users, USERS, table="users", extra=True).sort("user_id")
        items = check(self.items, ITEMS, table="items", extra=True).sort("item_id")
        for table, frame, key in (("users", users, "user_id"), ("items", items, "item_id")):
            repeated = frame.filter(pl.col(key).is_duplicated())
            if len(repeated):
                raise DataError(f"table {table!r} holds {key} {repeated[key][0]!r} more than once")
            unknown = rows.join(frame, on=key, how="anti")
            if len(unknown):
                raise DataError(f"interactions name {key} {unknown[key][0]!r}, which table {table!r} does not hold")
        rows = rows.sort("user_id", "timestamp", "source_row")
        object.__setattr__(self, "interactions", rows)
        object.__setattr__(self, "users", users)
        object.__setattr__(self, "items", items)

    def attributes(self, side: Literal["user", "item"]) -> list[str]:
        """Names of the attribute columns of users, or of items (without the id and the title)."""
        frame = self.users if side == "user" else self.items
        return [name for name in frame.columns if name not in ("user_id", "item_id", "title")]


def history_lengths(interactions: pl.DataFrame) -> np.ndarray:
    """How many of the same user's rows are STRICTLY earlier than each row; int32, shape [rows].

    `interactions` is sorted by (user_id, timestamp, source_row). Rows of one instant do not see each other, so a
    feature built from the first `n` rows of that user can never have seen its label.
    """
    ranks = interactions.select(pl.col("timestamp").rank("min").over("user_id").cast(pl.Int32) - 1)
    return ranks.to_series().to_numpy()
