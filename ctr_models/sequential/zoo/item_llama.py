"""ItemLlama: the decoder of a current language model with one token an item, small and trained from scratch.

"Dropping the text" (arXiv 2506.15833, of which only the abstract is public): what is left of an LLM recommender without
its words is its architecture. RMSNorm (Zhang and Sennrich 2019), rotary positions (Su et al. 2021), SwiGLU (Shazeer
2020), grouped-query attention (Ainslie et al. 2023), no biases: the block of Llama 3 (Grattafiori et al. 2024).
"""

import math

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from ctr_models.sequential.blocks import Dropout
from ctr_models.sequential.zoo import Inputs, NetworkConfig, Objective

OBJECTIVE: Objective = "next_item"


class Config(NetworkConfig, frozen=True):
    """Depth and width shrunk, proportions kept."""

    blocks: PositiveInt = 2
    heads: PositiveInt = 4
    key_heads: PositiveInt = 2
    """Heads of keys and values; each serves heads / key_heads heads of queries."""
    hidden: PositiveInt | None = None
    """Width of the gated feed-forward layer; 8/3 of the items' width, rounded up to a multiple of 8, if None."""
    rotary_base: PositiveInt = 10_000

    @model_validator(mode="after")
    def _heads_fit(self) -> "Config":
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} must be a multiple of twice the {self.heads} heads")
        if self.heads % self.key_heads:
            raise ValueError(f"{self.heads} heads must be a multiple of the {self.key_heads} key_heads")
        return self


class Network(nn.Module):
    """rms_norm(block(block(dropout(item * sqrt(E)))))."""

    def __init__(self, config: Config, max_length: int) -> None:
        super().__init__()
        head = config.width // config.heads
        rate_D = config.rotary_base ** (-torch.arange(0, head, 2) / head)
        angle_LD = torch.outer(torch.arange(max_length), rate_D).repeat(1, 2)
        self._cos: Tensor
        self._sin: Tensor
        self.register_buffer("_cos", angle_LD.cos(), persistent=False)
        self.register_buffer("_sin", angle_LD.sin(), persistent=False)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.blocks))
        self.norm = nn.RMSNorm(config.width, eps=1e-5)
        self._scale = math.sqrt(config.width)

    def forward(self, inputs: Inputs) -> Tensor:
        many = inputs.elements_BLE.shape[1]
        values_BLE = self.dropout(inputs.elements_BLE * self._scale)
        for block in self.blocks:
            values_BLE = block(values_BLE, self._cos[:many], self._sin[:many])
        return self.norm(values_BLE)


class _Block(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        width, self._head = config.width, config.width // config.heads
        hidden = config.hidden or 8 * math.ceil(width / 3)
        self._split = [config.heads, config.key_heads, config.key_heads]
        self.inward = nn.Linear(width, sum(self._split) * self._head, bias=False)
        self.outward = nn.Linear(width, width, bias=False)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.norm, self.second_norm = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.dropout = Dropout(config.dropout)

    def forward(self, values_BLE: Tensor, cos_LD: Tensor, sin_LD: Tensor) -> Tensor:
        values_BLE = values_BLE + self.dropout(self._attend(self.norm(values_BLE), cos_LD, sin_LD))
        normed = self.second_norm(values_BLE)
        return values_BLE + self.dropout(self.down(functional.silu(self.gate(normed)) * self.up(normed)))

    def _attend(self, values_BLE: Tensor, cos_LD: Tensor, sin_LD: Tensor) -> Tensor:
        heads_BHLD = self.inward(values_BLE).unflatten(2, (-1, self._head)).transpose(1, 2)
        query, key, value = heads_BHLD.split(self._split, dim=1)
        query, key = _rotated(query, cos_LD, sin_LD), _rotated(key, cos_LD, sin_LD)
        grouped = self._split[0] != self._split[1]
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped)
        return self.outward(mixed.transpose(1, 2).flatten(2))


def _rotated(values_BHLD: Tensor, cos_LD: Tensor, sin_LD: Tensor) -> Tensor:
    """Each pair of numbers turned by an angle that grows with the place, so that products depend on distances only."""
    first, second = values_BHLD.chunk(2, dim=-1)
    return values_BHLD * cos_LD + torch.cat([-second, first], dim=-1) * sin_LD
