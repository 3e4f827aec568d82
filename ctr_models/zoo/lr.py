"""LR: logistic regression, one weight for every value of every field.

McMahan et al. 2013, "Ad Click Prediction: a View from the Trenches", section 3. Items of the history are features too,
apart for liked and disliked ones. Nothing is crossed, so what this user likes and others do not cannot be said except
through fields that compare user and item.
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctr_models.zoo import Inputs, NetworkConfig, Shape, in_roles


class Config(NetworkConfig, frozen=True):
    """Nothing but its optimisation is to be chosen."""

    additive: ClassVar[bool] = True
    embedding_size: Literal[1] = 1
    """One weight for a value."""
    dropout: Annotated[float, Field(ge=0, le=0)] = 0.0
    """There is no hidden layer."""

    @property
    def width(self) -> int:
        """The weight of a value as a field, in the liked, and in the disliked history."""
        return 3


class Network(nn.Module):
    """logit = bias + sum of weights."""

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Inputs) -> Tensor:
        return self.bias + in_roles(inputs).sum(dim=(1, 2))
