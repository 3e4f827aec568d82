"""SASRec: causal self-attention over the history (Kang and McAuley 2018, arXiv 1808.09781).

The loss is not the paper's: with the full softmax instead of one sampled negative the same network is far stronger
(Klenitskiy and Vasilev 2023, "Turning Dross Into Gold Loss"). Blocks are those of the authors' released program, not of
the paper's section 3.2: only queries are normalised before attention, and what is added to is the normalised value.
"""

import math

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from ctr_models.sequential.blocks import Block, Dropout
from ctr_models.sequential.zoo import Inputs, NetworkConfig, Objective

OBJECTIVE: Objective = "next_item"


class Config(NetworkConfig, frozen=True):
    """Sizes of the original: two blocks of one head, the feed-forward layer as wide as the items."""

    blocks: PositiveInt = 2
    heads: PositiveInt = 1
    feed_forward: PositiveInt = 1
    """Width of the hidden feed-forward layer as a multiple of the items' width."""


class Network(nn.Module):
    """norm(block(block(dropout(item * sqrt(E) + place)))).

    Places are counted from the oldest item that is shown. Counted from the newest, as where histories are padded in
    front, the place of the last item is learned from one answer a sequence, and none says how far a user has come.
    """

    def __init__(self, config: Config, max_length: int) -> None:
        super().__init__()
        width = config.width
        self.places, self.dropout = nn.Parameter(torch.randn(max_length, width) * 0.02), Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            _Block(width, config.heads, config.feed_forward * width, dropout=config.dropout, activation=nn.ReLU())
            for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(width)
        self._scale = math.sqrt(width)

    def forward(self, inputs: Inputs) -> Tensor:
        many = inputs.elements_BLE.shape[1]
        values_BLE = self.dropout(inputs.elements_BLE * self._scale + self.places[:many])
        for block in self.blocks:
            values_BLE = block(values_BLE)
        return self.norm(values_BLE)


class _Block(Block):
    """q = norm(x), a = norm(q + attention(q, x)), a + dropout(f(a))."""

    def forward(self, values_BLE: Tensor) -> Tensor:
        queries_BLE = self.norm(values_BLE)
        values_BLE = self.second_norm(queries_BLE + self.attention(queries_BLE, values_BLE, None))
        return values_BLE + self.dropout(self.forward_layer(values_BLE))
