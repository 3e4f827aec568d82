"""How does a text vector become a field? The hybrid-expert adaptor of KAR, the same for every model.

Xi et al. 2024, "Towards Open-World Recommendation with Knowledge Augmentation from Large Language Models", section 3.4:
shared experts see users' and items' texts alike, dedicated experts one side only; each is an MLP dim -> 128 -> 32, and
a gate of the vector itself weighs them. What is added here: a projection to the model's width, a learned vector for an
absent text, and the text-space similarities as one more field.
"""

from collections.abc import Sequence

import torch
from pydantic import BaseModel, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from ctr_models.layers import MLP
from ctr_models.similarity import similarity_names
from ctr_models.text import TextStatistics


class AdaptorConfig(BaseModel, extra="forbid", frozen=True):
    """How text enters a model."""

    shared_experts: NonNegativeInt = 2
    dedicated_experts: PositiveInt = 2
    hidden: PositiveInt = 128
    out: PositiveInt = 32
    similarities: bool = True
    """Give the model the similarities of the target to the history in text space."""
    projection: bool = True
    """Give the model the adapted vectors themselves."""
    scale: PositiveFloat = 2.0
    """Text fields start this many times larger than an ordinary layer's output."""
    l2: NonNegativeFloat = 1e-4
    """L2 penalty of the text part's weights."""


class TextAdaptor(nn.Module):
    """Stored vectors -> fields of the model's width. Adapted once, they are looked up when serving."""

    def __init__(self, config: AdaptorConfig, statistics: Sequence[TextStatistics], width: int) -> None:
        super().__init__()
        self.config = config
        self.sides = nn.ModuleDict()
        self.shared = nn.ModuleDict()
        for each in statistics if config.projection else ():
            key = f"dim{each.kept}"  # only texts of one width can share experts
            if key not in self.shared and config.shared_experts:
                self.shared[key] = _Experts(config, each.kept, config.shared_experts)
            self.sides[each.name] = _Side(config, each.kept, width)
        names = similarity_names(statistics) if config.similarities else []
        self.similarity = MLP(2 * len(names), (32,), width) if names else None
        self.similarity_mean = nn.Buffer(torch.zeros(len(names)))
        self.similarity_scale = nn.Buffer(torch.ones(len(names)))

    @property
    def n_fields(self) -> int:
        """How many fields the adaptor adds for the target: one a feature set, and one of similarities."""
        return len(self.sides) + (self.similarity is not None)

    def fit_scale(self, similarity_NS: Tensor) -> None:
        """Standardise similarities by the training rows'; NaN (nothing to compare) becomes the mean."""
        if self.similarity is not None:
            mean = similarity_NS.nanmean(dim=0).nan_to_num()
            spread = ((similarity_NS - mean) ** 2).nanmean(dim=0).sqrt().nan_to_num()
            self.similarity_mean.copy_(mean)
            self.similarity_scale.copy_(torch.where(spread > 1e-6, spread, torch.ones(())))

    def adapt(self, name: str, vectors_VT: Tensor) -> Tensor:
        """Vectors of feature set `name` (row 0: absent) -> [V, width], row 0 the learned 'absent'."""
        side = self.sides[name]
        assert isinstance(side, _Side)
        key = f"dim{vectors_VT.shape[1]}"
        experts = side.experts(vectors_VT[1:])
        if key in self.shared:
            experts = torch.cat([experts, self.shared[key](vectors_VT[1:])], dim=1)
        mixed = (side.gate(vectors_VT[1:]).softmax(dim=1)[:, None] @ experts).squeeze(1)
        return torch.cat([side.absent[None], side.project(mixed) * self.config.scale])

    def compare(self, similarity_BS: Tensor) -> Tensor:
        """The similarity field: [B, width]. Nothing to compare is the mean of all, and says so."""
        assert self.similarity is not None
        scaled = ((similarity_BS - self.similarity_mean) / self.similarity_scale).nan_to_num_()
        return self.similarity(torch.cat([scaled, similarity_BS.isnan()], dim=1))


class _Side(nn.Module):
    """What one feature set has of its own."""

    def __init__(self, config: AdaptorConfig, dim: int, width: int) -> None:
        super().__init__()
        self.experts = _Experts(config, dim, config.dedicated_experts)
        self.gate = nn.Linear(dim, config.dedicated_experts + config.shared_experts)
        self.project = nn.Linear(config.out, width)
        self.absent = nn.Parameter(torch.zeros(width))


class _Experts(nn.Module):
    """Several MLPs dim -> hidden -> out at once: [V, dim] -> [V, experts, out]."""

    def __init__(self, config: AdaptorConfig, dim: int, experts: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim, experts * config.hidden)
        self.second = nn.Parameter(torch.empty(experts, config.hidden, config.out))
        self.bias = nn.Parameter(torch.zeros(experts, 1, config.out))
        nn.init.uniform_(self.second, -(config.hidden**-0.5), config.hidden**-0.5)

    def forward(self, vectors: Tensor) -> Tensor:
        experts = self.second.shape[0]
        hidden = self.first(vectors).relu().unflatten(1, (experts, -1)).transpose(0, 1)
        return (torch.baddbmm(self.bias, hidden, self.second)).relu().transpose(0, 1)
