"""Linear: one matrix for each feature set, the smallest adaptor and the control for all others."""

from collections.abc import Sequence

from torch import Tensor, nn

from ctr_models.adaptors import AdaptorConfig, Side, TextAdaptor
from ctr_models.text import TextStatistics


class Config(AdaptorConfig, frozen=True):
    """Nothing more is to be chosen."""


class Adaptor(TextAdaptor):
    """dim -> width."""

    def build(self, statistics: Sequence[TextStatistics]) -> None:
        for each in statistics:
            self.sides[each.name] = Side(nn.Linear(each.kept, self.width), self.width)

    def project(self, name: str, vectors_NT: Tensor) -> Tensor:
        side = self.sides[name]
        assert isinstance(side, Side)
        return side.project(vectors_NT)
