"""MLP: one hidden layer for each feature set.

What most pipelines use for frozen text vectors, such as Ren et al. 2024, "Representation Learning with Large Language
Models for Recommendation" (RLMRec), section 3.4.
"""

from collections.abc import Sequence

from pydantic import PositiveInt
from torch import Tensor

from ctr_models.adaptors import AdaptorConfig, Side, TextAdaptor
from ctr_models.layers import MLP
from ctr_models.text import TextStatistics


class Config(AdaptorConfig, frozen=True):
    """Size of the hidden layer."""

    hidden: PositiveInt = 64


class Adaptor(TextAdaptor):
    """dim -> hidden -> width."""

    config: Config

    def build(self, statistics: Sequence[TextStatistics]) -> None:
        for each in statistics:
            self.sides[each.name] = Side(MLP(each.kept, (self.config.hidden,), self.width), self.width)

    def project(self, name: str, vectors_NT: Tensor) -> Tensor:
        side = self.sides[name]
        assert isinstance(side, Side)
        return side.project(vectors_NT)
