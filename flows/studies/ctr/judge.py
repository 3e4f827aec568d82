"""How good are a fit's scores, and where? Metrics by slice, calibration, and AUC on every resample of the users.

Slices: all; cold_items and warm_items, by how many training rows the item has; and bins of item rows (`item_rows:1-10`)
and of how many interactions the user had before the row (`history:11-30`). An item's rows are those of the fraction
that the model was trained on, so slices of the same name hold other rows at another fraction or seed; arms and models
have the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl

from ctr_models.bootstrap import draw_users
from ctr_models.evaluate import Evaluation, evaluation
from ctr_models.metrics import Calibration, Ranking, calibration, logloss, why_no_auc
from storage.snapshot import Snapshot

CLAIMED = ("all", "cold_items", "warm_items")
"""The slices that every claim speaks of."""
ITEM_ROWS = (0, 10, 100, 1000)
"""Upper ends of the bins of an item's training rows."""
HISTORY = (10, 30, 100)
"""Upper ends of the bins of a row's earlier interactions."""


@dataclass(frozen=True)
class Judged:
    """What is said of one fit.

    metrics: (slice, metric) -> (value, rows); drawn: slice -> AUC on all test users, float64 [], and on each resample
    of them, [R]. Slices without rows are left out; a number that does not exist is NaN.
    """

    model: str
    arm: str
    fraction: float
    seed: int
    train_rows: int
    metrics: dict[tuple[str, str], tuple[float, int]]
    calibration: Calibration
    drawn: dict[str, tuple[float, np.ndarray]]


class Judge:
    """Judges fits by the test rows of a snapshot. Every fit meets the same resamples of users."""

    def __init__(self, *, cold_at_most: int, resamples: int) -> None:
        self.cold_at_most = cold_at_most
        self.draws = cache(lambda users: draw_users(users, resamples=resamples))

    def __call__(
        self, cut: Snapshot, scores: np.ndarray, *, name: tuple[str, str, float, int], bins: bool = True
    ) -> Judged:
        """cut: the snapshot with the fit's rows; name: model, arm, fraction, seed; bins: draw users for bins as well.

        Raises ValueError where there is not a score for each test row.
        """
        result = evaluation(cut, scores)
        tested = cut.samples.filter(pl.col("split") == "test")
        owner = np.unique(result.users.cast(pl.Categorical).to_physical().to_numpy(), return_inverse=True)[1]
        draws = self.draws(int(owner.max()) + 1)
        metrics: dict[tuple[str, str], tuple[float, int]] = {}
        found: dict[str, tuple[float, np.ndarray]] = {}
        for where, rows in self.slices(result, tested["n_before"].to_numpy()).items():
            labels, p = result.labels[rows], result.scores[rows]
            value = float("nan")
            if not why_no_auc(labels):
                ranking = Ranking(labels, p)
                value = ranking.auc(np.ones(len(labels)))
                if bins or where in CLAIMED:
                    found[where] = value, ranking.aucs(owner[rows], draws)
            observed = labels.mean()
            for metric, number in (
                ("auc", value),
                ("logloss", logloss(labels, p)),
                ("ece", calibration(labels, p).error),
                ("predicted_over_observed", float(p.mean() / observed) if observed else float("nan")),
            ):
                metrics[where, metric] = number, len(labels)
        train_rows = int((cut.samples["split"] == "train").sum())
        return Judged(*name, train_rows, metrics, calibration(result.labels, result.scores), found)

    def slices(self, result: Evaluation, n_before: np.ndarray) -> dict[str, np.ndarray]:
        """Rows (bool) of every slice that has any."""
        found = result.slices(cold_at_most=self.cold_at_most)
        for what, values, edges in (("item_rows", result.item_rows, ITEM_ROWS), ("history", n_before, HISTORY)):
            places = np.searchsorted(edges, values)
            found |= {f"{what}:{name}": places == place for place, name in enumerate(bin_names(edges))}
        return {name: rows for name, rows in found.items() if rows.any()}


def bin_names(edges: Sequence[int]) -> list[str]:
    """Names of the bins of whole numbers with these upper ends, and of the one above: 0, 10 -> "0", "1-10", ">10"."""
    lows = [0, *(edge + 1 for edge in edges[:-1])]
    return [str(low) if low == high else f"{low}-{high}" for low, high in zip(lows, edges, strict=True)] + [
        f">{edges[-1]}"
    ]
