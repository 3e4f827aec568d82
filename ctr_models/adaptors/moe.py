"""Mixture of experts: one set of experts and one gate for the texts of users and items alike.

Jacobs, Jordan, Nowlan, Hinton 1991, "Adaptive Mixtures of Local Experts"; Lin et al. 2024, "Large Language Models Make
Sample-Efficient Recommender Systems" (Laser), adapts stored vectors by such a mixture. The last layer, to the model's
width, belongs to each feature set. Against `hybrid_experts` it lacks the dedicated experts and gates.
"""

from collections.abc import Sequence

from pydantic import PositiveInt
from torch import Tensor, nn

from ctr_models.adaptors import AdaptorConfig, Side, TextAdaptor
from ctr_models.layers import Experts
from ctr_models.text import TextStatistics


class Config(AdaptorConfig, frozen=True):
    """How many experts of which size."""

    experts: PositiveInt = 4
    hidden: PositiveInt = 128
    out: PositiveInt = 32


class Adaptor(TextAdaptor):
    """Vectors of one width share experts and gate."""

    config: Config

    def build(self, statistics: Sequence[TextStatistics]) -> None:
        self.mixtures = nn.ModuleDict()
        for each in statistics:
            if f"dim{each.kept}" not in self.mixtures:
                self.mixtures[f"dim{each.kept}"] = _Mixture(self.config, each.kept)
            self.sides[each.name] = Side(nn.Linear(self.config.out, self.width), self.width)

    def project(self, name: str, vectors_NT: Tensor) -> Tensor:
        side = self.sides[name]
        assert isinstance(side, Side)
        return side.project(self.mixtures[f"dim{vectors_NT.shape[1]}"](vectors_NT))


class _Mixture(nn.Module):
    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.experts = Experts(dim, config.experts, config.hidden, config.out)
        self.gate = nn.Linear(dim, config.experts)

    def forward(self, vectors: Tensor) -> Tensor:
        return (self.gate(vectors).softmax(dim=1)[:, None] @ self.experts(vectors)).squeeze(1)
