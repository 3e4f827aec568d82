"""How does a text enter a model? A file of this folder, named by `[train.text] kind`, the same for every model.

Each feature set becomes a field of the model's width, a learned 'absent' where there is no text. Contract, tested for
every file:

    class Config(AdaptorConfig): ...            its constructor argument, and the other keys of [train.text]
    class Adaptor(TextAdaptor):
        def build(self, statistics) -> None     makes `self.sides`, a `Side` for each feature set
        def project(self, name, vectors_NT) -> Tensor    float [N, width]
    and, only where texts are related to each other, `own`, `n_relations`, `keep` and `relate`

Shapes: B rows, L places of a history, V distinct items or texts, T dimensions of a text vector, N texts, D the width.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import (
    BaseModel,
    BeforeValidator,
    NonNegativeFloat,
    PositiveFloat,
    SerializeAsAny,
    ValidationError,
    computed_field,
)
from torch import Tensor, nn

from ctr_models.layers import MLP
from ctr_models.similarity import similarity_names
from ctr_models.text import TextStatistics
from storage import plugins
from storage.errors import ConfigError

DEFAULT = "hybrid_experts"


class AdaptorConfig(BaseModel, extra="forbid", frozen=True):
    """What every adaptor has."""

    similarities: bool = True
    """Give the model the similarities of the target to the history in text space."""
    projection: bool = True
    """Give the model the adapted vectors, and what an adaptor makes of them; without, similarities are all."""
    scale: PositiveFloat = 2.0
    """Text fields start this many times larger than an ordinary layer's output."""
    l2: NonNegativeFloat = 1e-4
    """L2 penalty of the text part's weights."""

    @computed_field
    @property
    def kind(self) -> str:
        """The file of this folder that it belongs to."""
        return type(self).__module__.rpartition(".")[2]


def _chosen(section: Any) -> Any:
    """The Config that a table of a TOML file, or of a saved run, means; runs older than the choice name no kind."""
    if not isinstance(section, Mapping):
        return section
    kind = section.get("kind", DEFAULT)
    if not isinstance(kind, str):
        raise ValueError(f"kind must be a word, not {kind!r}")
    try:
        config = plugins.load(sys.modules[__name__], kind).Config
    except ConfigError as error:
        raise ValueError(str(error)) from None
    options = {key: value for key, value in section.items() if key != "kind"}
    if unknown := [key for key in options if key not in config.model_fields]:
        raise ValueError(f"unknown key {unknown[0]!r}; allowed are kind, {', '.join(config.model_fields)}")
    try:
        return config(**options)
    except ValidationError as error:
        said = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        raise ValueError("; ".join(said)) from error


ChosenAdaptor = Annotated[SerializeAsAny[AdaptorConfig], BeforeValidator(_chosen)]
"""A field of a configuration that holds any adaptor's Config."""


@dataclass(frozen=True)
class Texts:
    """What `relate` sees of a batch, by feature set.

    items: fields and own numbers of distinct items, [V, D + own], by feature set; target_B and history_BL: rows of it,
    int32, in histories 0 is padding; liked_BL: bool; users: of each row's user, [B, D + own], by feature set.
    """

    items: Mapping[str, Tensor]
    target_B: Tensor
    history_BL: Tensor
    liked_BL: Tensor
    users: Mapping[str, Tensor]


class Side(nn.Module):
    """What one feature set has of its own: the layer that ends in the model's width, and its 'absent'."""

    def __init__(self, project: nn.Module, width: int) -> None:
        super().__init__()
        self.project = project
        self.absent = nn.Parameter(torch.zeros(width))


class TextAdaptor(nn.Module):
    """Stored vectors -> fields of the model's width. Adapted once, they are looked up when serving."""

    own = 0
    """Numbers that a text keeps for `relate` beside its field."""

    def __init__(self, config: AdaptorConfig, statistics: Sequence[TextStatistics], width: int) -> None:
        super().__init__()
        self.config, self.width = config, width
        self.sides = nn.ModuleDict()
        if config.projection:
            self.build(statistics)
        names = similarity_names(statistics) if config.similarities else []
        self.similarity = MLP(2 * len(names), (32,), width) if names else None
        self.similarity_mean = nn.Buffer(torch.zeros(len(names)))
        self.similarity_scale = nn.Buffer(torch.ones(len(names)))

    def build(self, statistics: Sequence[TextStatistics]) -> None:
        """Make a `Side` for each feature set."""
        raise NotImplementedError

    def project(self, name: str, vectors_NT: Tensor) -> Tensor:
        """Vectors of texts of feature set `name` -> [N, D]."""
        raise NotImplementedError

    def keep(self, name: str, vectors_NT: Tensor) -> Tensor:
        """What these texts keep for `relate`: [N, own]."""
        return vectors_NT[:, :0]

    def relate(self, texts: Texts) -> Sequence[Tensor]:
        """Fields that relate texts to each other: `n_relations` of [B, D]."""
        return ()

    @property
    def n_relations(self) -> int:
        """How many fields `relate` makes."""
        return 0

    @property
    def n_fields(self) -> int:
        """How many fields are added for the target: one a feature set, the relations, and one of similarities."""
        return len(self.sides) + self.n_relations + (self.similarity is not None)

    def fit_scale(self, similarity_NS: Tensor) -> None:
        """Standardise similarities by the training rows'; NaN (nothing to compare) becomes the mean."""
        if self.similarity is not None:
            mean = similarity_NS.nanmean(dim=0).nan_to_num()
            spread = ((similarity_NS - mean) ** 2).nanmean(dim=0).sqrt().nan_to_num()
            self.similarity_mean.copy_(mean)
            self.similarity_scale.copy_(torch.where(spread > 1e-6, spread, torch.ones(())))

    def adapt(self, name: str, vectors_VT: Tensor) -> Tensor:
        """Vectors of feature set `name` (row 0: absent) -> [V, D + own], row 0 the learned 'absent', its own zero."""
        side, texts_NT = self.sides[name], vectors_VT[1:]
        assert isinstance(side, Side)
        fields = torch.cat([side.absent[None], self.project(name, texts_NT) * self.config.scale])
        if not self.own:
            return fields
        return torch.cat([fields, nn.functional.pad(self.keep(name, texts_NT), (0, 0, 1, 0))], dim=1)

    def compare(self, similarity_BS: Tensor) -> Tensor:
        """The similarity field: [B, D]. Nothing to compare is the mean of all, and says so."""
        assert self.similarity is not None
        scaled = ((similarity_BS - self.similarity_mean) / self.similarity_scale).nan_to_num_()
        return self.similarity(torch.cat([scaled, similarity_BS.isnan()], dim=1))

    def folded(self, *, before: int) -> "FoldedSimilarity":
        """`compare` with weights that no longer change, its field after `before` zeros."""
        assert self.similarity is not None
        first, _, last = self.similarity
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        values_HS, missing_HS = first.weight.detach().chunk(2, dim=1)
        values_HS = values_HS / self.similarity_scale
        return FoldedSimilarity(
            mean=self.similarity_mean.numpy(),
            values_HS=values_HS.numpy(),
            missing_HS=missing_HS.numpy(),
            bias_H1=(first.bias.detach() - values_HS @ self.similarity_mean).numpy()[:, None],
            last_HD=nn.functional.pad(last.weight.detach().T, (before, 0)).numpy(),
            last_D=nn.functional.pad(last.bias.detach(), (before, 0)).numpy(),
        )


@dataclass(frozen=True)
class FoldedSimilarity:
    """A similarity field for a request: standardising is part of the first layer. H is the width of the hidden one."""

    mean: np.ndarray
    values_HS: np.ndarray
    missing_HS: np.ndarray
    bias_H1: np.ndarray
    last_HD: np.ndarray
    last_D: np.ndarray

    def __call__(self, similarity_BS: Tensor) -> Tensor:
        """[B, before + D]."""
        values_SB, missing_SB = similarity_BS.numpy().T, None
        if np.isnan(values_SB.min(initial=0)):
            missing_SB = np.isnan(values_SB)
            values_SB = np.where(missing_SB, self.mean[:, None], values_SB)
        hidden_HB = self.values_HS @ values_SB
        hidden_HB += self.bias_H1
        if missing_SB is not None:
            hidden_HB += self.missing_HS @ missing_SB.astype(np.float32)
        np.maximum(hidden_HB, 0, out=hidden_HB)
        field_BD = hidden_HB.T @ self.last_HD
        field_BD += self.last_D
        return torch.from_numpy(field_BD)


def make(config: AdaptorConfig | None, statistics: Sequence[TextStatistics], width: int) -> TextAdaptor:
    """The adaptor that a Config belongs to, the default one for None."""
    module = plugins.load(sys.modules[__name__], config.kind if config else DEFAULT)
    return module.Adaptor(config or module.Config(), statistics, width)
