"""What is a CTR model? A file of this folder: a `Config` and a `Network` over embedded fields and a history.

A network never sees ids, columns or where a field came from. Contract, tested for every file:

    class Config(NetworkConfig): ...            its constructor argument, and its line in the run's TOML
    class Network(nn.Module):
        def __init__(self, config: Config, shape: Shape) -> None
        def forward(self, inputs: Inputs) -> Tensor    # logits, float [B]

Shapes: B rows, F fields, D width of a field, L places of a history, V rows of a channel's table, E its width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import BaseModel, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from ctr_models.layers import lookup, mean_pool

Hidden = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class NetworkConfig(BaseModel, extra="forbid", frozen=True):
    """What every network has: its size, and how it is optimised (Adam; Kingma and Ba 2015)."""

    embedding_size: PositiveInt = 16
    learning_rate: PositiveFloat = 2e-3
    l2: NonNegativeFloat = 1e-5
    """L2 penalty of the network's weights: half of this times their squares is added to the mean loss."""
    embedding_l2: NonNegativeFloat = 3e-3
    """L2 penalty of the embedding table. Not decoupled as in AdamW: Adam scales it up for rows that are seen rarely."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def width(self) -> int:
        """Numbers a field brings; models with a weight beside the embedding ask for more."""
        return self.embedding_size


@dataclass(frozen=True)
class Shape:
    """Sizes a network is built for. fields: F. channels: width E and whether the target has the channel too."""

    width: int
    fields: int
    channels: tuple[tuple[int, bool], ...]

    @property
    def pooled_fields(self) -> int:
        """How many fields `pooled_history` makes."""
        return sum(2 * width // self.width for width, on_target in self.channels if on_target)


@dataclass(frozen=True)
class Channel:
    """One view of the history's items: table_VE (row 0 zero, padding), rows_BL (int32), and the target's row [B, E].

    target_BE is None where only the history has it (the rating the user gave).
    """

    table_VE: Tensor
    rows_BL: Tensor
    target_BE: Tensor | None

    def elements_BLE(self) -> Tensor:
        """The history written out; zero at padding."""
        return lookup(self.table_VE, self.rows_BL)


@dataclass(frozen=True)
class Inputs:
    """What a network sees. fields_BFD; channels of the history, newest first; mask_BL: a place is filled; liked_BL.

    The history (rows_BL, mask_BL, liked_BL) may have one row that holds for all of the batch: one user's candidates.
    """

    fields_BFD: Tensor
    channels: Sequence[Channel]
    mask_BL: Tensor
    liked_BL: Tensor


def pooled_history(inputs: Inputs) -> Tensor:
    """Mean of the liked and mean of the disliked history as fields [B, pooled fields, D]; zero where there is none."""
    width = inputs.fields_BFD.shape[2]
    pools = []
    for channel in inputs.channels:
        if channel.target_BE is not None:
            for chosen in (inputs.liked_BL, ~inputs.liked_BL):
                mean = mean_pool(channel.table_VE, channel.rows_BL * chosen)
                pools.append(mean.unflatten(1, (-1, width)))
    return torch.cat(pools, dim=1).expand(len(inputs.fields_BFD), -1, -1)
