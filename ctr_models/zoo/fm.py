"""FM: a factorisation machine of degree 2, the inner products of all pairs of features beside their weights.

Rendle 2010, "Factorization Machines", section III: equation 1, computed in linear time by lemma 3.1. Items of the
history are features of their own, apart for liked and disliked ones, as in its figure 1.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ctr_models.layers import pairwise_products
from ctr_models.zoo import Inputs, NetworkConfig, Shape, in_roles


class Config(NetworkConfig, frozen=True):
    """`embedding_size` is the number of factors."""

    dropout: Annotated[float, Field(ge=0, le=0)] = 0.0
    """There is no hidden layer."""

    @property
    def width(self) -> int:
        """A weight and factors: as a field, in the liked, and in the disliked history."""
        return 3 * (1 + self.embedding_size)


class Network(nn.Module):
    """logit = bias + weights + pairwise inner products."""

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Inputs) -> Tensor:
        features = in_roles(inputs)
        return self.bias + features[..., 0].sum(dim=1) + pairwise_products(features[..., 1:])
