"""Which stored vector belongs to which item number, and how does it become an embedding?"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from ctr_models.sequential.items import ItemText
from ctr_models.sequential.reduction import ItemInit, Reduction, fit_reduction
from ctr_models.sequential.sequences import Sequences
from storage.errors import ConfigError
from storage.features import FeatureSet


@dataclass(frozen=True)
class Text:
    """Text of all items of the catalogue as a model starts with it, and how it was made."""

    init: ItemInit
    reduction: Reduction
    encoder: str
    items: ItemText


def item_vectors(feature: FeatureSet, items: pl.Series) -> ItemText:
    """The stored vector of each item number, float32 [1 + items, dim], zero where there is none.

    items: external ids, `items[0]` is "". Raises ConfigError where the feature set is not of items.
    """
    if feature.entity != "item":
        raise ConfigError(f"feature set {feature.name!r} is of users; a sequential model reads texts of items")
    current = feature.current().select("entity_id", "vector_row")
    ids = pl.DataFrame({"entity_id": items})
    rows = ids.join(current, on="entity_id", how="left", maintain_order="left")["vector_row"].to_numpy()
    known = np.isfinite(rows)
    vectors = np.zeros((len(items), feature.vectors.shape[1]), np.float32)
    vectors[known] = feature.vectors[rows[known].astype(np.int64)]
    return ItemText(vectors, known)


def fit_text(
    stored: ItemText, init: ItemInit, data: Sequences, *, width: int, catalogue: pl.DataFrame, encoder: str
) -> Text:
    """Fit the reduction on items that occur in training rows, and reduce every item of the catalogue by it.

    stored: see `item_vectors`; catalogue: the dataset's items, for the classes of lda. Raises ConfigError where it has
    no such attribute.
    """
    learned = np.flatnonzero(stored.known[: data.n_known + 1])
    classes = None
    if init.classes is not None:
        classes = _classes(catalogue, init.classes, data.items)[learned]
    reduction = fit_reduction(init, stored.vectors[learned], width=width, classes=classes)
    return Text(init, reduction, encoder, reduced(stored, reduction))


def reduced(stored: ItemText, reduction: Reduction) -> ItemText:
    """The same items in the dimensions of a reduction; zero where there is no text."""
    vectors = reduction.apply(stored.vectors)
    vectors[~stored.known] = 0
    return ItemText(vectors, stored.known)


def _classes(catalogue: pl.DataFrame, attribute: str, items: pl.Series) -> np.ndarray:
    """A number for the attribute's value of each item, of several words the first; -1 where it has none."""
    if attribute not in catalogue.columns:
        there = ", ".join(name for name in catalogue.columns if name not in ("item_id", "title"))
        raise ConfigError(f"items have no attribute {attribute!r}; there are: {there or 'none'}")
    value = pl.col(attribute)
    if catalogue.schema[attribute] == pl.List(pl.String):
        value = value.list.first()
    coded = catalogue.select("item_id", value.cast(pl.String).rank("dense").cast(pl.Int32).alias("class"))
    ids = pl.DataFrame({"item_id": items})
    joined = ids.join(coded, on="item_id", how="left", maintain_order="left")
    return joined["class"].fill_null(-1).to_numpy()
