"""xDeepFM: a compressed interaction network (CIN) crosses whole embeddings, beside first-order weights and an MLP.

Lian, Zhou, Zhang, Chen, Xie, Sun 2018, "xDeepFM: Combining Explicit and Implicit Feature Interactions for Recommender
Systems", sections 3.1 (CIN, equations 6 and 8, without an activation as section 4.4 finds best) and 3.2. The history
enters as the mean of its liked and the mean of its disliked items.
"""

from collections.abc import Sequence

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from ctr_models.layers import MLP
from ctr_models.zoo import FirstOrderConfig, Hidden, Inputs, Shape, first_order


class Config(FirstOrderConfig, frozen=True):
    """Feature maps of each layer of the CIN, sizes of the MLP."""

    embedding_size: PositiveInt = 10
    """As in section 4.1."""
    cin: Hidden = (16, 16)
    hidden: Hidden = (128, 64)


class Network(nn.Module):
    """logit = first-order weights + linear(CIN) + MLP."""

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__()
        fields = shape.fields + shape.pooled_fields
        self.cin = CIN(fields, config.cin)
        self.out = nn.Linear(sum(config.cin), 1, bias=False)
        self.mlp = MLP(fields * config.embedding_size, config.hidden, 1, dropout=config.dropout)

    def forward(self, inputs: Inputs) -> Tensor:
        weight_B, embeddings = first_order(inputs)
        crossed = self.out(self.cin(embeddings)) + self.mlp.of_fields(embeddings, inputs.own)
        return weight_B + crossed.squeeze(1)


class CIN(nn.Module):
    """Feature maps X^k_n = sum_ij W^k_nij (X^{k-1}_i * X^0_j), each summed over the embedding: [B, F, D] -> [B, maps].

    Of the last layer only the sums are wanted, which need no feature map: sum_d X_id Y_jd is one product of matrices.
    """

    def __init__(self, fields: int, maps: Sequence[int]) -> None:
        super().__init__()
        before = [fields, *maps[:-1]]
        self.weights = nn.ParameterList(torch.empty(n, m, fields) for n, m in zip(maps, before, strict=True))
        for weight in self.weights:
            nn.init.normal_(weight, std=(weight.shape[1] * fields) ** -0.5)

    def forward(self, fields_BFD: Tensor) -> Tensor:
        x0_BDF = fields_BFD.transpose(1, 2).contiguous()
        x_BDM, sums = x0_BDF, []
        for weight in self.weights[:-1]:
            weighed = (x0_BDF @ weight.flatten(0, 1).t()).unflatten(2, weight.shape[:2])
            x_BDM = (weighed * x_BDM[:, :, None]).sum(dim=3)
            sums.append(x_BDM.sum(dim=1))
        products_BMF = x_BDM.transpose(1, 2) @ x0_BDF
        return torch.cat([*sums, products_BMF.flatten(1) @ self.weights[-1].flatten(1).t()], dim=1)
