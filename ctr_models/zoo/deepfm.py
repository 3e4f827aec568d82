"""DeepFM: a factorisation machine and an MLP over the same embeddings.

Guo, Tang, Ye, Li, He 2017, "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", section 2.1. The
history enters as the mean of its liked and the mean of its disliked items.
"""

from torch import Tensor, nn

from ctr_models.layers import MLP, pairwise_products
from ctr_models.zoo import FirstOrderConfig, Hidden, Inputs, Shape, first_order


class Config(FirstOrderConfig, frozen=True):
    """Sizes of the MLP."""

    hidden: Hidden = (128, 64)


class Network(nn.Module):
    """logit = first-order weights + pairwise inner products + MLP."""

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__()
        fields = shape.fields + shape.pooled_fields
        self.mlp = MLP(fields * config.embedding_size, config.hidden, 1, dropout=config.dropout)

    def forward(self, inputs: Inputs) -> Tensor:
        weight_B, embeddings = first_order(inputs)
        return weight_B + pairwise_products(embeddings) + self.mlp.of_fields(embeddings, inputs.own).squeeze(1)
