"""Which building blocks do networks over sequences share? Dropout, attention, and what a block is made of."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dropout(nn.Module):
    """Dropout whose random numbers are bytes: the rate is met to 1/256, and eight are drawn at the cost of one."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self._dropped = round(rate * 256)

    def forward(self, values: Tensor) -> Tensor:
        """The values with a share of them zero and the others scaled up to the same mean; unchanged in evaluation."""
        if not self.training or not self._dropped:
            return values
        words = torch.empty((values.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: values.numel()].view(values.shape) >= self._dropped
        return values * kept.to(values.dtype).mul_(256 / (256 - self._dropped))


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017). Dropout falls on its output, not on its weights.

    Weights that are dropped have to be written out for every pair of places; without, they never exist in memory.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.inward = nn.Linear(width, 3 * width)
        self.outward = nn.Linear(width, width)

    def forward(self, queries_BLE: Tensor, values_BLE: Tensor, length_B: Tensor | None) -> Tensor:
        """length_B: None for causal attention; else every filled place sees every filled place."""
        width, weight, bias = values_BLE.shape[2], self.inward.weight, self.inward.bias
        query_BLE = functional.linear(queries_BLE, weight[:width], bias[:width])
        query = query_BLE.unflatten(2, (self._heads, -1)).transpose(1, 2)  # [B, H, L, D]
        both = functional.linear(values_BLE, weight[width:], bias[width:])
        key, value = both.unflatten(2, (2, self._heads, -1)).permute(2, 0, 3, 1, 4)
        seen = None if length_B is None else filled(length_B, values_BLE.shape[1])[:, None, None]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=seen is None)
        return self.outward(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, a feed-forward layer and a norm for each. How they follow each other is the network's own."""

    def __init__(self, width: int, heads: int, hidden: int, *, dropout: float, activation: nn.Module) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.forward_layer = nn.Sequential(nn.Linear(width, hidden), activation, nn.Linear(hidden, width))
        self.norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(dropout)


def filled(length_B: Tensor, many: int) -> Tensor:
    """bool [B, L]: which places hold an item."""
    return torch.arange(many) < length_B[:, None]
