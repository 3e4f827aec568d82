"""Attention in text space: what of the history is about the same as the target, by their texts, and was it liked?

Beside the hybrid experts' fields. Each text keeps a key, its vector turned by a matrix that all sets of one encoder
share and of length 1; at first the matrix keeps the first principal components, so that attention starts from what the
encoder thinks is alike. For each set of items the target's key attends to the keys of the history (softmax of cosines
over a learned temperature; Vaswani et al. 2017, "Attention Is All You Need", section 3.2) and gives three fields: the
adapted texts of liked and of disliked items, and a vote, how much more of the attention falls on liked items than their
share of the history (kernel regression; Nadaraya 1964, Watson 1964). Each pair of a user's and an item's set of one
encoder gives a field, of the product of their keys. Where a text is missing, a field is a learned 'absent'.
"""

import math
from collections.abc import Sequence

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from ctr_models.adaptors import Texts, hybrid_experts
from ctr_models.layers import lookup, masked_softmax
from ctr_models.similarity import pairs
from ctr_models.text import TextStatistics


class Config(hybrid_experts.Config, frozen=True):
    """How texts are compared, beside the experts."""

    key_size: PositiveInt = 32
    """Dimensions in which texts are compared, at most those of a text vector."""
    temperature: PositiveFloat = 0.2
    """A difference of one temperature between two cosines is one nat of attention, at first."""


class Adaptor(hybrid_experts.Adaptor):
    """Fields, then for each item set liked, disliked and vote, then for each pair of sets the match."""

    def build(self, statistics: Sequence[TextStatistics]) -> None:
        super().build(statistics)
        assert isinstance(self.config, Config)
        size = self.own = min([self.config.key_size, *(each.kept for each in statistics)])
        encoders = sorted({each.encoder for each in statistics})
        self.encoder_of = {each.name: f"encoder{encoders.index(each.encoder)}" for each in statistics}
        self.key = nn.ModuleDict()
        self.attention = nn.ModuleDict()
        for each in statistics:
            if self.encoder_of[each.name] not in self.key:
                turn = nn.Linear(each.kept, size, bias=False)
                nn.init.eye_(turn.weight)
                self.key[self.encoder_of[each.name]] = turn
            if each.entity == "item":
                self.attention[each.name] = _Attention(self.width, self.config.temperature)
        users, items = ([each for each in statistics if each.entity == entity] for entity in ("user", "item"))
        self.matched = [(user.name, item.name) for user, item in pairs(users, items)]
        self.match = nn.ModuleList(_Match(size, self.width) for _ in self.matched)

    @property
    def n_relations(self) -> int:
        return 3 * len(self.attention) + len(self.match) if self.sides else 0

    def keep(self, name: str, vectors_NT: Tensor) -> Tensor:
        return nn.functional.normalize(self.key[self.encoder_of[name]](vectors_NT), dim=1)

    def relate(self, texts: Texts) -> Sequence[Tensor]:
        if not self.sides:
            return ()
        related: list[Tensor] = []
        for name, attention in self.attention.items():
            related += attention(texts, texts.items[name])
        for (user, item), match in zip(self.matched, self.match, strict=True):
            item_BK = lookup(texts.items[item], texts.target_B)[:, self.width :]
            related.append(match(texts.users[user][:, self.width :], item_BK))
        return related


class _Attention(nn.Module):
    """Of one set of items' texts: three fields."""

    def __init__(self, width: int, temperature: float) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.vote = nn.Linear(1, width)
        self.absent = nn.Parameter(torch.zeros(3, width))

    def forward(self, texts: Texts, items_VX: Tensor) -> list[Tensor]:
        width = self.absent.shape[1]
        history_BLX, target_BK = lookup(items_VX, texts.history_BL), lookup(items_VX, texts.target_B)[:, width:]
        told_V = (items_VX[:, width:] != 0).any(dim=1)
        mask_BL = told_V[texts.history_BL] & (texts.history_BL != 0) & told_V[texts.target_B][:, None]
        score_BL = (history_BLX[..., width:] @ target_BK[..., None]).squeeze(2) * self.sharpness.exp()
        groups_B2L = torch.stack([mask_BL & texts.liked_BL, mask_BL & ~texts.liked_BL], dim=1)
        attended_B2D = masked_softmax(score_BL[:, None], groups_B2L) @ history_BLX[..., :width]
        share_B = (mask_BL & texts.liked_BL).sum(dim=1) / mask_BL.sum(dim=1).clamp(min=1)
        vote_B = (masked_softmax(score_BL, mask_BL) * texts.liked_BL).sum(dim=1) - share_B
        fields_B3D = torch.cat([attended_B2D, self.vote(vote_B[:, None])[:, None]], dim=1)
        there_B3 = torch.cat([groups_B2L, mask_BL[:, None]], dim=1).any(dim=2)
        return list(torch.where(there_B3[..., None], fields_B3D, self.absent).unbind(1))


class _Match(nn.Module):
    """Product of a user's and an item's key: a field."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(size, width)
        self.absent = nn.Parameter(torch.zeros(width))

    def forward(self, user_BK: Tensor, item_BK: Tensor) -> Tensor:
        product_BK = user_BK * item_BK
        there_B1 = (user_BK != 0).any(dim=1, keepdim=True) & (item_BK != 0).any(dim=1, keepdim=True)
        return torch.where(there_B1, self.project(product_BK), self.absent)
