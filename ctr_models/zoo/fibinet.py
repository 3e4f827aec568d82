"""FiBiNET: fields weighed by their importance (SENET), and bilinear interactions of all pairs, before an MLP.

Huang, Zhang, Zhang 2019, "FiBiNET: Combining Feature Importance and Bilinear Feature Interaction for Click-Through Rate
Prediction", sections 3.2 (SENET), 3.3 (bilinear interaction with one matrix for each field) and 3.4 to 3.6. Plain and
reweighed embeddings share the matrices. The history enters as the mean of its liked and the mean of its disliked items.
"""

from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from ctr_models.layers import MLP
from ctr_models.zoo import FirstOrderConfig, Hidden, Inputs, Shape, first_order


class Config(FirstOrderConfig, frozen=True):
    """How far SENET squeezes the fields, sizes of the MLP."""

    embedding_size: PositiveInt = 10
    """As in section 4.1. The MLP sees two embeddings for each pair of fields, 6,000 numbers for 25 fields of 10."""
    reduction: PositiveInt = 3
    hidden: Hidden = (64, 64)


class Network(nn.Module):
    """logit = first-order weights + MLP(bilinear pairs of embeddings, the same of reweighed embeddings)."""

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__()
        fields, size = shape.fields + shape.pooled_fields, config.embedding_size
        self.importance = Importance(fields, max(1, fields // config.reduction))
        self.pairs = BilinearPairs(fields, size)
        self.mlp = MLP(fields * (fields - 1) * size, config.hidden, 1, dropout=config.dropout)

    def forward(self, inputs: Inputs) -> Tensor:
        weight_B, embeddings = first_order(inputs)
        pairs_BPD = self.pairs(embeddings, self.importance(embeddings))
        return weight_B + self.mlp(pairs_BPD.flatten(1)).squeeze(1)


class Importance(nn.Module):
    """A weight for each field, of the means of all embeddings: [B, F, D] -> [B, F]."""

    def __init__(self, fields: int, squeezed: int) -> None:
        super().__init__()
        self.excite = nn.Sequential(nn.Linear(fields, squeezed), nn.ReLU(), nn.Linear(squeezed, fields), nn.ReLU())

    def forward(self, fields_BFD: Tensor) -> Tensor:
        return self.excite(fields_BFD.mean(dim=2))


class BilinearPairs(nn.Module):
    """(v_i W_i) * v_j for all pairs i < j, first those of i = 0: [B, F, D] -> [B, F (F - 1) / 2, D]."""

    def __init__(self, fields: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(fields - 1, size, size))
        nn.init.normal_(self.weight, std=size**-0.5)

    def forward(self, fields_BFD: Tensor, weight_BF: Tensor) -> Tensor:
        turned = (fields_BFD[:, :-1].transpose(0, 1) @ self.weight).transpose(0, 1)
        weight_BF1 = weight_BF[..., None]
        return _Pairs.apply(turned, fields_BFD, turned * weight_BF1[:, :-1], fields_BFD * weight_BF1)


class _Pairs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *sides: Tensor) -> Tensor:
        ctx.save_for_backward(*sides)
        rows, fields, size = sides[1].shape
        pairs = sides[0].new_empty(rows, fields * (fields - 1), size)
        place = 0
        for left, right in (sides[:2], sides[2:]):
            for i in range(fields - 1):
                end = place + fields - 1 - i
                torch.mul(left[:, i : i + 1], right[:, i + 1 :], out=pairs[:, place:end])
                place = end
        return pairs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        sides, upstream, place = ctx.saved_tensors, gradients[0], 0
        found = []
        for left, right in (sides[:2], sides[2:]):
            to_left, to_right = torch.empty_like(left), torch.zeros_like(right)
            for i in range(left.shape[1]):
                end = place + left.shape[1] - i
                torch.sum(upstream[:, place:end] * right[:, i + 1 :], dim=1, out=to_left[:, i])
                to_right[:, i + 1 :].addcmul_(upstream[:, place:end], left[:, i : i + 1])
                place = end
            found += [to_left, to_right]
        return tuple(found)
