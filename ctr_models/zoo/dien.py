"""DIEN: a GRU reads the history in the order of time, a second one follows what of it concerns the target.

Zhou, Mou, Fan, Pi, Bian, Zhou, Zhu, Gai 2019, "Deep Interest Evolution Network for Click-Through Rate Prediction",
"Interest Extractor Layer" and "Interest Evolving Layer" (AUGRU: attention scales the update gate). A step reads the
item, its rating, and whether it was liked: unlike the paper's clicks, histories hold what was disliked. The paper's
auxiliary loss is left out, since a network gives logits only. What a step adds to the gates depends on the item alone,
so it is computed once for each distinct item.
"""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from ctr_models.layers import MLP, lookup, masked_softmax
from ctr_models.recurrence import GRU
from ctr_models.zoo import Hidden, Inputs, NetworkConfig, Shape, repeated


class Config(NetworkConfig, frozen=True):
    """Size of both recurrent layers, sizes of the MLP."""

    state: PositiveInt = 16
    hidden: Hidden = (128, 64)


class Network(nn.Module):
    """logit = MLP(fields, the interest that has evolved)."""

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__()
        size = config.state
        target = sum(width for width, on_target in shape.channels if on_target)
        self.steps = nn.ModuleList(nn.Linear(width, 3 * size, bias=False) for width, _ in shape.channels)
        self.liked = nn.Parameter(torch.randn(3 * size) * size**-0.5)
        self.start = nn.Parameter(torch.zeros(3 * size))
        self.extractor = GRU(size)
        self.query = nn.Linear(target, size, bias=False)
        self.inner = nn.Linear(size, 3 * size)
        self.evolution = GRU(size)
        self.mlp = MLP(shape.fields * shape.width + size, config.hidden, 1, dropout=config.dropout)

    def forward(self, inputs: Inputs) -> Tensor:
        inputs = repeated(inputs)
        longest = max(1, int(inputs.mask_BL.sum(dim=1).max()))
        mask_LB, liked_LB = (_by_time(each, longest) for each in (inputs.mask_BL, inputs.liked_BL))
        steps_LB3H = self.start + self.liked * liked_LB[..., None]
        for step, channel in zip(self.steps, inputs.channels, strict=True):
            steps_LB3H = steps_LB3H + lookup(step(channel.table_VE), _by_time(channel.rows_BL, longest))
        target = torch.cat([c.target_BE for c in inputs.channels if c.target_BE is not None], dim=1)
        interest_LBH = self.extractor(steps_LB3H, mask_LB.to(steps_LB3H.dtype))
        score_LB = (interest_LBH * self.query(target)).sum(dim=2)
        attention_LB = masked_softmax(score_LB.t(), mask_LB.t()).t()
        final_BH = self.evolution(self.inner(interest_LBH), attention_LB)[-1]
        return self.mlp(torch.cat([inputs.fields_BFD.flatten(1), final_BH], dim=1)).squeeze(1)


def _by_time(newest_first_BL: Tensor, longest: int) -> Tensor:
    """Oldest first, one line a step: [longest, B]. Padding comes before the oldest."""
    return newest_first_BL[:, :longest].flip(1).t().contiguous()
