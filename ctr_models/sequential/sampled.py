"""Where does the right item stand among a few items drawn at random? For comparison with published numbers only.

A metric over sampled candidates is not an estimate of the same metric over the catalogue: it is another metric, which
mostly looks at how a model orders the middle of its ranking, and it may put models into another order, even on average
over all draws (Krichene and Rendle 2020, "On Sampled Metrics for Item Recommendation", sections 4 and 5). So it stands
beside full ranking, never instead of it, and its name says how many items were drawn, and how.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import BaseModel, NonNegativeInt, PositiveInt

from ctr_models.sequential.histories import parts
from ctr_models.sequential.metrics import hits, ndcg, reciprocal_rank
from ctr_models.sequential.sequences import Queries, Sequences

DRAWN_ROWS = 256


class Sampled(BaseModel, extra="forbid", frozen=True):
    """Candidates of a query beside its target: drawn once, the same for every model, arm and seed."""

    negatives: PositiveInt = 100
    drawn: Literal["uniform", "popularity"] = "uniform"
    """All items alike, or by their training rows (which then must be there)."""
    seed: NonNegativeInt = 0

    @property
    def name(self) -> str:
        """What stands before the metric, as in "sampled@100 uniform ndcg@10"."""
        return f"sampled@{self.negatives} {self.drawn}"


def candidates(config: Sampled, data: Sequences, queries: Queries) -> np.ndarray:
    """Item numbers drawn for each query without replacement, int32 [Q, negatives]; 0 where too few are left.

    Never the target, nor an item of the history. By popularity, an item is drawn in proportion to its training rows:
    the smallest of exponential variables over the weights (Efraimidis and Spirakis 2006).
    """
    weight = np.ones(data.n_items + 1) if config.drawn == "uniform" else data.counts.astype(np.float64)
    weight[0] = 0
    scale = np.full(len(weight), np.inf, np.float32)
    scale[weight > 0] = 1 / weight[weight > 0]
    random = np.random.default_rng(config.seed)
    found = np.zeros((len(queries), config.negatives), np.int32)
    for places in parts(np.ones(len(queries), np.int64), np.arange(len(queries)), tokens=DRAWN_ROWS):
        history = queries.history.take(places)
        order = random.standard_exponential((len(places), len(scale)), np.float32)
        order += np.finfo(np.float32).tiny  # 0 times infinity would be no number
        order *= scale
        order[np.repeat(np.arange(len(places)), history.lengths), history.item] = np.inf
        order[np.arange(len(places)), queries.target[places]] = np.inf
        many = min(config.negatives, len(scale))
        chosen = np.argpartition(order, many - 1, axis=1)[:, :many]
        there = np.isfinite(np.take_along_axis(order, chosen, axis=1))
        found[places, :many] = np.where(there, chosen, 0)
    return found


def ranks_among(scores: np.ndarray, target: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Place of each target among the items `drawn` [B, n] and itself, from 1; 0 where it cannot be recommended.

    scores: float32 [B, 1 + items], -inf where an item cannot be recommended. Of equals the smaller number goes first.
    """
    value = scores[np.arange(len(target)), target][:, None]
    theirs = np.where(drawn > 0, np.take_along_axis(scores, drawn, axis=1), -np.inf)
    before = ((theirs > value) | ((theirs == value) & (drawn < target[:, None]))).sum(axis=1)
    return np.where(np.isfinite(value[:, 0]), before + 1, 0).astype(np.int32)


def sampled_summary(name: str, ranks: np.ndarray, cuts: tuple[int, ...]) -> Mapping[str, float]:
    """HR, NDCG and MRR over sampled candidates under names that say so; NaN where there is no query."""
    found = {}
    for k in cuts:
        for metric, values in (("hr", hits(ranks, k)), ("ndcg", ndcg(ranks, k)), ("mrr", reciprocal_rank(ranks, k))):
            found[f"{name} {metric}@{k}"] = float(values.mean()) if len(values) else float("nan")
    return found
