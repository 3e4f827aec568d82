"""How good are scores, where, and is one model better than another? Slices, and a paired bootstrap over users."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from ctr_models.metrics import Ranking, logloss, losses, why_no_auc
from storage.errors import ConfigError
from storage.snapshot import Snapshot

COLD_AT_MOST = 10


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model on one part of a snapshot, with what is needed to slice them.

    users, items: external ids; labels: int8 0 or 1; scores: float32 probabilities; item_rows: int64, training rows of
    the item; all of shape [rows], in the snapshot's order. pairs: columns `user_id`, `item_id` of rows that are judged
    apart, such as those that a text cannot have seen.
    """

    users: pl.Series
    items: pl.Series
    labels: np.ndarray
    scores: np.ndarray
    item_rows: np.ndarray
    pairs: pl.DataFrame | None = None

    def slices(self, *, cold_at_most: int = COLD_AT_MOST) -> dict[str, np.ndarray]:
        """Rows (bool) of each slice: all, items with at most so many training rows (cold), and the others (warm).

        Where there are `pairs`, the rows of a pair among them and the others too.
        """
        cold = self.item_rows <= cold_at_most
        found = {"all": np.ones(len(cold), bool), "cold_items": cold, "warm_items": ~cold}
        if self.pairs is None:
            return found
        rows = pl.DataFrame({"user_id": self.users, "item_id": self.items})
        marked = self.pairs.select("user_id", "item_id").unique().with_columns(among=pl.lit(value=True))
        joined = rows.join(marked, on=["user_id", "item_id"], how="left", maintain_order="left")
        among = joined["among"].fill_null(value=False).to_numpy()
        return {**found, "pairs": among, "other_pairs": ~among}


@dataclass(frozen=True)
class Difference:
    """How much more of a metric the second model has. low, high: the central 95 % of `resamples` bootstrap differences.

    reason: why there is no number, else empty.
    """

    difference: float
    low: float
    high: float
    resamples: int
    reason: str = ""


def evaluation(snapshot: Snapshot, scores: np.ndarray, *, split: str = "test") -> Evaluation:
    """Bring scores of a split's rows, in the snapshot's order, together with their labels."""
    rows = snapshot.samples.filter(pl.col("split") == split)
    if len(rows) != len(scores):
        raise ValueError(f"{len(scores)} scores for the {len(rows)} rows of split {split!r}")
    train = snapshot.samples.filter(pl.col("split") == "train").group_by("item_id").len("n")
    counted = rows.select("item_id").join(train, on="item_id", how="left", maintain_order="left")
    seen = counted["n"].fill_null(0).cast(pl.Int64).to_numpy()
    return Evaluation(rows["user_id"], rows["item_id"], rows["label"].to_numpy(), scores, seen)


def read_pairs(path: Path) -> pl.DataFrame:
    """The first two columns of a csv file as `user_id` and `item_id`. Raises ConfigError where it has no two."""
    try:
        rows = pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"{path} cannot be read as csv: {error}") from error
    if len(rows.columns) < 2:
        raise ConfigError(f"{path} has one column, {rows.columns[0]!r}; pairs need two, users and items")
    return rows.select(user_id=rows.columns[0], item_id=rows.columns[1])


def report(result: Evaluation, *, cold_at_most: int = COLD_AT_MOST) -> dict[str, dict[str, float | int | str | None]]:
    """AUC and LogLoss of each slice: `rows`, `positives`, `auc`, `logloss`, `reason` (why there is no AUC)."""
    table: dict[str, dict[str, float | int | str | None]] = {}
    for name, chosen in result.slices(cold_at_most=cold_at_most).items():
        labels, scores = result.labels[chosen], result.scores[chosen]
        why = why_no_auc(labels)
        table[name] = {
            "rows": len(labels),
            "positives": int((labels > 0).sum()),
            "auc": None if why else Ranking(labels, scores).auc(np.ones(len(labels))),
            "logloss": logloss(labels, scores) if len(labels) else None,
            "reason": why,
        }
    return table


def compare(
    base: Evaluation,
    other: Evaluation,
    *,
    metric: Literal["auc", "logloss"] = "auc",
    resamples: int = 200,
    seed: int = 0,
    cold_at_most: int = COLD_AT_MOST,
) -> Mapping[str, Difference]:
    """The metric of `other` less that of `base` for each slice, with paired intervals over resampled users.

    Users are drawn with replacement and bring all their rows, to both models alike (Efron and Tibshirani 1993, section
    8; rows of one user are not independent). Raises ValueError where the two did not score the same rows.
    """
    same = base.users.equals(other.users) and base.items.equals(other.items)
    if not same or not np.array_equal(base.labels, other.labels):
        raise ValueError("the two evaluations are of different rows: a paired comparison needs the same")
    codes = base.users.cast(pl.Categorical).to_physical().to_numpy()
    distinct, codes = np.unique(codes, return_inverse=True)
    random = np.random.default_rng(seed)
    draws = [random.multinomial(len(distinct), np.full(len(distinct), 1 / len(distinct))) for _ in range(resamples)]
    found = {}
    for name, chosen in base.slices(cold_at_most=cold_at_most).items():
        labels, owner = base.labels[chosen], codes[chosen]
        if why := why_no_auc(labels):
            found[name] = Difference(float("nan"), float("nan"), float("nan"), 0, why)
            continue
        gain = _gain(metric, labels, base.scores[chosen], other.scores[chosen])
        drawn = np.array([gain(draw[owner].astype(np.float64)) for draw in draws])
        drawn = drawn[np.isfinite(drawn)]  # a draw may hold one class only, in a small slice
        low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
        found[name] = Difference(gain(np.ones(len(labels))), float(low), float(high), len(drawn))
    return found


def _gain(
    metric: Literal["auc", "logloss"], labels: np.ndarray, base: np.ndarray, other: np.ndarray
) -> Callable[[np.ndarray], float]:
    """The difference of the metric as a function of the rows' weights."""
    if metric == "auc":
        one, two = Ranking(labels, base), Ranking(labels, other)
        return lambda weights: two.auc(weights) - one.auc(weights)
    more = losses(labels, other) - losses(labels, base)
    return lambda weights: float(weights @ more / weights.sum()) if weights.any() else float("nan")
