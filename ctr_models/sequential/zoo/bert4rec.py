"""BERT4Rec: attention in both directions, learned by filling in hidden items (Sun et al. 2019, arXiv 1904.06690).

Blocks normalise before each layer and not after it as in the paper, so that they train without a warm-up.
"""

from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ctr_models.sequential.blocks import Block, Dropout, Places
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
    """norm(gelu(linear(norm(block(block(dropout(item + place))))))), the head of equation 7."""

    def __init__(self, config: Config, max_length: int) -> None:
        super().__init__()
        width = config.width
        self.places, self.dropout = Places(max_length, width), Dropout(config.dropout)
        self.first_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.feed_forward * width, dropout=config.dropout, activation=nn.GELU())
            for _ in range(config.blocks)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))

    def forward(self, inputs: Inputs) -> Tensor:
        values_BLE = self.dropout(self.first_norm(inputs.elements_BLE + self.places(inputs)))
        for block in self.blocks:
            values_BLE = block(values_BLE, inputs.length_B)
        return self.head(values_BLE)
