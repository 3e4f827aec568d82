"""Who are the users and items, and what happened? A dataset in dense integers, gathered by every batch.

An item together with the texts that were known of it is a version of the item. Item text hardly ever changes, so
there is about one version an item; a history shows each item as it was known when the user acted on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor

from ctr_models.text import TextSet
from ctr_models.vocabulary import RATING, Vocabulary
from storage.interactions import Dataset


@dataclass(frozen=True)
class Entities:
    """Users, or versions of items, as embedding rows; row 0 is 'nobody'.

    single: int32 [1 + n, fields]; lists: one int32 [1 + n, longest list] for each multi-valued field; values: int32
    [1 + n, A], the categories of single and all of lists; text: int32 [1 + n, feature sets of this side], rows of
    their vectors, 0 where there is none.
    """

    single: Tensor
    lists: tuple[Tensor, ...]
    values: Tensor
    text: Tensor


@dataclass(frozen=True)
class Tables:
    """A dataset in dense integers.

    user_ids, item_ids: external ids; dense row r + 1 stands for the r-th. users: by dense row; items: by version;
    item_of: int64 [1 + versions], the dense row of a version's item; current: int32 [1 + items], the version as of now.
    start: int64 [users + 2], user r's interactions are [start[r], start[r + 1]); item (versions), rating (1 is the
    first value, 0 unknown), liked, opinion (float32, see `Usual`, NaN where there is no rating): [interactions + 1],
    the last is padding; likes: int64 [interactions + 1], how many were liked before each place.
    """

    vocabulary: Vocabulary
    user_ids: pl.Series
    item_ids: pl.Series
    users: Entities
    items: Entities
    item_of: np.ndarray
    current: np.ndarray
    start: Tensor
    item: Tensor
    rating: Tensor
    liked: Tensor
    opinion: Tensor
    likes: Tensor


def dense(ids: pl.Series, known: pl.Series) -> np.ndarray:
    """Dense rows (int64) of external ids: 1 for the first known one, 0 for what is not known."""
    places = pl.Series(range(1, len(known) + 1), dtype=pl.Int64)
    return ids.replace_strict(known, places, default=0, return_dtype=pl.Int64).to_numpy()


def encode_tables(
    dataset: Dataset, vocabulary: Vocabulary, texts: Sequence[TextSet], *, rating_above: float, samples: pl.DataFrame
) -> tuple[Tables, np.ndarray]:
    """Every user, item and interaction of a dataset, known to the vocabulary or not; and the samples' item versions.

    samples: `item_id` and `<feature set>_row` of the rows that will be scored (may be empty).
    """
    rows, user_ids, item_ids = dataset.interactions, dataset.users["user_id"], dataset.items["item_id"]
    of_items = [text for text in texts if text.entity == "item"]
    of_users = [text for text in texts if text.entity == "user"]
    here = np.arange(len(item_ids) + 1)
    acted, asked = dense(rows["item_id"], item_ids), dense(samples["item_id"], item_ids)
    known = [samples[f"{text.name}_row"].to_numpy() + 1 for text in of_items]
    versions, places = _distinct(
        np.concatenate([here, acted, asked]),
        [np.concatenate([text.rows, text.history, rows]) for text, rows in zip(of_items, known, strict=True)],
    )
    item_of = versions[:, 0]
    current, history, asked = np.split(places, [len(here), len(here) + len(acted)])
    rating = vocabulary.named(RATING)
    codes = np.maximum(rating.encode(rows["rating"]) - rating.offset + 1, 0)
    counts = np.bincount(dense(rows["user_id"], user_ids), minlength=len(user_ids) + 1)
    liked = (rows["rating"].to_numpy() > rating_above).astype(np.int64)
    now = [text.rows for text in of_users]
    tables = Tables(
        vocabulary,
        user_ids,
        item_ids,
        users=_entities(dataset.users, vocabulary, "user", np.arange(len(user_ids) + 1), now),
        items=_entities(dataset.items, vocabulary, "item", item_of, list(versions[:, 1:].T)),
        item_of=item_of,
        current=current,
        start=tensor(np.concatenate([[0], np.cumsum(counts)])),
        item=tensor(np.concatenate([history, [0]]).astype(np.int32)),
        rating=tensor(np.concatenate([codes, [0]]).astype(np.int32)),
        liked=tensor(np.concatenate([liked, [0]]).astype(bool)),
        opinion=tensor(
            np.concatenate([vocabulary.usual.opinions(rows["item_id"], rows["rating"]), [np.nan]], dtype=np.float32)
        ),
        likes=tensor(np.concatenate([[0], np.cumsum(liked)])),
    )
    return tables, asked


def tensor(array: np.ndarray) -> Tensor:
    """The array as a tensor; shares its memory where it may be written to."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _distinct(first: np.ndarray, others: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Distinct tuples, sorted: int64 [distinct, 1 + others], and the place of each row among them: int32 [rows]."""
    columns = [first, *others]
    code = first.astype(np.int64)
    for column in others:
        code = np.unique(code * (int(column.max(initial=0)) + 1) + column, return_inverse=True)[1]
    _, where, places = np.unique(code, return_index=True, return_inverse=True)
    return np.stack([column[where] for column in columns], axis=1).astype(np.int64), places.astype(np.int32)


def _entities(
    frame: pl.DataFrame,
    vocabulary: Vocabulary,
    side: Literal["user", "item"],
    rows: np.ndarray,
    texts: Sequence[np.ndarray],
) -> Entities:
    """rows: which row of the frame (from 1, 0 for nobody) each entity is."""
    fields = vocabulary.of(side, "category", "number")
    table = np.zeros((1 + len(frame), len(fields)), np.int32)
    for place, field in enumerate(fields):
        table[1:, place] = field.encode(frame[field.column])
    lists = [np.pad(f.encode(frame[f.column]), ((1, 0), (0, 0)))[rows] for f in vocabulary.of(side, "list")]
    categories = [place for place, field in enumerate(fields) if field.kind == "category"]
    text = np.stack(texts, axis=1) if texts else np.zeros((len(rows), 0))
    return Entities(
        tensor(table[rows]),
        tuple(tensor(each) for each in lists),
        tensor(np.concatenate([table[rows][:, categories], *lists], axis=1)),
        tensor(text.astype(np.int32)),
    )
