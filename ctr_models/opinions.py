"""How much more than usual did a user like an item? A rating less what its item is given, in deviations.

Who rates a film that everybody loves with five of five has said little about a taste of their own. Fitted on the
training rows' ratings, saved with the run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from storage.interactions import Dataset
from storage.snapshot import KEY

PRIOR_RATINGS = 10
"""An item's mean is that of its ratings and of so many times the mean of all: of few ratings it hardly differs."""


@dataclass(frozen=True)
class Usual:
    """What items are usually given. items: external ids; means: of each; mean: of an item that is not among them.

    deviation: how far ratings are from these means, their root mean square.
    """

    items: tuple[str, ...] = ()
    means: tuple[float, ...] = ()
    mean: float = 0.0
    deviation: float = 1.0

    def opinions(self, items: pl.Series, ratings: pl.Series) -> np.ndarray:
        """(rating - mean of its item) / deviation; float32 [rows], NaN where there is no rating."""
        means = pl.Series(self.means, dtype=pl.Float64)
        usual = items.replace_strict(
            pl.Series(self.items, dtype=pl.String), means, default=self.mean, return_dtype=pl.Float64
        )
        return ((ratings.cast(pl.Float64) - usual) / self.deviation).fill_null(np.nan).to_numpy().astype(np.float32)

    @staticmethod
    def from_dict(said: Mapping[str, Any]) -> "Usual":
        """From what `dataclasses.asdict` made of one. Raises KeyError, TypeError or ValueError where it is not that."""
        items, means = tuple(map(str, said["items"])), tuple(map(float, said["means"]))
        return Usual(items, means, float(said["mean"]), float(said["deviation"]))


def fit_usual(dataset: Dataset, train: pl.DataFrame) -> Usual:
    """Mean ratings of the items of training rows, each drawn towards the mean of all by `PRIOR_RATINGS`.

    Of each user only the first rating of an item counts: a label whose item its user had rated before would otherwise
    be told, in part, by what that earlier rating is compared with. train: `timestamp`, `user_id` and `source_row` of
    the training samples.
    """
    first = dataset.interactions.filter(pl.struct("user_id", "item_id").is_first_distinct())
    rows = first.join(train, on=KEY, how="semi").select("item_id", pl.col("rating").cast(pl.Float64)).drop_nulls()
    if rows.is_empty():
        return Usual()
    mean = float(rows["rating"].to_numpy().mean())
    drawn = (pl.col("rating").sum() + PRIOR_RATINGS * mean) / (pl.len() + PRIOR_RATINGS)
    items = rows.group_by("item_id").agg(drawn.alias("mean")).sort("item_id")
    fitted = Usual(tuple(items["item_id"]), tuple(items["mean"]), mean)
    deviation = float(np.sqrt(np.mean(np.square(fitted.opinions(rows["item_id"], rows["rating"]), dtype=np.float64))))
    return replace(fitted, deviation=deviation or 1.0)
