"""Which number stands for each value of each field? Fitted on the past of the training rows, saved with the run.

It also holds what each item is usually rated (`opinions`).

All fields share one embedding table. Row 0 is padding and unknown for every field; a field's own values follow each
other from its `offset`. Fields are derived from the dataset's columns: the id and every attribute of users and items,
the rating of each history element, and how many items the history held, liked and disliked.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import polars as pl

from ctr_models.opinions import Usual, fit_usual
from storage.errors import ConfigError, StoreError
from storage.interactions import Dataset

Side = Literal["user", "item", "history"]
Kind = Literal["category", "list", "number", "count", "share"]

COUNT_STEPS, COUNT_MAX = 2, 40
SHARE_BUCKETS = 20
MAX_BUCKETS = 50
COUNTS = ("liked", "disliked", "length")
RATING = "history.rating"


@dataclass(frozen=True)
class Field:
    """One field and its values.

    name: "user.age", "item.genres", "history.liked"; kind: one value of a list (category), several (list), the bucket
    of a number, the logarithmic bucket of a count, the even bucket of a share in [0, 1]. offset: embedding row of the
    first value. values: of category and list; edges: ascending lower edges of all buckets but the first, of number.
    """

    name: str
    side: Side
    kind: Kind
    offset: int
    values: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """How many embedding rows the field has (row 0 is not its own)."""
        if self.kind == "count":
            return COUNT_MAX + 1
        if self.kind == "share":
            return SHARE_BUCKETS + 1
        return len(self.edges) + 1 if self.kind == "number" else len(self.values)

    @property
    def column(self) -> str:
        """The column of the users, items or interactions table the field was made from."""
        return self.name.split(".", 1)[1]

    def encode(self, column: pl.Series) -> np.ndarray:
        """Embedding rows, int32: shape [rows], or [rows, longest list] padded with 0. Unknown and missing are 0."""
        if self.kind == "list":
            return self._encode_lists(column)
        if self.kind == "category":
            return self._lookup(column)
        return self.bucket(column.cast(pl.Float64).to_numpy())

    def bucket(self, values: np.ndarray) -> np.ndarray:
        """Embedding rows (int32) of the numbers of a number, count or share field; 0 where they are not finite."""
        if self.kind == "number":
            bucket = np.searchsorted(np.asarray(self.edges), values, side="right")
        elif self.kind == "count":
            bucket = np.minimum(np.floor(COUNT_STEPS * np.log2(1 + np.maximum(values, 0))), COUNT_MAX)
        else:
            bucket = np.floor(np.clip(values, 0, 1) * SHARE_BUCKETS)
        return np.where(np.isfinite(values), np.nan_to_num(bucket) + self.offset, 0).astype(np.int32)

    def _lookup(self, column: pl.Series) -> np.ndarray:
        rows = pl.Series(range(self.offset, self.offset + len(self.values)), dtype=pl.Int32)
        found = column.replace_strict(pl.Series(self.values, dtype=pl.String), rows, default=0, return_dtype=pl.Int32)
        return found.fill_null(0).to_numpy()

    def _encode_lists(self, column: pl.Series) -> np.ndarray:
        lengths = column.list.len().fill_null(0).to_numpy().astype(np.int64)
        flat = self._lookup(column.explode(empty_as_null=False, keep_nulls=False))
        padded = np.zeros((len(column), max(1, int(lengths.max(initial=1)))), np.int32)
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = flat
        return padded


@dataclass(frozen=True)
class Vocabulary:
    """All fields in the order in which models see them, how many embedding rows they need, and usual ratings."""

    fields: tuple[Field, ...]
    usual: Usual

    @property
    def size(self) -> int:
        """Rows of the embedding table, the padding row included."""
        return 1 + sum(field.size for field in self.fields)

    def of(self, side: Side, *kinds: Kind) -> tuple[Field, ...]:
        """The fields of one side, of the given kinds."""
        return tuple(field for field in self.fields if field.side == side and field.kind in kinds)

    def named(self, name: str) -> Field:
        """The field of that name. Raises KeyError."""
        return {field.name: field for field in self.fields}[name]

    def to_json(self) -> str:
        """Text that `from_json` reads back to an equal vocabulary."""
        said = {"fields": [asdict(field) for field in self.fields], "usual": asdict(self.usual)}
        return json.dumps(said, ensure_ascii=False, indent=1)

    @staticmethod
    def from_json(text: str) -> "Vocabulary":
        """The vocabulary that wrote `text`. Raises StoreError where it is not one."""
        try:
            said = json.loads(text)
            fields = tuple(
                Field(**{**f, "values": tuple(f["values"]), "edges": tuple(f["edges"])}) for f in said["fields"]
            )
            return Vocabulary(fields, Usual.from_dict(said["usual"]))
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"this is not a vocabulary: {error}") from error


def fit_vocabulary(dataset: Dataset, train: pl.DataFrame, *, drop: Sequence[str] = ()) -> Vocabulary:
    """The values that occur in training rows: their users, their items, and the items of their histories.

    train: `timestamp`, `user_id`, `source_row`, `item_id`, `n_before` of the training samples. drop: names of fields
    to leave out. Raises ConfigError where `drop` names a field that does not exist.
    """
    past = (
        dataset.interactions.select("user_id", "item_id", "rating", place=pl.int_range(pl.len()).over("user_id"))
        .join(train.group_by("user_id").agg(pl.col("n_before").max()), on="user_id", maintain_order="left")
        .filter(pl.col("place") < pl.col("n_before"))
    )
    users = dataset.users.join(train, on="user_id", how="semi")
    seen = pl.concat([train["item_id"], past["item_id"]]).unique()
    items = dataset.items.join(seen.to_frame(), on="item_id", how="semi")
    columns: list[tuple[Side, pl.Series]] = [
        *(("user", users[name]) for name in ("user_id", *dataset.attributes("user"))),
        *(("item", items[name]) for name in ("item_id", *dataset.attributes("item"))),
        ("history", past["rating"]),
    ]
    names = [f"{side}.{column.name}" for side, column in columns] + [f"history.{name}" for name in _COUNTED]
    if unknown := sorted(set(drop) - set(names)):
        raise ConfigError(f"no field is called {unknown[0]!r}; there are: {', '.join(names)}")
    if RATING in drop:
        raise ConfigError(f"{RATING} cannot be dropped: models need to know which items were liked")
    fields: list[Field] = []
    offset = 1
    for name, (side, kind, values, edges) in zip(names, _derived(columns), strict=True):
        if name not in drop:
            fields.append(Field(name, side, kind, offset, values, edges))
            offset += fields[-1].size
    return Vocabulary(tuple(fields), fit_usual(dataset, train))


_COUNTED: dict[str, Kind] = {**dict.fromkeys(COUNTS, "count"), "liked_share": "share"}


def _derived(
    columns: Iterable[tuple[Side, pl.Series]],
) -> Iterable[tuple[Side, Kind, tuple[str, ...], tuple[float, ...]]]:
    for side, column in columns:
        if column.dtype == pl.List(pl.String):
            words = column.explode(empty_as_null=False, keep_nulls=False)
            yield side, "list", tuple(words.drop_nulls().unique().sort().to_list()), ()
        elif column.dtype == pl.String:
            yield side, "category", tuple(column.drop_nulls().unique().sort().to_list()), ()
        else:
            yield side, "number", (), _edges(column)
    for kind in _COUNTED.values():
        yield "history", kind, (), ()


def _edges(column: pl.Series) -> tuple[float, ...]:
    """Edges between at most `MAX_BUCKETS` buckets of about equally many rows; equal values share a bucket."""
    values = column.cast(pl.Float64).drop_nulls().drop_nans()
    values = values.filter(values.is_finite())
    distinct = values.unique().sort().to_list()
    if len(distinct) > MAX_BUCKETS:
        ordered = values.sort()
        places = [math.ceil(len(ordered) * i / MAX_BUCKETS) for i in range(MAX_BUCKETS)]
        distinct = sorted({ordered[place] for place in places if place < len(ordered)})
    return tuple(distinct[1:])
