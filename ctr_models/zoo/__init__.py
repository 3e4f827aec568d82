"""What is a CTR model? A file of this folder: a `Config` and a `Network` over embedded fields and a history.

A network never sees ids, columns or where a field came from. Contract, tested for every file:

    class Config(NetworkConfig): ...            its constructor argument, and its line in the run's TOML
    class Network(nn.Module):
        def __init__(self, config: Config, shape: Shape) -> None
        def forward(self, inputs: Inputs) -> Tensor    # logits, float [B]

Shapes: B rows, F fields, D width of a field, L places of a history, V rows of a channel's table, E its width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import BaseModel, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from ctr_models.layers import lookup, mean_pool

ROLES = 3
"""What a value can be: a field of the row, of an item in the liked, or of one in the disliked history."""
Hidden = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class NetworkConfig(BaseModel, extra="forbid", frozen=True):
    """What every network has: its size, and how it is optimised (Adam; Kingma and Ba 2015)."""

    additive: ClassVar[bool] = False
    """The logit is a sum over fields, nothing is crossed, so that such a model cannot learn rows by heart."""
    embedding_size: PositiveInt = 16
    learning_rate: PositiveFloat = 2e-3
    l2: NonNegativeFloat = 1e-5
    """L2 penalty of the network's weights: half of this times their squares is added to the mean loss."""
    embedding_l2: NonNegativeFloat = 3e-3
    """L2 penalty of the embedding table. Not decoupled as in AdamW: Adam scales it up for rows that are seen rarely."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def width(self) -> int:
        """Numbers a field brings; models with a weight beside the embedding ask for more."""
        return self.embedding_size

    @property
    def first_order(self) -> int:
        """How many of them, the first, are weights that only values of the table have: a text's are zero."""
        return 0


class FirstOrderConfig(NetworkConfig, frozen=True):
    """Further numbers in every embedding are its value's first-order weights, one for each role, all in one table."""

    @property
    def width(self) -> int:
        """The first-order weights and the embedding."""
        return ROLES + self.embedding_size

    @property
    def first_order(self) -> int:
        """A value weighs as a field, in the liked, and in the disliked history."""
        return ROLES


@dataclass(frozen=True)
class Shape:
    """Sizes a network is built for. fields: F. channels: width E and whether the target has the channel too."""

    width: int
    fields: int
    channels: tuple[tuple[int, bool], ...]

    @property
    def pooled_fields(self) -> int:
        """How many fields `pooled_history` makes."""
        return sum(2 * width // self.width for width, on_target in self.channels if on_target)


@dataclass(frozen=True)
class Channel:
    """One view of the history's items: table_VE (row 0 zero, padding), rows_BL (int32), and the target's row [B, E].

    target_BE is None where only the history has it (the rating the user gave). values_VA, target_values_BA: int32, the
    values of the items' and the target's category and list fields, numbers that no other field uses, 0 is nothing; they
    have no columns where there are no such fields.
    """

    table_VE: Tensor
    rows_BL: Tensor
    target_BE: Tensor | None
    values_VA: Tensor
    target_values_BA: Tensor

    def elements_BLE(self) -> Tensor:
        """The history written out; zero at padding."""
        return lookup(self.table_VE, self.rows_BL)


@dataclass(frozen=True)
class Inputs:
    """What a network sees. fields_BFD; channels of the history, newest first; mask_BL: a place is filled; liked_BL.

    The history (rows_BL, mask_BL, liked_BL) may have one row that holds for all of the batch: one user's candidates.
    own: the fields that differ between its rows then; None where any may.
    """

    fields_BFD: Tensor
    channels: Sequence[Channel]
    mask_BL: Tensor
    liked_BL: Tensor
    own: slice | None = None


def repeated(inputs: Inputs) -> Inputs:
    """The same with a history for every row, where one row holds for all; for networks that mix it with the target."""
    rows = len(inputs.fields_BFD)
    channels = [replace(channel, rows_BL=channel.rows_BL.expand(rows, -1)) for channel in inputs.channels]
    mask_BL, liked_BL = inputs.mask_BL.expand(rows, -1), inputs.liked_BL.expand(rows, -1)
    return replace(inputs, channels=channels, mask_BL=mask_BL, liked_BL=liked_BL)


def in_roles(inputs: Inputs) -> Tensor:
    """Fields, then those of the liked, then those of the disliked history: [B, F + pooled fields, D / 3].

    For linear models. "This is item 7" and "item 7 was liked before" are two features, with numbers of their own: the
    embedding holds those of a field as it is, of one in the liked, and of one in the disliked history (the three groups
    of the example in Rendle 2010, "Factorization Machines", figure 1). A history weighs 1 in all, as there.
    """
    width = inputs.fields_BFD.shape[2]
    roles = [inputs.fields_BFD[..., : width // ROLES]]
    for role, chosen in enumerate((inputs.liked_BL, ~inputs.liked_BL), start=1):
        for channel in inputs.channels:
            if channel.target_BE is not None:
                table_VK3D = channel.table_VE.unflatten(1, (-1, ROLES, width // ROLES))
                mean = mean_pool(table_VK3D[:, :, role].flatten(1), channel.rows_BL * chosen)
                roles.append(mean.unflatten(1, (-1, width // ROLES)))
    return torch.cat([role.expand(len(inputs.fields_BFD), -1, -1) for role in roles], dim=1)


def pooled_history(inputs: Inputs) -> Tensor:
    """Mean of the liked and mean of the disliked history as fields [B, pooled fields, D]; zero where there is none."""
    return torch.cat([pool for *_, pool in _pools(inputs)], dim=1).expand(len(inputs.fields_BFD), -1, -1)


def first_order(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Sum of the first-order weights [B], and fields with the pooled history, without them, [B, F + pooled fields, D].

    For a `FirstOrderConfig`. As in <w, x> of the papers, x is 1 for each item of the history, in a role of its own: its
    weights add up, while its embeddings are averaged.
    """
    sizes = [ROLES, inputs.fields_BFD.shape[2] - ROLES]
    weights_BFR, embeddings = inputs.fields_BFD.split(sizes, dim=2)
    fields, weight_B = [embeddings], weights_BFR[..., 0].sum(dim=1)
    for role, items, pool in _pools(inputs):
        weights_BFR, embeddings = pool.split(sizes, dim=2)
        fields.append(embeddings.expand(len(inputs.fields_BFD), -1, -1))
        weight_B = weight_B + items * weights_BFR[..., role].sum(dim=1)
    return weight_B, torch.cat(fields, dim=1)


def _pools(inputs: Inputs) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Role (1 liked, 2 disliked), how many items that history has, and their mean, [rows of the history, fields, D]."""
    width = inputs.fields_BFD.shape[2]
    for channel in inputs.channels:
        if channel.target_BE is not None:
            for role, chosen in enumerate((inputs.liked_BL, ~inputs.liked_BL), start=1):
                rows_BL = channel.rows_BL * chosen
                mean = mean_pool(channel.table_VE, rows_BL)
                yield role, (rows_BL != 0).sum(dim=1), mean.unflatten(1, (-1, width))
