"""DCN: crosses of bounded degree with one weight vector a layer, beside an MLP.

Wang, Fu, Fu, Wang 2017, "Deep & Cross Network for Ad Click Predictions", section 2: cross layer (equation 3), MLP, and
their combination. The history enters as the mean of its liked and the mean of its disliked items.
"""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from ctr_models.layers import MLP
from ctr_models.zoo import Hidden, Inputs, NetworkConfig, Shape, pooled_history


class Config(NetworkConfig, frozen=True):
    """Depth of the cross network, sizes of the MLP."""

    cross_layers: PositiveInt = 3
    hidden: Hidden = (128, 64)


class Network(nn.Module):
    """logit = linear(crosses, MLP)."""

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__()
        width = (shape.fields + shape.pooled_fields) * shape.width
        self.crosses = nn.ModuleList(Cross(width) for _ in range(config.cross_layers))
        self.mlp = MLP(width, config.hidden[:-1], config.hidden[-1], dropout=config.dropout)
        self.out = nn.Linear(width + config.hidden[-1], 1)

    def forward(self, inputs: Inputs) -> Tensor:
        fields = torch.cat([inputs.fields_BFD, pooled_history(inputs)], dim=1)
        x = x0 = fields.flatten(1)
        for cross in self.crosses:
            x = cross(x0, x)
        return self.out(torch.cat([x, self.mlp.of_fields(fields, inputs.own).relu()], dim=1)).squeeze(1)


class Cross(nn.Module):
    """x_0 (x_l^T w) + b + x_l, all [B, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Linear(width, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        return torch.addcmul(x + self.bias, x0, self.weight(x))
