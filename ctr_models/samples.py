"""What does a model read? Rows as integers into dense tables of users and items, which are never repeated per row.

Shapes: B rows of a batch, N rows of all, L places of a history, C count fields, S similarities, T users' feature sets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor

from ctr_models.similarity import compare
from ctr_models.tables import Tables, dense, encode_tables, tensor
from ctr_models.text import TextSet, TextStatistics, fit_statistics, text_set
from ctr_models.vocabulary import Vocabulary, fit_vocabulary
from storage.snapshot import Snapshot

Split = Literal["train", "validation", "test"]


class SampleConfig(BaseModel, extra="forbid", frozen=True):
    """What of a snapshot the models read."""

    max_history: PositiveInt = 50
    """How many of the user's newest earlier interactions a model sees."""
    text_dimensions: PositiveInt = 64
    """How many principal components of the stored text vectors are kept."""
    whiten: bool = True
    """Give each of them unit variance."""
    drop_fields: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Fields to leave out, such as "user.user_id" or "item.genres"."""


@dataclass(frozen=True)
class Batch:
    """Rows for a model; the tables hold what users and items have.

    user_B: dense rows; item_B: versions; history_BL: versions, newest first, 0 is padding; rating_BL: 1 is the first
    value; liked_BL: bool; context_BC: embedding rows of the count fields; user_text_BT: rows of each user feature
    set's vectors, 0 is absent; similarity_BS: float32, NaN where there is nothing to compare. One user's candidates
    share all but item_B and similarity_BS: the others then have one row for all.
    """

    tables: Tables
    user_B: Tensor
    item_B: Tensor
    history_BL: Tensor
    rating_BL: Tensor
    liked_BL: Tensor
    context_BC: Tensor
    user_text_BT: Tensor
    similarity_BS: Tensor


@dataclass(frozen=True)
class Samples:
    """A snapshot ready to learn from; arrays in the snapshot's order, `split` maps a split's name to places in them."""

    tables: Tables
    texts: tuple[TextSet, ...]
    config: SampleConfig
    split: Mapping[str, Tensor]
    user: Tensor
    item: Tensor
    n_before: Tensor
    label: Tensor
    user_text: Tensor
    similarity: Tensor
    lineage: Mapping[str, object]

    def batch(self, places: Tensor) -> Batch:
        """The rows at `places`, in that order."""
        return gather(
            self.tables,
            user=self.user[places],
            item=self.item[places],
            n_before=self.n_before[places],
            user_text=self.user_text[places],
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
    samples = snapshot.samples
    train = samples.filter(pl.col("split") == "train")
    vocabulary = vocabulary or fit_vocabulary(snapshot.dataset, train, drop=config.drop_fields)
    if statistics is None:
        names = sorted(snapshot.features) if features is None else features
        used = [snapshot.features[name] for name in names]
        statistics = fit_statistics(used, train, dimensions=config.text_dimensions, whiten=config.whiten)
    texts = tuple(text_set(snapshot, each) for each in statistics)
    tables, item = encode_tables(
        snapshot.dataset, vocabulary, texts, rating_above=rating_above(snapshot.lineage), samples=samples
    )
    user = dense(samples["user_id"], tables.user_ids)
    n_before = samples["n_before"].cast(pl.Int64).to_numpy()
    known = [samples[f"{text.name}_row"].to_numpy() + 1 for text in texts if text.entity == "user"]
    user_text = np.stack(known, axis=1) if known else np.zeros((len(samples), 0), np.int32)
    split = samples["split"].to_numpy()
    return Samples(
        tables,
        texts,
        config,
        {name: tensor(np.flatnonzero(split == name)) for name in ("train", "validation", "test")},
        tensor(user),
        tensor(item),
        tensor(n_before),
        tensor(samples["label"].to_numpy().astype(np.float32)),
        tensor(user_text),
        tensor(compare(tables, texts, user, item, n_before, user_text)),
        snapshot.lineage,
    )


def rating_above(lineage: Mapping[str, object]) -> float:
    """The rating above which an item counts as liked: the snapshot's own label rule."""
    rules = lineage.get("labels")
    return float(rules["rating_above"]) if isinstance(rules, Mapping) else 3.0


def gather(
    tables: Tables,
    *,
    user: Tensor,
    item: Tensor,
    n_before: Tensor,
    user_text: Tensor,
    similarity: Tensor,
    max_history: int,
) -> Batch:
    """Collect a batch: the newest `max_history` of each user's first `n_before` interactions, and their counts.

    user: int64 dense rows; item: int32 versions; n_before: int64; all [B]. user_text: int32 [B, T]. For the candidates
    of one user, all but `item` and `similarity` may have one row.
    """
    first = tables.start[user]
    past = first + n_before
    places = past[:, None] - torch.arange(1, max_history + 1)
    places = torch.where(places >= first[:, None], places, len(tables.item) - 1)
    liked, total = (tables.likes[past] - tables.likes[first]).numpy(), n_before.numpy()
    with np.errstate(invalid="ignore"):  # no history has no share
        counted = {"liked": liked, "disliked": total - liked, "length": total, "liked_share": liked / total}
    fields = tables.vocabulary.of("history", "count", "share")
    context = [tensor(field.bucket(counted[field.column])) for field in fields]
    return Batch(
        tables,
        user.to(torch.int32),
        item,
        tables.item[places],
        tables.rating[places],
        tables.liked[places],
        torch.stack(context, dim=1) if context else torch.zeros(len(user), 0, dtype=torch.int32),
        user_text,
        similarity,
    )
