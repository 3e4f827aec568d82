"""AutoInt+: fields attend to each other in several layers, beside an MLP.

Song, Shi, Xiao, Duan, Xu, Zhang, Tang 2019, "AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural
Networks", section 4.4 (equations 5 to 8: attention by inner products that are not scaled, and residual connections) and
5.5 (the MLP beside it). The history enters as the mean of its liked and the mean of its disliked items.
"""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from ctr_models.layers import MLP
from ctr_models.zoo import Hidden, Inputs, NetworkConfig, Shape, pooled_history


class Config(NetworkConfig, frozen=True):
    """Depth of the attention, its heads and the size of each, sizes of the MLP."""

    layers: PositiveInt = 2
    heads: PositiveInt = 1
    head_size: PositiveInt = 16
    hidden: Hidden = (128, 64)


class Network(nn.Module):
    """logit = linear(attended fields) + MLP(fields)."""

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__()
        fields, size = shape.fields + shape.pooled_fields, config.heads * config.head_size
        widths = [shape.width] + [size] * (config.layers - 1)
        self.interactions = nn.ModuleList(Interaction(width, config.heads, config.head_size) for width in widths)
        self.out = nn.Linear(fields * size, 1)
        self.mlp = MLP(fields * shape.width, config.hidden, 1, dropout=config.dropout)

    def forward(self, inputs: Inputs) -> Tensor:
        fields = torch.cat([inputs.fields_BFD, pooled_history(inputs)], dim=1)
        x = fields
        for interaction in self.interactions:
            x = interaction(x)
        return (self.out(x.flatten(1)) + self.mlp(fields.flatten(1))).squeeze(1)


class Interaction(nn.Module):
    """ReLU(heads of attention among the fields + W x): [B, F, width] -> [B, F, heads * size]."""

    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.heads = heads
        self.maps = nn.Linear(width, 4 * heads * size, bias=False)  # query, key, value, residual

    def forward(self, fields_BFE: Tensor) -> Tensor:
        mapped = self.maps(fields_BFE).unflatten(2, (4, self.heads, -1)).transpose(1, 3)  # B heads 4 F size
        query, key, value, residual = mapped.unbind(2)
        attended = (query @ key.transpose(2, 3)).softmax(dim=3) @ value
        return (attended + residual).relu().transpose(1, 2).flatten(2)
