"""What is a sequential model? A file of this folder: a `Config` and a `Network` from embedded items to states.

A network never sees ids, text or the catalogue: it is given the embedded items of each history and says, at each
place, where in the space of item embeddings the answer is. Items are scored by the dot product with that state, so
the output layer is tied to the input table. This folder is a zoo of its own and not part of `ctr_models.zoo`: there a
network scores one row of fields, here it reads a sequence and must never depend on the item that is scored.
Contract, tested for every file:

    OBJECTIVE: Objective                       what it learns from a sequence
    class Config(NetworkConfig): ...           its constructor argument, and its line in a study's TOML
    class Network(nn.Module):
        def __init__(self, config: Config, max_length: int) -> None
        def forward(self, inputs: Inputs) -> Tensor          # states, float [B, L, E]

"next_item": the state at a place answers what comes after it, so a network must be causal. "masked_item": the state at
a hidden place answers what is hidden there; a question is a history with a hidden place at its end.

Shapes: B sequences, L places, E width, H heads, D width of a head.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

Objective = Literal["next_item", "masked_item"]
Share = Annotated[float, Field(ge=0, lt=1)]


class NetworkConfig(BaseModel, extra="forbid", frozen=True):
    """What every network has: its width, and how it is optimised (AdamW; Loshchilov and Hutter 2019)."""

    width: PositiveInt = 64
    """Numbers of an item's embedding, and of a state."""
    dropout: Share = 0.2
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0


@dataclass(frozen=True)
class Inputs:
    """Histories: elements_BLE, embedded items, oldest first; zero after the end. length_B: int64, places filled."""

    elements_BLE: Tensor
    length_B: Tensor
