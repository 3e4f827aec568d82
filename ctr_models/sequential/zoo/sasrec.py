"""SASRec: causal self-attention over the history (Kang and McAuley 2018, arXiv 1808.09781).

The loss is not the paper's: with the full softmax instead of one sampled negative the same network is far stronger
(Klenitskiy and Vasilev 2023, "Turning Dross Into Gold Loss").
"""

import math

from pydantic import PositiveInt
from torch import Tensor, nn

from ctr_models.sequential.blocks import Block, Dropout, Places
from ctr_models.sequential.zoo import Inputs, NetworkConfig, Objective

OBJECTIVE: Objective = "next_item"


class Config(NetworkConfig, frozen=True):
    """Sizes of the original: two blocks of one head, the feed-forward layer as wide as the items."""

    blocks: PositiveInt = 2
    heads: PositiveInt = 1
    feed_forward: PositiveInt = 1
    """Width of the hidden feed-forward layer as a multiple of the items' width."""


class Network(nn.Module):
    """norm(block(block(dropout(item * sqrt(E) + place))))."""

    def __init__(self, config: Config, max_length: int) -> None:
        super().__init__()
        width = config.width
        self.places, self.dropout = Places(max_length, width), Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.feed_forward * width, dropout=config.dropout, activation=nn.ReLU())
            for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(width)
        self._scale = math.sqrt(width)

    def forward(self, inputs: Inputs) -> Tensor:
        values_BLE = self.dropout(inputs.elements_BLE * self._scale + self.places(inputs))
        for block in self.blocks:
            values_BLE = block(values_BLE, None)
        return self.norm(values_BLE)
