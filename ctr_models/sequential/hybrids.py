"""How are two recommenders made one? The three hybrids of Harte et al. 2024 (arXiv 2402.01339).

Each is itself a scorer. Popularity is counted in training sequences only; in the paper's code test rows count too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field, PositiveInt

from ctr_models.sequential.histories import Histories
from ctr_models.sequential.metrics import CUTS
from ctr_models.sequential.ranking import Scorer, best, unseen
from ctr_models.sequential.sequences import Sequences

Quantile = Annotated[float, Field(ge=0, le=1)]


class EnsembleConfig(BaseModel, extra="forbid", frozen=True):
    """EmbeddingEnsemble: the first items of one list, then the other list."""

    kind: Literal["ensemble"] = "ensemble"
    first: str
    second: str
    cutoff: PositiveInt = 10
    """So many items come from the first list."""


class SwitchConfig(BaseModel, extra="forbid", frozen=True):
    """LLMSeqSim&Sequential: one recommender after a popular item, the other after a rare one."""

    kind: Literal["switch"] = "switch"
    popular: str
    """Who answers where the newest item's popularity is at or above the quantile (the sequential model)."""
    rare: str
    """Who answers elsewhere (LLMSeqSim)."""
    quantile: Quantile = 0.25


class PopularOnlyConfig(BaseModel, extra="forbid", frozen=True):
    """LLMSeqSim&Popularity: a longer list, from which rare items are dropped as long as enough are left."""

    kind: Literal["popular_only"] = "popular_only"
    of: str
    quantile: Quantile = 0.5
    keep: PositiveInt = max(CUTS)
    """Items left at least."""
    longer: PositiveInt = 5
    """The list that is thinned is so many times longer."""


HybridConfig = Annotated[EnsembleConfig | SwitchConfig | PopularOnlyConfig, Field(discriminator="kind")]


def parts_of(config: EnsembleConfig | SwitchConfig | PopularOnlyConfig) -> tuple[str, ...]:
    """Names of the recommenders that a hybrid is made of."""
    if isinstance(config, EnsembleConfig):
        return config.first, config.second
    return (config.popular, config.rare) if isinstance(config, SwitchConfig) else (config.of,)


def hybrid(
    config: EnsembleConfig | SwitchConfig | PopularOnlyConfig, scorers: Mapping[str, Scorer], data: Sequences
) -> Scorer:
    """The hybrid of the named scorers. Raises KeyError where one is missing."""
    if isinstance(config, EnsembleConfig):
        return Ensemble(scorers[config.first], scorers[config.second], config.cutoff)
    share = popularity(data)
    rare = share < np.quantile(share[data.counts > 0], config.quantile)
    if isinstance(config, SwitchConfig):
        return Switch(scorers[config.popular], scorers[config.rare], rare)
    return PopularOnly(scorers[config.of], rare, config.keep, config.longer * config.keep)


def popularity(data: Sequences) -> np.ndarray:
    """Share of the training sequences that hold each item; float64 [1 + items]."""
    owner = np.repeat(np.arange(len(data.train)), data.train.lengths)
    pairs = np.unique(np.stack([owner, data.train.item]), axis=1)
    return np.bincount(pairs[1], minlength=data.n_items + 1) / max(1, len(data.train))


@dataclass(frozen=True)
class Ensemble:
    """The first `cutoff` items of one scorer, in its order; then everything in the order of the other."""

    first: Scorer
    second: Scorer
    cutoff: int

    def scores(self, history: Histories) -> np.ndarray:
        """float32 [B, 1 + items]; places count, not the scorers' own numbers."""
        ahead = unseen(self.first.scores(history), history)
        scores = _as_places(unseen(self.second.scores(history), history))
        return _on_top(scores, ahead, best(ahead, self.cutoff))


@dataclass(frozen=True)
class Switch:
    """One scorer where the newest item of a history is popular, the other where it is rare or there is none."""

    popular: Scorer
    rare: Scorer
    is_rare: np.ndarray

    def scores(self, history: Histories) -> np.ndarray:
        """float32 [B, 1 + items]."""
        newest = np.array([one[-1] if len(one) else 0 for one in (history[q] for q in range(len(history)))], np.int64)
        rare = self.is_rare[newest]
        scores = np.full((len(history), len(self.is_rare)), -np.inf, np.float32)
        for scorer, places in ((self.rare, np.flatnonzero(rare)), (self.popular, np.flatnonzero(~rare))):
            if len(places):
                scores[places] = scorer.scores(history.take(places))
        return scores


@dataclass(frozen=True)
class PopularOnly:
    """The first `longer` items without the rare ones, the worst of which are dropped first, down to `keep` items."""

    of: Scorer
    is_rare: np.ndarray
    keep: int
    longer: int

    def scores(self, history: Histories) -> np.ndarray:
        """float32 [B, 1 + items]; what is dropped comes after everything that is kept."""
        scores = unseen(self.of.scores(history), history)
        top = best(scores, self.longer)
        there = np.isfinite(np.take_along_axis(scores, top, axis=1))
        rare = self.is_rare[top] & there
        room = np.maximum(0, there.sum(axis=1, keepdims=True) - self.keep)
        from_end = np.cumsum(rare[:, ::-1], axis=1)[:, ::-1]  # rare items from this place to the list's end
        kept = np.where(rare & (from_end <= room), -1, top)
        ordered = np.take_along_axis(kept, np.argsort(kept < 0, axis=1, kind="stable"), axis=1)
        return _on_top(_as_places(scores), scores, ordered)


def _as_places(scores: np.ndarray) -> np.ndarray:
    """The same order with every finite score at most 0, equal ones still equal."""
    greatest = np.max(scores, axis=1, keepdims=True, where=np.isfinite(scores), initial=-np.inf)
    return scores - np.where(np.isfinite(greatest), greatest, 0)


def _on_top(scores: np.ndarray, of: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """`scores` (at most 0) with the items `ahead` [B, k] (-1: none) put before all others, in that order."""
    line = np.arange(len(ahead))[:, None]
    fit = (ahead > 0) & np.isfinite(of[line, np.maximum(ahead, 0)])
    value = np.arange(ahead.shape[1], 0, -1, dtype=np.float32)
    rows, columns = np.nonzero(fit)
    scores[rows, ahead[rows, columns]] = value[columns]
    return scores
