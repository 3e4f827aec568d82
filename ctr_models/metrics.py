"""How good is a ranking, how good are probabilities? Exact AUC with ties, LogLoss, calibration, and many weightings."""

from dataclasses import dataclass

import numpy as np


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve: P(score of a positive > of a negative) + P(equal) / 2 (Hanley and McNeil 1982).

    labels: 0 or 1, shape [N]; scores: any real numbers, shape [N]. NaN where one class is missing.
    """
    return float(Ranking(labels, scores).auc(np.ones(len(labels))))


def logloss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of -log p of what happened, in nats. NaN where there is no row.

    Probabilities are held 1e-7 away from 0 and 1.
    """
    return float(np.mean(losses(labels, probabilities))) if len(labels) else float("nan")


def losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """-log p of what happened, in nats, for each row; float64 [N]. `logloss` is their mean."""
    p = np.clip(np.asarray(probabilities, np.float64), 1e-7, 1 - 1e-7)
    return -np.where(np.asarray(labels) > 0, np.log(p), np.log1p(-p))


@dataclass(frozen=True)
class Calibration:
    """Predicted beside observed in bins of equally many rows, by ascending prediction; all float64 or int64 [bins]."""

    predicted: np.ndarray
    observed: np.ndarray
    rows: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean of |predicted - observed| over the rows. NaN where there is no row.

        Naeini, Cooper, Hauskrecht 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", section 3;
        with bins of equal counts as in Nguyen and O'Connor 2015, "Posterior Calibration and Exploratory Analysis".
        """
        total = self.rows.sum()
        return float(self.rows @ np.abs(self.predicted - self.observed) / total) if total else float("nan")


def calibration(labels: np.ndarray, probabilities: np.ndarray, *, bins: int = 10) -> Calibration:
    """Mean probability and share of positives in `bins` bins, as many as there are rows at most."""
    p, positive = np.asarray(probabilities, np.float64), np.asarray(labels) > 0
    parts = np.array_split(np.argsort(p, kind="stable"), min(bins, len(p))) if len(p) else []
    return Calibration(
        np.array([p[part].mean() for part in parts]),
        np.array([positive[part].mean() for part in parts]),
        np.array([len(part) for part in parts], np.int64),
    )


def why_no_auc(labels: np.ndarray) -> str:
    """One phrase for a missing AUC, empty where there is one."""
    if not len(labels):
        return "no rows"
    positives = int(np.sum(np.asarray(labels) > 0))
    if positives == 0:
        return "no positive label"
    return "no negative label" if positives == len(labels) else ""


class Ranking:
    """Scores sorted once, for AUCs under many weightings of the rows (a bootstrap)."""

    def __init__(self, labels: np.ndarray, scores: np.ndarray) -> None:
        scores = np.asarray(scores)
        if len(labels) != len(scores):
            raise ValueError(f"{len(labels)} labels, but {len(scores)} scores")
        if not np.all(np.isfinite(scores)):
            raise ValueError("scores must be finite")
        self._order = np.argsort(scores, kind="stable")
        ordered = scores[self._order]
        self._starts = np.flatnonzero(
            np.concatenate([np.ones(min(1, len(ordered)), bool), ordered[1:] != ordered[:-1]])
        )
        self._positive = (np.asarray(labels)[self._order] > 0).astype(np.float64)

    def auc(self, weights: np.ndarray) -> float:
        """AUC where row i counts `weights[i]` times; exact with ties. NaN where a class has no weight."""
        if not len(self._order):
            return float("nan")
        ordered = np.asarray(weights, np.float64)[self._order]
        positive = np.add.reduceat(ordered * self._positive, self._starts)
        negative = np.add.reduceat(ordered * (1 - self._positive), self._starts)
        below = np.cumsum(negative) - negative
        total = positive.sum() * negative.sum()
        return float((positive * (below + negative / 2)).sum() / total) if total > 0 else float("nan")

    def aucs(self, owner: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """AUC under many draws of the rows' owners: `auc(draws[r][owner])` for each r, many times faster; float64 [R].

        owner: int [N], whose each row is; draws: [R, owners], how often each owner was drawn.
        """
        owner, positive = np.asarray(owner)[self._order], self._positive > 0
        starts = np.append(self._starts, len(owner))
        group = np.repeat(np.arange(len(self._starts)), np.diff(starts))[positive]
        negatives = np.concatenate([[0], np.cumsum(~positive)])
        below, upto = negatives[starts[group]], negatives[starts[group + 1]]
        of_negatives, of_positives = owner[~positive], owner[positive]
        found = np.full(len(draws), np.nan)
        for place, draw in enumerate(np.asarray(draws, np.float64)):
            count = np.concatenate([[0.0], np.cumsum(draw[of_negatives])])
            weight = draw[of_positives]
            if total := weight.sum() * count[-1]:
                found[place] = weight @ (count[below] + count[upto]) / (2 * total)
        return found
