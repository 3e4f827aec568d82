"""BERT4Rec: attention in both directions, learned by filling in hidden items (Sun et al. 2019, arXiv 1904.06690).

Blocks normalise before each layer and not after it as in the paper, so that they train without a warm-up.
"""

from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from ctr_models.sequential.blocks import Block, Dropout
from ctr_models.sequential.zoo import Inputs, NetworkConfig, Objective

OBJECTIVE: Objective = "masked_item"


class Config(NetworkConfig, frozen=True):
    """Two blocks of two heads with the feed-forward layer four times as wide, as in the paper."""

    blocks: PositiveInt = 2
    heads: PositiveInt = 2
    feed_forward: PositiveInt = 4
    """Width of the hidden feed-forward layer as a multiple of the items' width."""
    hidden_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of a sequence's items that is hidden at a time."""


class Network(nn.Module):
    """norm(gelu(linear(norm(block(block(dropout(item + place))))))), the head of equation 7.

    Places are counted from the newest item: a question always hides the last one.
    """

    def __init__(self, config: Config, max_length: int) -> None:
        super().__init__()
        width = config.width
        self.places, self.dropout = nn.Parameter(torch.randn(max_length, width) * 0.02), Dropout(config.dropout)
        self.first_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            _Block(width, config.heads, config.feed_forward * width, dropout=config.dropout, activation=nn.GELU())
            for _ in range(config.blocks)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))

    def forward(self, inputs: Inputs) -> Tensor:
        back_BL = inputs.length_B[:, None] - 1 - torch.arange(inputs.elements_BLE.shape[1])
        places_BLE = functional.embedding(back_BL.clamp(min=0), self.places)
        values_BLE = self.dropout(self.first_norm(inputs.elements_BLE + places_BLE))
        for block in self.blocks:
            values_BLE = block(values_BLE, inputs.length_B)
        return self.head(values_BLE)


class _Block(Block):
    """x + dropout(f(norm(x))) for attention and then for a feed-forward layer."""

    def forward(self, values_BLE: Tensor, length_B: Tensor) -> Tensor:
        normed_BLE = self.norm(values_BLE)
        values_BLE = values_BLE + self.dropout(self.attention(normed_BLE, normed_BLE, length_B))
        return values_BLE + self.dropout(self.forward_layer(self.second_norm(values_BLE)))
