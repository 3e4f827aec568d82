"""Most popular: the items with most training rows, for everyone alike."""

import numpy as np
from pydantic import BaseModel

from ctr_models.sequential.histories import Histories
from ctr_models.sequential.items import ItemText
from ctr_models.sequential.sequences import Sequences

NEEDS_TEXT = False


class Config(BaseModel, extra="forbid", frozen=True):
    """There is nothing to choose."""


class Model:
    """Scores are training rows; items without any are never recommended."""

    def __init__(self, config: Config, data: Sequences, text: ItemText | None) -> None:
        self._scores = np.where(data.counts > 0, data.counts, -np.inf).astype(np.float32)

    def scores(self, history: Histories) -> np.ndarray:
        """float32 [B, 1 + items]."""
        return np.tile(self._scores, (len(history), 1))
