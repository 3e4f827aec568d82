"""DNN: an MLP over all embeddings, nothing crossed by hand.

Cheng et al. 2016, "Wide & Deep Learning for Recommender Systems", section 3.2 (the deep component alone). The history
enters as the mean of its liked and the mean of its disliked items, as in Covington, Adams, Sargin 2016, "Deep Neural
Networks for YouTube Recommendations", section 3.2.
"""

import torch
from torch import Tensor, nn

from ctr_models.layers import MLP
from ctr_models.zoo import Hidden, Inputs, NetworkConfig, Shape, pooled_history


class Config(NetworkConfig, frozen=True):
    """Sizes of the MLP."""

    hidden: Hidden = (128, 64)


class Network(nn.Module):
    """logit = MLP(fields, pooled history)."""

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__()
        fields = shape.fields + shape.pooled_fields
        self.mlp = MLP(fields * shape.width, config.hidden, 1, dropout=config.dropout)

    def forward(self, inputs: Inputs) -> Tensor:
        fields = torch.cat([inputs.fields_BFD, pooled_history(inputs)], dim=1)
        return self.mlp.of_fields(fields, inputs.own).squeeze(1)
