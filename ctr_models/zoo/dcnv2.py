"""DCN-V2: explicit crosses of bounded degree beside an MLP, in parallel.

Wang, Shivanna, Cheng, Jain, Lin, Hong, Chi 2021, "DCN V2: Improved Deep & Cross Network", section 3: the parallel
structure (figure 1b), each cross layer of low rank (section 4.2). The history enters as the mean of its liked and the
mean of its disliked items.
"""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from ctr_models.layers import MLP, fields_linear
from ctr_models.zoo import Hidden, Inputs, NetworkConfig, Shape, pooled_history


class Config(NetworkConfig, frozen=True):
    """Depth and rank of the cross layers, sizes of the MLP."""

    cross_layers: PositiveInt = 2
    rank: PositiveInt = 64
    hidden: Hidden = (128, 64)


class Network(nn.Module):
    """logit = linear(crosses, MLP)."""

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__()
        width = (shape.fields + shape.pooled_fields) * shape.width
        self.crosses = nn.ModuleList(_LowRank(width, config.rank) for _ in range(config.cross_layers))
        self.mlp = MLP(width, config.hidden[:-1], config.hidden[-1], dropout=config.dropout)
        self.out = nn.Linear(width + config.hidden[-1], 1)

    def forward(self, inputs: Inputs) -> Tensor:
        fields = torch.cat([inputs.fields_BFD, pooled_history(inputs)], dim=1)
        x = x0 = fields.flatten(1)
        for place, cross in enumerate(self.crosses):
            down, up = cross.children()
            assert isinstance(down, nn.Linear)
            low = down(x) if place else fields_linear(down, fields, inputs.own)
            x = torch.addcmul(x, x0, up(low))  # x_{l+1} = x_0 * (U V^T x_l + b) + x_l
        return self.out(torch.cat([x, self.mlp.of_fields(fields, inputs.own).relu()], dim=1)).squeeze(1)


class _LowRank(nn.Sequential):
    def __init__(self, width: int, rank: int) -> None:
        super().__init__(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))
