"""What stands for an item in a sequential model? A row of text dimensions, of learned ids, or of both side by side."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

ID_SCALE = 0.02
"""Standard deviation of learned ids at the start, where no text gives a scale."""


@dataclass(frozen=True)
class ItemText:
    """Reduced text vectors of items. vectors: float32 [1 + items, width], row 0 and rows without a text zero.

    known: bool [1 + items], which rows have a text.
    """

    vectors: np.ndarray
    known: np.ndarray


class ItemTable(nn.Module):
    """Embeddings of the items that occur in training rows, row 0 padding: [1 + items, width].

    The first dimensions start as text and are trained or frozen; the others are ids, trained always. Where a text is
    missing, trained dimensions start like ids and frozen ones stay zero.
    """

    def __init__(self, n_items: int, width: int, text: ItemText | None = None, *, trainable: bool = True) -> None:
        super().__init__()
        of_text = 0 if text is None else text.vectors.shape[1]
        self.text: Tensor | None = None
        if text is not None:
            start = torch.from_numpy(text.vectors[: n_items + 1].copy())
            told = torch.from_numpy(text.known[: n_items + 1].copy())
            if trainable:
                spread = start[told].std() if told.any() else torch.tensor(ID_SCALE)
                start[~told] = torch.randn(int((~told).sum()), of_text) * spread
                start[0] = 0
                self.text = nn.Parameter(start)
            else:
                del self.text
                self.register_buffer("text", start)
        self.ids = nn.Parameter(torch.randn(n_items + 1, width - of_text) * ID_SCALE) if width > of_text else None
        if self.ids is not None:
            self.ids.data[0] = 0

    def weight(self) -> Tensor:
        """The whole table [1 + items, width]."""
        present = [part for part in (self.text, self.ids) if part is not None]
        return present[0] if len(present) == 1 else torch.cat(present, dim=1)

    def extended(self, cold: ItemText | None) -> Tensor:
        """The table, and after it a row for each further item of `cold` (text [1 + all items, width], or None).

        A cold item is its text and nothing else: its ids are zero.
        """
        table = self.weight().detach()
        if cold is None or len(cold.vectors) <= len(table):
            return table
        further = torch.from_numpy(cold.vectors[len(table) :])
        rows = torch.zeros(len(further), table.shape[1])
        rows[:, : further.shape[1]] = further
        return torch.cat([table, rows])
