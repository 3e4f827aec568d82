"""What must an encoder do? It turns texts into vectors of length 1. One file here is one encoder.

Each module exports `Config`, a pydantic model (extra="forbid", frozen=True) that is the constructor's only argument,
and `Encoder`, a class that derives from `encoders.Encoder`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydantic import BaseModel

from storage.errors import GenerationError


@dataclass(frozen=True)
class Encoded:
    """What became of some texts, in their order.

    vectors: float32, shape [texts, dim], each of length 1. n_tokens: int32, shape [texts], the encoder's tokens of the
    whole text. truncated: bool, shape [texts], the encoder did not see all of it.

    Raises GenerationError naming the first text whose vector is not finite or not of length 1.
    """

    vectors: np.ndarray
    n_tokens: np.ndarray
    truncated: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.vectors)
        assert self.vectors.dtype == np.float32
        assert self.vectors.ndim == 2
        assert (self.n_tokens.shape, self.n_tokens.dtype) == ((n,), np.int32)
        assert (self.truncated.shape, self.truncated.dtype) == ((n,), np.bool_)
        lengths = np.linalg.norm(self.vectors, axis=1)
        bad = np.flatnonzero(~(np.abs(lengths - 1) < 1e-3))  # not-a-number is bad too
        if len(bad):
            raise GenerationError(f"the encoder gave text {bad[0]} a vector of length {lengths[bad[0]]}, not 1")


class Encoder(Protocol):
    """Turns texts into vectors. What is expensive to load is loaded by the constructor."""

    @property
    def identity(self) -> str:
        """Everything that can change a vector: model, weights, pooling, lengths, number format. Never a path."""
        ...

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Vectors of texts that are not blank. Raises ValueError where one is."""
        ...

    @classmethod
    def settle(cls, config: BaseModel, texts: Sequence[str]) -> tuple[BaseModel, Mapping[str, object]]:
        """`config` with nothing left to the machine, and the numbers that decided it, measured on `texts`."""
        return config, {}


def refuse_blank(texts: Sequence[str]) -> None:
    """Raise ValueError naming the first text without a character to encode."""
    for place, text in enumerate(texts):
        if not text.strip():
            raise ValueError(f"text {place} is blank; a blank text has no vector")
