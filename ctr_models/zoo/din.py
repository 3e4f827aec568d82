"""DIN: the history is weighed by how much each item of it says about the target.

Zhou, Zhu, Song et al. 2018, "Deep Interest Network for Click-Through Rate Prediction", section 4.3: an MLP over
[query, key, query - key, query * key] scores each history item, and scores are not normalised. Liked and disliked items
are summed apart, and the rating is part of the key. The first layer of the attention is split over its four inputs, so
that all that does not depend on the pair is computed once for each row, or once for each distinct item.
"""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from ctr_models.layers import MLP, lookup
from ctr_models.zoo import Hidden, Inputs, NetworkConfig, Shape


class Config(NetworkConfig, frozen=True):
    """Size of the attention's hidden layer, sizes of the MLP."""

    attention: PositiveInt = 32
    hidden: Hidden = (128, 64)


class Network(nn.Module):
    """logit = MLP(fields, attended liked history, attended disliked history)."""

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__()
        self.matched = [on_target for _, on_target in shape.channels]
        size = config.attention
        self.key = nn.ModuleList(nn.Linear(width, size, bias=False) for width, _ in shape.channels)
        query = sum(width for width, on_target in shape.channels if on_target)
        self.query = nn.Linear(query, size)
        self.product = nn.Linear(query, size, bias=False)
        self.activation = nn.PReLU(size)
        self.score = nn.Linear(size, 1)
        self.mlp = MLP(shape.fields * shape.width + 2 * query, config.hidden, 1, dropout=config.dropout)

    def forward(self, inputs: Inputs) -> Tensor:
        targets = [channel.target_BE for channel in inputs.channels if channel.target_BE is not None]
        query_BE = torch.cat(targets, dim=1)
        items_BLE = torch.cat([c.elements_BLE() for c in inputs.channels if c.target_BE is not None], dim=2)
        one_history = len(items_BLE) == 1 and not torch.is_grad_enabled()
        if one_history:
            hidden_BLA = self._of_one_history(inputs, query_BE, items_BLE[0])
        else:
            hidden_BLA = self._of_each_row(inputs, query_BE, items_BLE)
        score_BL = self.score(self.activation(hidden_BLA.flatten(0, 1))).view(hidden_BLA.shape[:2])
        scores_B2L = torch.stack([score_BL * inputs.liked_BL, score_BL * (inputs.mask_BL & ~inputs.liked_BL)], dim=1)
        first = self.mlp[0]
        assert isinstance(first, nn.Linear)
        weight_H2E = first.weight[:, inputs.fields_BFD[0].numel() :]
        if one_history:  # W (s items) = s (W items)
            sides = [items_BLE[0] @ weight_HE.T for weight_HE in weight_H2E.chunk(2, dim=1)]
            interest_BH = scores_B2L.flatten(1) @ torch.cat(sides)
        else:
            interest_BH = functional.linear((scores_B2L @ items_BLE).flatten(1), weight_H2E)
        return self.mlp.of_fields(inputs.fields_BFD, inputs.own, interest_BH).squeeze(1)

    def _of_each_row(self, inputs: Inputs, query_BE: Tensor, items_BLE: Tensor) -> Tensor:
        """W [q; k; q - k; q * k] = (Wq + Wd) q + (Wk - Wd) k + Wp (q * k), the middle one a table of distinct items."""
        hidden_BLA = self.product(items_BLE * query_BE[:, None])
        hidden_BLA = hidden_BLA + self.query(query_BE)[:, None]
        for key, channel in zip(self.key, inputs.channels, strict=True):
            hidden_BLA = hidden_BLA + lookup(key(channel.table_VE), channel.rows_BL)
        return hidden_BLA

    def _of_one_history(self, inputs: Inputs, query_BE: Tensor, items_LE: Tensor) -> Tensor:
        """The same where all rows share a history: what is not q is one matrix for all of them."""
        keys = (key(channel.elements_BLE()[0]) for key, channel in zip(self.key, inputs.channels, strict=True))
        constant_LA = torch.stack(list(keys)).sum(dim=0) + self.query.bias
        matrix_LAE = torch.addcmul(self.query.weight, self.product.weight, items_LE[:, None])
        hidden = torch.addmm(constant_LA.flatten(), query_BE, matrix_LAE.flatten(0, 1).T)
        return hidden.unflatten(1, constant_LA.shape)
