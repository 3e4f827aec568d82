"""Hybrid experts: some are shared by all feature sets, some belong to one, and a gate of the set weighs them.

Xi et al. 2024, "Towards Open-World Recommendation with Knowledge Augmentation from Large Language Models" (KAR),
section 3.4: shared experts see users' and items' texts alike, dedicated experts one side only; each is an MLP
dim -> 128 -> 32, and a gate of the vector itself weighs them. What is added is a projection to the model's width.
"""

from collections.abc import Sequence

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from ctr_models.adaptors import AdaptorConfig, Side, TextAdaptor
from ctr_models.layers import Experts
from ctr_models.text import TextStatistics


class Config(AdaptorConfig, frozen=True):
    """How many experts of which size."""

    shared_experts: NonNegativeInt = 2
    dedicated_experts: PositiveInt = 2
    hidden: PositiveInt = 128
    out: PositiveInt = 32


class Adaptor(TextAdaptor):
    """Experts of one width of vectors are shared."""

    config: Config

    def build(self, statistics: Sequence[TextStatistics]) -> None:
        self.shared = nn.ModuleDict()
        for each in statistics:
            key = f"dim{each.kept}"  # only texts of one width can share experts
            if key not in self.shared and self.config.shared_experts:
                self.shared[key] = Experts(each.kept, self.config.shared_experts, self.config.hidden, self.config.out)
            self.sides[each.name] = _Side(self.config, each.kept, self.width)

    def project(self, name: str, vectors_NT: Tensor) -> Tensor:
        side = self.sides[name]
        assert isinstance(side, _Side)
        key = f"dim{vectors_NT.shape[1]}"
        experts = side.experts(vectors_NT)
        if key in self.shared:
            experts = torch.cat([experts, self.shared[key](vectors_NT)], dim=1)
        return side.project((side.gate(vectors_NT).softmax(dim=1)[:, None] @ experts).squeeze(1))


class _Side(Side):
    def __init__(self, config: Config, dim: int, width: int) -> None:
        experts = Experts(dim, config.dedicated_experts, config.hidden, config.out)
        gate = nn.Linear(dim, config.dedicated_experts + config.shared_experts)
        super().__init__(nn.Linear(config.out, width), width)
        self.experts, self.gate = experts, gate
