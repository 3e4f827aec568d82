"""LLMSeqSim: items whose text is nearest to the texts of the session (Harte et al. 2023, arXiv 2309.09261).

A session's vector is the weighted mean of its items' vectors; nothing is trained.
"""

from typing import Literal

import numpy as np
from pydantic import BaseModel, PositiveInt

from ctr_models.sequential.histories import Histories
from ctr_models.sequential.items import ItemText
from ctr_models.sequential.reduction import ItemInit, fit_reduction
from ctr_models.sequential.sequences import Sequences
from ctr_models.sequential.text import reduced
from ctr_models.sequential.weighting import Weighting, weighted
from ctr_models.text import unit
from storage.errors import ConfigError

NEEDS_TEXT = True


class Config(BaseModel, extra="forbid", frozen=True):
    """The session's vector, and how items are compared with it."""

    weighting: Weighting = "harmonic"
    similarity: Literal["dot", "cosine", "euclidean"] = "cosine"
    reduction: Literal["pca", "random", "lda", "autoencoder"] | None = None
    """Fitted on items of training rows; vectors as they are stored if None."""
    dimensions: PositiveInt = 512
    """Of reduced vectors, at most."""


class Model:
    """One vector a session, one product with all items."""

    def __init__(self, config: Config, data: Sequences, text: ItemText | None) -> None:
        if text is None:
            raise ConfigError("llm_seq_sim needs the vectors of a feature set of items")
        if config.reduction is not None:
            learned = np.flatnonzero(text.known[: data.n_known + 1])
            init = ItemInit(feature_set="", reduction=config.reduction)
            width = min(config.dimensions, text.vectors.shape[1])
            text = reduced(text, fit_reduction(init, text.vectors[learned], width=width))
        self._config, self._text = config, text
        self.recommendable = text.known
        self._compared = unit(text.vectors) if config.similarity == "cosine" else text.vectors

    @property
    def table(self) -> np.ndarray:
        """What sessions are compared with, float32 [1 + items, dim]."""
        return self._compared

    def queries(self, history: Histories) -> np.ndarray:
        """Vectors of sessions, float32 [B, dim]; of unit length for cosine; zero where no item has a text."""
        n_items = len(self._text.vectors) - 1
        mixed = weighted(self._config.weighting, history, n_items, known=self._text.known)
        total = np.asarray(mixed.sum(axis=1))
        vectors = np.asarray(mixed @ self._text.vectors) / np.where(total > 0, total, 1)
        return (unit(vectors) if self._config.similarity == "cosine" else vectors).astype(np.float32)

    def scores(self, history: Histories) -> np.ndarray:
        """float32 [B, 1 + items]: product, cosine, or minus the squared distance; -inf for items without a text."""
        queries = self.queries(history)
        scores = queries @ self._compared.T
        if self._config.similarity == "euclidean":
            scores *= 2
            scores -= np.square(self._compared).sum(axis=1)
            scores -= np.square(queries).sum(axis=1, keepdims=True)
        scores[:, ~self.recommendable] = -np.inf
        return scores
