"""How are many item sequences held, cut and laid out in rectangles? One flat array, and no padding but at the end.

Items are dense numbers: 1 ... `n_known` occur in training rows, larger ones are in the catalogue only, 0 is nobody's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PART_TOKENS = 4096
"""Places of a rectangle at most: what one part of a batch computes fits a processor's caches."""


@dataclass(frozen=True)
class Histories:
    """Sequences of item numbers, each oldest first. item: int32 [all items]; start: int64 [sequences + 1]."""

    item: np.ndarray
    start: np.ndarray

    def __post_init__(self) -> None:
        if self.start[0] != 0 or self.start[-1] != len(self.item) or np.any(np.diff(self.start) < 0):
            raise ValueError(f"starts must rise from 0 to the {len(self.item)} items, not {self.start}")

    def __len__(self) -> int:
        return len(self.start) - 1

    def __getitem__(self, place: int) -> np.ndarray:
        return self.item[self.start[place] : self.start[place + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Items of each sequence; int64 [sequences]."""
        return np.diff(self.start)

    @staticmethod
    def of(sequences: Sequence[Sequence[int] | np.ndarray]) -> "Histories":
        """From one array of item numbers for each sequence."""
        start = np.concatenate([[0], np.cumsum([len(one) for one in sequences], dtype=np.int64)])
        flat = np.concatenate([np.asarray(one, np.int32) for one in sequences]) if len(sequences) else []
        return Histories(np.asarray(flat, np.int32), start.astype(np.int64))

    def take(self, places: np.ndarray) -> "Histories":
        """The sequences at `places`, in that order."""
        return Histories.of([self[place] for place in places])

    def only(self, usable: np.ndarray) -> "Histories":
        """The same sequences without the items that are not usable (bool [numbers]), or beyond the numbers."""
        inside = self.item < len(usable)
        kept = inside & usable[np.where(inside, self.item, 0)]
        counts = np.concatenate([[0], np.cumsum(kept)])
        return Histories(self.item[kept], counts[self.start])

    def newest(self, length: int) -> "Histories":
        """The newest `length` items of each sequence."""
        if not len(self) or self.lengths.max() <= length:
            return self
        place = np.arange(len(self.item)) - np.repeat(self.start[1:], self.lengths)
        kept = place >= -length
        counts = np.concatenate([[0], np.cumsum(kept)])
        return Histories(self.item[kept], counts[self.start])

    def rectangle(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """The sequences at `places` as int32 [B, longest], 0 after each one's end, and their lengths int64 [B]."""
        lengths = self.lengths[places]
        column = np.arange(max(1, int(lengths.max(initial=0))))
        inside = column < lengths[:, None]
        items = np.zeros(inside.shape, np.int32)
        items[inside] = self.item[(self.start[places, None] + column)[inside]]
        return torch.from_numpy(items), torch.from_numpy(lengths)


def parts(lengths: np.ndarray, places: np.ndarray, *, tokens: int = PART_TOKENS) -> Iterator[np.ndarray]:
    """`places` in groups of like length, each a rectangle of at most `tokens` places (but at least one sequence).

    lengths: of all sequences. A batch whose parts are computed one after the other costs what its items cost, not
    what its longest sequence makes of them.
    """
    ordered = places[np.argsort(-lengths[places], kind="stable")]
    first = 0
    while first < len(ordered):
        many = max(1, tokens // max(1, int(lengths[ordered[first]])))
        yield ordered[first : first + many]
        first += many
