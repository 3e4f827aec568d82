"""What does a model read? Dense integer tables of users and items, gathered for each batch and never repeated per row.

Shapes: B rows of a batch, L places of a history, F fields, C context fields, S similarities, T feature sets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor

from ctr_models.text import (
    TextSet,
    TextStatistics,
    fit_statistics,
    pairs,
    similarities,
    similarity_names,
    text_set,
)
from ctr_models.vocabulary import RATING, Vocabulary, fit_vocabulary
from storage.interactions import Dataset
from storage.snapshot import Snapshot

Split = Literal["train", "validation", "test"]


class SampleConfig(BaseModel, extra="forbid", frozen=True):
    """What of a snapshot the models read."""

    max_history: PositiveInt = 50
    """How many of the user's newest earlier interactions a model sees."""
    similarity_history: PositiveInt = 200
    """How many of them are compared with the target in text space."""
    drop_fields: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Fields to leave out, such as "user.user_id" or "item.genres"."""


@dataclass(frozen=True)
class Entities:
    """Users or items as embedding rows: row 0 is 'nobody', row r + 1 the r-th id.

    ids: external ids; single: int32 [1 + n, F]; lists: one int32 [1 + n, longest list] for each multi-valued field.
    """

    ids: pl.Series
    single: Tensor
    lists: tuple[Tensor, ...]

    def rows(self, ids: pl.Series) -> np.ndarray:
        """Dense rows (int64) of external ids, 0 where there is no such entity."""
        places = pl.Series(range(1, len(self.ids) + 1), dtype=pl.Int64)
        return ids.replace_strict(self.ids, places, default=0, return_dtype=pl.Int64).to_numpy()


@dataclass(frozen=True)
class Tables:
    """A dataset in dense integers.

    start: int64 [users + 2], user r's interactions are [start[r], start[r + 1]); item (rows), rating (1 is the first
    value, 0 unknown), liked: [interactions + 1], the last is padding; likes: int64 [interactions + 1], how many were
    liked before each place.
    """

    vocabulary: Vocabulary
    users: Entities
    items: Entities
    start: Tensor
    item: Tensor
    rating: Tensor
    liked: Tensor
    likes: Tensor


@dataclass(frozen=True)
class Batch:
    """Rows for a model; the tables hold what users and items have.

    user_B, item_B: dense rows; history_BL: item rows, newest first, 0 is padding; rating_BL: 1 is the first value;
    liked_BL: bool; context_BC: embedding rows of the count fields; text_BT: row of each feature set's vectors, 0 is
    absent; text_history: for each item set its int32 [B, L]; similarity_BS: float32, NaN where there is nothing to
    compare.
    """

    tables: Tables
    user_B: Tensor
    item_B: Tensor
    history_BL: Tensor
    rating_BL: Tensor
    liked_BL: Tensor
    context_BC: Tensor
    text_BT: Tensor
    text_history: Mapping[str, Tensor]
    similarity_BS: Tensor


@dataclass(frozen=True)
class Samples:
    """A snapshot ready to learn from. `split` maps a split's name to its places (int64) in the arrays."""

    tables: Tables
    texts: tuple[TextSet, ...]
    config: SampleConfig
    split: Mapping[str, Tensor]
    user: Tensor
    item: Tensor
    n_before: Tensor
    label: Tensor
    text: Tensor
    similarity: Tensor
    lineage: Mapping[str, object]

    def batch(self, places: Tensor) -> Batch:
        """The rows at `places`, in that order."""
        return gather(
            self.tables,
            self.texts,
            user=self.user[places],
            item=self.item[places],
            n_before=self.n_before[places],
            text=self.text[places],
            similarity=self.similarity[places],
            max_history=self.config.max_history,
        )


def encode(
    snapshot: Snapshot,
    config: SampleConfig,
    *,
    features: Sequence[str] | None = None,
    vocabulary: Vocabulary | None = None,
    statistics: Sequence[TextStatistics] | None = None,
) -> Samples:
    """Turn a snapshot into samples. A trained run passes its own vocabulary and statistics; else they are fitted.

    features: names of the feature sets to use, all of the snapshot by default. Everything is fitted on rows whose
    split is "train" only. Raises ConfigError or StoreError where fields, feature sets or encoders do not fit.
    """
    samples, dataset = snapshot.samples, snapshot.dataset
    train = samples.filter(pl.col("split") == "train")
    vocabulary = vocabulary or fit_vocabulary(dataset, train, drop=config.drop_fields)
    tables = encode_tables(dataset, vocabulary, rating_above=rating_above(snapshot.lineage))
    if statistics is None:
        names = sorted(snapshot.features) if features is None else features
        statistics = [fit_statistics(snapshot.features[name], train) for name in names]
    texts = encode_texts(snapshot, tables, statistics)
    user, item = tables.users.rows(samples["user_id"]), tables.items.rows(samples["item_id"])
    n_before = samples["n_before"].cast(pl.Int64).to_numpy()
    columns = [samples[f"{text.name}_row"].to_numpy() + 1 for text in texts]
    rows = np.stack(columns, axis=1) if columns else np.zeros((len(samples), 0), np.int32)
    split = samples["split"].to_numpy()
    return Samples(
        tables,
        texts,
        config,
        {name: _tensor(np.flatnonzero(split == name)) for name in ("train", "validation", "test")},
        _tensor(user),
        _tensor(item.astype(np.int32)),
        _tensor(n_before),
        _tensor(samples["label"].to_numpy().astype(np.float32)),
        _tensor(rows),
        _tensor(compare(tables, texts, user, n_before, rows, window=config.similarity_history)),
        snapshot.lineage,
    )


def rating_above(lineage: Mapping[str, object]) -> float:
    """The rating above which an item counts as liked: the snapshot's own label rule."""
    rules = lineage.get("labels")
    return float(rules["rating_above"]) if isinstance(rules, Mapping) else 3.0


def encode_tables(dataset: Dataset, vocabulary: Vocabulary, *, rating_above: float) -> Tables:
    """Every user, item and interaction of the dataset in dense integers, known to the vocabulary or not."""
    users = _entities(dataset.users, vocabulary, "user")
    items = _entities(dataset.items, vocabulary, "item")
    rows = dataset.interactions
    rating = vocabulary.named(RATING)
    codes = np.maximum(rating.encode(rows["rating"]) - rating.offset + 1, 0)
    counts = np.bincount(users.rows(rows["user_id"]), minlength=len(users.ids) + 1)
    liked = (rows["rating"].to_numpy() > rating_above).astype(np.int64)
    return Tables(
        vocabulary,
        users,
        items,
        start=_tensor(np.concatenate([[0], np.cumsum(counts)])),
        item=_tensor(np.concatenate([items.rows(rows["item_id"]), [0]]).astype(np.int32)),
        rating=_tensor(np.concatenate([codes, [0]]).astype(np.int32)),
        liked=_tensor(np.concatenate([liked, [0]]).astype(bool)),
        likes=_tensor(np.concatenate([[0], np.cumsum(liked)])),
    )


def encode_texts(snapshot: Snapshot, tables: Tables, statistics: Sequence[TextStatistics]) -> tuple[TextSet, ...]:
    """The feature sets named by `statistics`, in that order, over the dense users and items of `tables`."""
    ids = {"user": tables.users.ids, "item": tables.items.ids}
    return tuple(text_set(snapshot, each, ids[each.entity]) for each in statistics)


def gather(
    tables: Tables,
    texts: Sequence[TextSet],
    *,
    user: Tensor,
    item: Tensor,
    n_before: Tensor,
    text: Tensor,
    similarity: Tensor,
    max_history: int,
) -> Batch:
    """Collect a batch: the newest `max_history` of each user's first `n_before` interactions, and their counts."""
    first = tables.start[user]
    past = first + n_before
    places = past[:, None] - torch.arange(1, max_history + 1)
    places = torch.where(places >= first[:, None], places, len(tables.item) - 1)
    liked = tables.likes[past] - tables.likes[first]
    counted = {
        "liked": liked,
        "disliked": n_before - liked,
        "length": n_before,
        "liked_share": liked.double() / n_before,
    }
    context = [
        _tensor(field.encode(pl.Series(counted[field.column].numpy())))
        for field in tables.vocabulary.of("history", "count", "share")
    ]
    return Batch(
        tables,
        user.to(torch.int32),
        item,
        tables.item[places],
        tables.rating[places],
        tables.liked[places],
        torch.stack(context, dim=1) if context else torch.zeros(len(user), 0, dtype=torch.int32),
        text,
        {each.name: _tensor(each.history)[places] for each in texts if each.entity == "item"},
        similarity,
    )


def compare(
    tables: Tables, texts: Sequence[TextSet], user: np.ndarray, n_before: np.ndarray, rows: np.ndarray, *, window: int
) -> np.ndarray:
    """Text-space similarity of each (user, item row of vectors) to the newest `window` earlier items; float32 [N, S].

    rows: int [N, feature sets], the vector row of each set. Columns are those of `text.similarity_names`, NaN where
    a text is absent. Rows of one user are compared at once, so the cost is one matrix product a user.
    """
    statistics = [text.statistics for text in texts]
    out = np.full((len(user), len(similarity_names(statistics))), np.nan, np.float32)
    if not out.size:
        return out
    order = np.argsort(user, kind="stable")
    ends = np.flatnonzero(np.diff(user[order], append=-1)) + 1
    start, liked = tables.start.numpy(), tables.liked.numpy()
    column = 0
    for place, text in enumerate(texts):
        if text.entity != "item":
            continue
        begin = 0
        for end in ends:
            mine = order[begin:end]
            begin = end
            past = slice(start[user[mine[0]]], start[user[mine[0]] + 1])
            until = n_before[mine]
            out[mine, column : column + 6] = similarities(
                text.unit[rows[mine, place]],
                text.unit[text.history[past]],
                liked[past],
                np.stack([np.maximum(until - window, 0), until], axis=1),
            )
        column += 6
    places = {each.name: place for place, each in enumerate(statistics)}
    for one, other in pairs(statistics):
        u, i = places[one.name], places[other.name]
        both = np.flatnonzero((rows[:, u] > 0) & (rows[:, i] > 0))
        for part in np.array_split(both, len(both) // 65536 + 1):  # vectors are never spread over all rows at once
            cosine = np.einsum("nd,nd->n", texts[u].unit[rows[part, u]], texts[i].unit[rows[part, i]])
            out[part, column] = cosine
        column += 1
    return out


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.require(array, requirements="W"))


def _entities(frame: pl.DataFrame, vocabulary: Vocabulary, side: Literal["user", "item"]) -> Entities:
    single = [field.encode(frame[field.column]) for field in vocabulary.of(side, "category", "number")]
    lists = [field.encode(frame[field.column]) for field in vocabulary.of(side, "list")]
    table = np.stack(single, axis=1) if single else np.zeros((len(frame), 0), np.int32)
    return Entities(
        frame[f"{side}_id"],
        _tensor(np.pad(table, ((1, 0), (0, 0)))),
        tuple(_tensor(np.pad(rows, ((1, 0), (0, 0)))) for rows in lists),
    )
