"""GRU4Rec: a gated recurrent network over the history (Hidasi et al. 2016, arXiv 1511.06939)."""

from pydantic import PositiveInt
from torch import Tensor, nn

from ctr_models.sequential.blocks import Dropout
from ctr_models.sequential.zoo import Inputs, NetworkConfig, Objective

OBJECTIVE: Objective = "next_item"


class Config(NetworkConfig, frozen=True):
    """One layer; its state is brought to the items' width by a linear layer."""

    layers: PositiveInt = 1
    hidden: PositiveInt = 128
    """Width of the recurrent state."""


class Network(nn.Module):
    """norm(linear(dropout(gru(dropout(item)))))."""

    def __init__(self, config: Config, max_length: int) -> None:
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.gru = nn.GRU(config.width, config.hidden, config.layers, batch_first=True)
        self.outward, self.norm = nn.Linear(config.hidden, config.width), nn.LayerNorm(config.width)

    def forward(self, inputs: Inputs) -> Tensor:
        states, _ = self.gru(self.dropout(inputs.elements_BLE))
        return self.norm(self.outward(self.dropout(states)))
