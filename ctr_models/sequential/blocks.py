"""Which building blocks do networks over sequences share? Dropout and attention."""

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
        if queries_BLE is values_BLE:
            parts = self.inward(values_BLE)
        else:
            sizes = [values_BLE.shape[2], 2 * values_BLE.shape[2]]
            layers = zip(self.inward.weight.split(sizes), self.inward.bias.split(sizes), strict=True)
            each = zip((queries_BLE, values_BLE), layers, strict=True)
            parts = torch.cat([functional.linear(values, *layer) for values, layer in each], dim=2)
        query, key, value = parts.unflatten(2, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)  # [B, H, L, D]
        seen = None if length_B is None else filled(length_B, values_BLE.shape[1])[:, None, None]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=seen is None)
        return self.outward(mixed.transpose(1, 2).flatten(2))


def filled(length_B: Tensor, many: int) -> Tensor:
    """bool [B, L]: which places hold an item."""
    return torch.arange(many) < length_B[:, None]
