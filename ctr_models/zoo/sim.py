"""SIM: a long history is searched for what concerns the target, and only what was found is attended to.

Pi, Zhou, Zhang, Wang, Ren, Fan, Zhu, Gai 2020, "Search-based User Interest Modeling with Lifelong Sequential Behavior
Data for Click-Through Rate Prediction", section 3: the general search unit (hard: items that share a value of a
category or list field with the target; soft: those of greatest inner product with it) and the exact search unit
(multi-head attention). The length of the history is `max_history` of the samples. Soft search uses the embeddings as
they are, without the paper's auxiliary loss. How many items came after one stands for the time since it. Liked and
disliked items are attended to apart, and the newest items enter as their means.
"""

from dataclasses import replace
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from ctr_models.layers import MLP, lookup, masked_softmax
from ctr_models.zoo import Hidden, Inputs, NetworkConfig, Shape, pooled_history, repeated

AGES = 16
"""Ages are told apart by their logarithm; the last stands for all of more than 32,766 items."""


class Config(NetworkConfig, frozen=True):
    """How the history is searched, how much of it is kept, the attention over that, sizes of the MLP."""

    search: Literal["soft", "hard"] = "soft"
    found: PositiveInt = 20
    """Items a search keeps; of equal ones, and among hard matches, the newest."""
    recent: PositiveInt = 20
    """How many of the newest items are pooled."""
    heads: PositiveInt = 2
    head_size: PositiveInt = 16
    hidden: Hidden = (128, 64)


class Network(nn.Module):
    """logit = MLP(fields, newest history pooled, found liked history, found disliked history)."""

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__()
        self.config = config
        size = config.heads * config.head_size
        target = sum(width for width, on_target in shape.channels if on_target)
        self.maps = nn.ModuleList(nn.Linear(width, 2 * size, bias=False) for width, _ in shape.channels)  # key, value
        self.age = nn.Parameter(torch.randn(1 + AGES, 2 * size) * size**-0.5)  # row 0 is padding
        self.query = nn.Linear(target, size)
        width = (shape.fields + shape.pooled_fields) * shape.width + 2 * size
        self.mlp = MLP(width, config.hidden, 1, dropout=config.dropout)

    def forward(self, inputs: Inputs) -> Tensor:
        inputs = repeated(inputs)
        recent = slice(0, self.config.recent)
        newest = [replace(channel, rows_BL=channel.rows_BL[:, recent]) for channel in inputs.channels]
        pooled = pooled_history(replace(inputs, channels=newest, liked_BL=inputs.liked_BL[:, recent]))
        parts = [inputs.fields_BFD, pooled]
        return self.mlp(torch.cat([*(part.flatten(1) for part in parts), self._found(inputs)], dim=1)).squeeze(1)

    def _found(self, inputs: Inputs) -> Tensor:
        """What the liked and the disliked items that were found say of the target: [B, 2 * heads * head size]."""
        places_BK, found_BK = search(inputs, self.config.search, self.config.found)
        heads = self.config.heads
        pairs_BKE = lookup(self.age, (age(places_BK) * found_BK).to(torch.int32))
        for map_, channel in zip(self.maps, inputs.channels, strict=True):
            rows_BK = channel.rows_BL.gather(1, places_BK) * found_BK
            pairs_BKE = pairs_BKE + lookup(map_(channel.table_VE), rows_BK)
        target = torch.cat([c.target_BE for c in inputs.channels if c.target_BE is not None], dim=1)
        key_BKHS, value_BKHS = pairs_BKE.unflatten(2, (2, heads, -1)).unbind(2)
        query_BHS = self.query(target).unflatten(1, (heads, -1))
        score_BHK = (key_BKHS * query_BHS[:, None]).sum(dim=3).transpose(1, 2)
        liked_BK = inputs.liked_BL.gather(1, places_BK)
        groups = [masked_softmax(score_BHK, (found_BK & chosen)[:, None]) for chosen in (liked_BK, ~liked_BK)]
        return (torch.stack(groups, dim=2) @ value_BKHS.transpose(1, 2)).flatten(1)


def age(places: Tensor) -> Tensor:
    """1 for the newest item, 2 for the next two, 3 for the next four ..., at most `AGES`."""
    return (torch.log2(places.double() + 1).floor() + 1).clamp(max=AGES).long()


@torch.no_grad()
def search(inputs: Inputs, kind: Literal["soft", "hard"], n: int) -> tuple[Tensor, Tensor]:
    """The places of at most `n` items of each history, int64 [B, min(n, L)], and which of them count, bool."""
    length = inputs.mask_BL.shape[1]
    places_L = torch.arange(length)
    if length <= n and kind == "soft":
        return places_L.expand(len(inputs.mask_BL), -1), inputs.mask_BL
    if kind == "hard":
        score_BL, match_BL = -places_L.double(), inputs.mask_BL & shares_a_value(inputs)
    else:
        score_BL, match_BL = inner_products(inputs).double() - 1e-12 * places_L, inputs.mask_BL  # the newest of equals
    score_BL = torch.where(match_BL, score_BL, -torch.inf)
    best_BK, places_BK = score_BL.topk(min(n, length), dim=1)
    return places_BK, best_BK > -torch.inf


def inner_products(inputs: Inputs) -> Tensor:
    """Of each place of the history with the target, over all channels that both have: [B, L].

    Where items are few, every target is multiplied with all of them; else histories are written out, a part at a time.
    """
    scores = []
    for channel in inputs.channels:
        if channel.target_BE is not None:
            rows, parts = channel.rows_BL.long(), range(0, len(channel.rows_BL), 256)
            if len(channel.table_VE) <= 32 * rows.shape[1]:
                scores.append((channel.target_BE @ channel.table_VE.t()).gather(1, rows))
            else:
                each = [channel.table_VE[rows[p : p + 256]] @ channel.target_BE[p : p + 256, :, None] for p in parts]
                scores.append(torch.cat(each).squeeze(2))
    return torch.stack(scores).sum(dim=0)


def shares_a_value(inputs: Inputs) -> Tensor:
    """Whether each place of the history has a value of a category or list field that the target has: bool [B, L]."""
    shared_BL = torch.zeros_like(inputs.mask_BL)
    for channel in inputs.channels:
        if channel.target_BE is not None:
            history_BLA = channel.values_VA[channel.rows_BL]
            for value_B in channel.target_values_BA.unbind(1):
                shared_BL |= ((history_BLA == value_B[:, None, None]).any(dim=2)) & (value_B != 0)[:, None]
    return shared_BL
