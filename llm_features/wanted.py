"""Which rows should a feature set have? Every item once; every user at each checkpoint of the history."""

import json
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate, pairwise

import polars as pl

from llm_features.domains import Domain
from llm_features.facts import Attributes, ItemFacts, UserFacts, attributes_of, rating_scale
from llm_features.text import clean
from storage.interactions import Dataset
from storage.schema import EARLIEST, Schema

WANTED: Schema = {
    "entity_id": pl.String,
    "as_of": pl.Int64,  # null where the row is skipped before it has a time
    "n_history": pl.Int32,
    "reason": pl.String,  # why there can be no text; null where there can
}


def checkpoints(n: int, *, first: int = 5, growth: float = 2.0) -> list[int]:
    """Lengths of a history of `n` interactions at which text is written: first, first x growth ... up to `n`.

    With growth 2, every interaction after the first checkpoint finds text that has seen at least half of its history.
    """
    if first < 1 or growth <= 1:
        raise ValueError(f"first must be at least 1 and growth above 1, not {first} and {growth}")
    lengths = []
    length = first
    while length <= n:
        lengths.append(length)
        length = max(length + 1, math.ceil(length * growth - 1e-9))
    return lengths


class ItemRows:
    """One row an item: its text is made of what never changes with time, so it is true from the earliest time on."""

    scale = None

    def __init__(self, dataset: Dataset, domain: Domain) -> None:
        self._domain = domain
        self._titles = [clean(title or "") for title in dataset.items["title"].to_list()]
        self._attributes = attributes_of(dataset.items, dataset.attributes("item"))
        reasons = [None if title else "no title" for title in self._titles]
        ids = dataset.items["item_id"]
        columns = {"entity_id": ids, "as_of": [EARLIEST] * len(ids), "n_history": [0] * len(ids), "reason": reasons}
        self.rows = pl.DataFrame(columns, schema=WANTED)

    def sources(self) -> list[str]:
        """The facts of each row in one unambiguous string."""
        return [_json([title, about]) for title, about in zip(self._titles, self._attributes, strict=True)]

    def facts(self, places: Sequence[int]) -> Iterator[ItemFacts]:
        """The facts of the rows at `places`."""
        for place in places:
            yield ItemFacts(self._domain, self._titles[place], self._attributes[place])


class UserRows:
    """One row a user and checkpoint n, from the first n interactions, of which the last `max_history` are shown.

    `as_of` is the time of the n-th interaction. Interactions are sorted by time, so none that is shown is later.
    """

    def __init__(
        self, dataset: Dataset, domain: Domain, *, first_checkpoint: int, growth: float, max_history: int
    ) -> None:
        self._dataset, self._domain = dataset, domain
        interactions = dataset.interactions
        self._items = interactions["item_id"].to_list()
        self._ratings: list[float | None] = interactions["rating"].fill_nan(None).to_list()
        self.scale = rating_scale(interactions["rating"].fill_nan(None))
        times = interactions["timestamp"].to_list()
        counts = interactions.group_by("user_id").len()
        counts = dataset.users.select("user_id").join(counts, on="user_id", how="left", maintain_order="left")
        lengths = counts["len"].fill_null(0).to_list()
        self._attributes = attributes_of(dataset.users, dataset.attributes("user"))
        self._windows: list[tuple[int, int, int]] = []  # place of the user, first and past-the-last row of the window
        rows: list[tuple[str, int | None, int, str | None]] = []
        ids = dataset.users["user_id"].to_list()
        known = {n: checkpoints(n, first=first_checkpoint, growth=growth) for n in set(lengths)}
        for place, (start, end) in enumerate(pairwise(accumulate(lengths, initial=0))):
            if not known[end - start]:
                rows.append((ids[place], None, end - start, f"fewer than {first_checkpoint} interactions"))
                self._windows.append((place, start, end))
            for n in known[end - start]:
                rows.append((ids[place], times[start + n - 1], n, None))
                self._windows.append((place, start + max(0, n - max_history), start + n))
        self.rows = pl.DataFrame(rows, schema=WANTED, orient="row")

    def sources(self) -> list[str]:
        """The facts of each row in one unambiguous string: items by id, so that a new title leaves users alone."""
        about = [_json(one) for one in self._attributes]
        seen = [f"{len(i)}:{i}={r}" for i, r in zip(self._items, self._ratings, strict=True)]
        return [f"{about[place]}\n{'|'.join(seen[start:end])}" for place, start, end in self._windows]

    def facts(self, places: Sequence[int]) -> Iterator[UserFacts]:
        """The facts of the rows at `places`."""
        of = self._item_facts
        for row in places:
            place, start, end = self._windows[row]
            history = tuple((of[self._items[i]], self._ratings[i]) for i in range(start, end))
            yield UserFacts(self._domain, self._attributes[place], history, self.scale)

    @cached_property
    def _item_facts(self) -> dict[str, ItemFacts]:
        items = ItemRows(self._dataset, self._domain)
        ids = items.rows["entity_id"].to_list()
        return dict(zip(ids, items.facts(range(len(ids))), strict=True))


def _json(value: Attributes | list) -> str:
    return json.dumps(value, ensure_ascii=False)
