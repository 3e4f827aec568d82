"""FinalMLP: two MLPs that see the fields through gates of their own, fused by a bilinear form.

Mao, Zhu, Su, Cai, Li, Dong 2023, "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", section 3: gates of
the streams (3.2), of the user and of the item as proposed there, and fusion in several heads (3.3, equation 7). What
stands for the user is the history, as the mean of its liked and the mean of its disliked items.
"""

from typing import Annotated

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from ctr_models.layers import MLP
from ctr_models.zoo import Hidden, Inputs, NetworkConfig, Shape, pooled_history


class Config(NetworkConfig, frozen=True):
    """Sizes of the gates and of both streams, and how many heads the fusion has."""

    gate: PositiveInt = 64
    hidden: Hidden = (128, 64)
    heads: Annotated[int, Field(ge=1)] = 2
    """Parts into which each stream's output is cut; they divide its size."""

    @model_validator(mode="after")
    def _heads_divide_the_output(self) -> "Config":
        if self.hidden[-1] % self.heads:
            raise ValueError(f"heads is {self.heads}, but must divide the last of hidden, {self.hidden[-1]}")
        return self


class Network(nn.Module):
    """logit = fusion(MLP(fields gated by the history), MLP(fields gated by the target))."""

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__()
        width, size = (shape.fields + shape.pooled_fields) * shape.width, config.hidden[-1]
        target = sum(width for width, on_target in shape.channels if on_target)
        self.gates = nn.ModuleList(MLP(context, (config.gate,), width) for context in (2 * target, target))
        self.streams = nn.ModuleList(MLP(width, config.hidden[:-1], size, dropout=config.dropout) for _ in range(2))
        self.fusion = Fusion(size, config.heads)

    def forward(self, inputs: Inputs) -> Tensor:
        history = pooled_history(inputs)
        target = torch.cat([c.target_BE for c in inputs.channels if c.target_BE is not None], dim=1)
        fields = torch.cat([inputs.fields_BFD, history], dim=1).flatten(1)
        outs = []
        for gate, context, stream in zip(self.gates, (history.flatten(1), target), self.streams, strict=True):
            outs.append(stream(2 * gate(context).sigmoid() * fields).relu())
        return self.fusion(*outs)


class Fusion(nn.Module):
    """b + w_1^T o_1 + w_2^T o_2 + sum over heads of o_1h^T W_h o_2h: two [B, size] -> [B]."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * size, 1)
        self.weight = nn.Parameter(torch.empty(heads, size // heads, size // heads))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        heads = len(self.weight)
        left_HBS = one.unflatten(1, (heads, -1)).transpose(0, 1) @ self.weight
        crossed = left_HBS.transpose(0, 1).flatten(1) * other
        return self.linear(torch.cat([one, other], dim=1)).squeeze(1) + crossed.sum(dim=1)
