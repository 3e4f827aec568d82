"""Item-item by text: each item of the history votes for the items whose texts are nearest to its own.

The item-based neighbourhood model (Sarwar et al. 2001) with similarities from text instead of from clicks.
"""

import numpy as np
from pydantic import BaseModel, PositiveInt
from scipy.sparse import csr_matrix, vstack

from ctr_models.sequential.baselines.vsknn import nearest
from ctr_models.sequential.histories import Histories, parts
from ctr_models.sequential.items import ItemText
from ctr_models.sequential.ranking import SCORE_ROWS
from ctr_models.sequential.sequences import Sequences
from ctr_models.sequential.weighting import Weighting, votes, weighted
from ctr_models.text import unit
from storage.errors import ConfigError

NEEDS_TEXT = True


class Config(BaseModel, extra="forbid", frozen=True):
    """The neighbourhood."""

    neighbours: PositiveInt = 50
    weighting: Weighting = "mean"


class Model:
    """A sparse matrix of cosines between each item and its nearest."""

    def __init__(self, config: Config, data: Sequences, text: ItemText | None) -> None:
        if text is None:
            raise ConfigError("item_text needs the vectors of a feature set of items")
        self._config, self._known = config, text.known
        vectors = unit(text.vectors)
        rows = []
        for places in parts(np.ones(len(vectors), np.int64), np.arange(len(vectors)), tokens=SCORE_ROWS):
            cosine = vectors[places] @ vectors.T
            cosine[np.arange(len(places)), places] = 0
            wanted = np.argpartition(-cosine, min(config.neighbours, len(vectors) - 1), axis=1)[:, : config.neighbours]
            kept = np.zeros_like(cosine)
            np.put_along_axis(kept, wanted, np.take_along_axis(cosine, wanted, axis=1), axis=1)
            rows.append(nearest(csr_matrix(kept), config.neighbours))
        self._neighbours = csr_matrix(vstack(rows))

    def scores(self, history: Histories) -> np.ndarray:
        """float32 [B, 1 + items]; -inf for items without a text."""
        mixed = weighted(self._config.weighting, history, len(self._known) - 1)
        scores = votes(mixed, self._neighbours)
        scores[:, ~self._known] = -np.inf
        return scores
