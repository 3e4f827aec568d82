"""What is a vector without a model? Signed hashed words: deterministic, instant, for tests and dry runs.

Feature hashing with a sign, as in Weinberger et al. 2009 (arXiv 0902.2206), section 2: equal words meet, others
cancel in expectation.
"""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, PositiveInt

from llm_features import encoders
from llm_features.encoders import Encoded, refuse_blank

_WORDS = re.compile(r"\w+")


class Config(BaseModel, extra="forbid", frozen=True):
    """Options of the encoder."""

    dim: PositiveInt = 64
    """Numbers in a vector."""
    max_words: PositiveInt = 256
    """Words of a text that are seen; further ones are cut off, and the text counts as truncated."""


class Encoder(encoders.Encoder):
    """Every word adds +1 or -1 at one place of the vector; the sum is scaled to length 1."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._places: dict[str, tuple[int, float]] = {}

    @property
    def identity(self) -> str:
        """The scheme and its options."""
        return f"hashing-1 dim={self._config.dim} max_words={self._config.max_words}"

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self._config.dim

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Vectors of texts that are not blank; see `Encoder.encode`."""
        refuse_blank(texts)
        vectors = np.zeros((len(texts), self.dim), np.float32)
        lengths = np.zeros(len(texts), np.int32)
        for row, text in enumerate(texts):
            words = _WORDS.findall(text.lower()) or [text]
            lengths[row] = len(words)
            for word in words[: self._config.max_words]:
                place, sign = self._place(word)
                vectors[row, place] += sign
            if not vectors[row].any():  # its words cancel each other
                vectors[row, self._place(text)[0]] = 1
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Encoded(vectors, lengths, lengths > self._config.max_words)

    def _place(self, word: str) -> tuple[int, float]:
        if word not in self._places:
            number = int.from_bytes(hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()[:8])
            self._places[word] = (number >> 1) % self.dim, 1.0 if number & 1 else -1.0
        return self._places[word]
