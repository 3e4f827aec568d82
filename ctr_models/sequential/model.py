"""What do all sequential models have in common? An item table, a network of the zoo, a loss, and scores by product."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ctr_models.layers import lookup
from ctr_models.sequential import losses, zoo
from ctr_models.sequential.histories import Histories, parts
from ctr_models.sequential.items import ItemTable, ItemText
from ctr_models.sequential.zoo import Inputs, NetworkConfig, Objective
from storage import plugins


@dataclass(frozen=True)
class Batch:
    """Sequences and what there is to answer.

    item_BL: int32, oldest first, 0 after the end; length_B: int64; hidden_BL: bool, places whose item is not shown
    (None: all are shown); target_BL: int64, the answer at each place, 0 where there is none.
    """

    item_BL: Tensor
    length_B: Tensor
    hidden_BL: Tensor | None
    target_BL: Tensor


class SequentialModel(nn.Module):
    """Network `kind` of the zoo over the embeddings of items 1 ... n_items."""

    def __init__(
        self,
        kind: str,
        options: NetworkConfig,
        n_items: int,
        *,
        max_length: int,
        text: ItemText | None = None,
        text_trainable: bool = True,
    ) -> None:
        super().__init__()
        plugin = plugins.load(zoo, kind)
        self.objective: Objective = plugin.OBJECTIVE
        self.n_items, self.max_length = n_items, max_length
        self.items = ItemTable(n_items, options.width, text, trainable=text_trainable)
        hides = self.objective == "masked_item"
        self.hidden = nn.Parameter(torch.randn(options.width) * 0.02) if hides else None
        # a hidden place is one more place, so that a question may have a history of full length
        self.network: nn.Module = plugin.Network(options, max_length + hides)

    def states(self, item_BL: Tensor, length_B: Tensor, hidden_BL: Tensor | None, table_VE: Tensor) -> Tensor:
        """What the network says at each place; [B, L, E]."""
        elements_BLE = lookup(table_VE, item_BL)
        filled_BL1 = (item_BL != 0)[:, :, None]
        if self.hidden is not None and hidden_BL is not None:
            elements_BLE = torch.where(hidden_BL[:, :, None], self.hidden, elements_BLE)
            filled_BL1 = filled_BL1 | hidden_BL[:, :, None]
        return self.network(Inputs(elements_BLE * filled_BL1, length_B))

    def loss(self, batch: Batch, config: losses.LossConfig) -> Tensor:
        """The loss summed over the places that have an answer; logits are made for those only."""
        table_VE = self.items.weight()
        states_BLE = self.states(batch.item_BL, batch.length_B, batch.hidden_BL, table_VE)
        asked = (batch.target_BL > 0).flatten().nonzero()[:, 0]
        states_NE = states_BLE.flatten(0, 1).index_select(0, asked)
        return losses.loss(config, states_NE, table_VE[1:], batch.target_BL.flatten()[asked] - 1)

    def answers(self, history: Histories, table_VE: Tensor) -> Tensor:
        """The state that a next item is compared with, for each history; [B, E]. Zero where a history is empty.

        table_VE: of all items that histories name, see `ItemTable.extended`.
        """
        history = history.newest(self.max_length)
        lengths = history.lengths
        found = torch.zeros(len(history), table_VE.shape[1])
        for places in parts(lengths, np.flatnonzero(lengths)):
            item_BL, length_B = history.rectangle(places)
            hidden_BL = None
            if self.hidden is not None:
                item_BL = torch.nn.functional.pad(item_BL, (0, 1))
                hidden_BL = torch.arange(item_BL.shape[1]) == length_B[:, None]
                length_B = length_B + 1
            states_BLE = self.states(item_BL, length_B, hidden_BL, table_VE)
            found[places] = states_BLE[torch.arange(len(places)), length_B - 1]
        return found


class ModelScorer:
    """Scores of all items by a trained model: the product of its answer with every embedding.

    cold: reduced text vectors of all items of the catalogue; items after the training items can be recommended where
    they have one. Without them only training items can.
    """

    def __init__(self, model: SequentialModel, n_items: int, cold: ItemText | None = None) -> None:
        self._model, self._n_items = model.eval(), n_items
        with torch.inference_mode():
            self.table_VE = model.items.extended(cold)
        possible = np.zeros(1 + n_items, bool)
        possible[1 : 1 + model.n_items] = True
        if cold is not None:
            possible[: len(cold.known)] |= cold.known
        self.recommendable = possible

    def queries(self, history: Histories) -> np.ndarray:
        """The answers to histories, float32 [B, E]; items that cannot be recommended tell nothing."""
        with torch.inference_mode():
            return self._model.answers(history.only(self.recommendable), self.table_VE).numpy()

    def scores(self, history: Histories) -> np.ndarray:
        """float32 [B, 1 + items]; -inf where an item cannot be recommended."""
        scores = np.full((len(history), 1 + self._n_items), -np.inf, np.float32)
        table = self.table_VE.numpy()
        np.matmul(self.queries(history), table.T, out=scores[:, : len(table)])
        scores[:, ~self.recommendable] = -np.inf
        return scores


def training_batch(
    model: SequentialModel, history: Histories, places: np.ndarray, random: np.random.Generator, *, hidden_share: float
) -> Batch:
    """The sequences at `places` with their answers: the next item at each place, or the items that are hidden.

    history: at most max_length + 1 items each (next_item; the last one is an answer only), else max_length.
    """
    item_BL, length_B = history.rectangle(places)
    if model.objective == "next_item":
        return Batch(item_BL[:, :-1].contiguous(), length_B - 1, None, item_BL[:, 1:].long())
    filled = item_BL.numpy() > 0
    hidden = (random.random(filled.shape) < hidden_share) & filled
    none = ~hidden.any(axis=1)
    hidden[none, length_B.numpy()[none] - 1] = True  # a sequence with nothing hidden would teach nothing
    hidden_BL = torch.from_numpy(hidden)
    return Batch(item_BL, length_B, hidden_BL, item_BL.long() * hidden_BL)


def trainable(history: Histories, objective: Objective, max_length: int) -> tuple[Histories, np.ndarray]:
    """The newest part of each sequence that a model learns from, and the places of sequences with an answer."""
    history = history.newest(max_length + (objective == "next_item"))
    return history, np.flatnonzero(history.lengths > 1)
