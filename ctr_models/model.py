"""How do a batch's integers become a network's inputs? One embedding table, the text adaptor, and the network.

Shapes: B rows of a batch, L places of a history, D width of a field, K fields of an item, V distinct items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ctr_models import zoo
from ctr_models.adaptor import AdaptorConfig, TextAdaptor
from ctr_models.layers import lookup, mean_pool
from ctr_models.samples import Batch, Entities, Tables
from ctr_models.text import TextStatistics
from ctr_models.vocabulary import RATING, Vocabulary
from ctr_models.zoo import Channel, Inputs, NetworkConfig, Shape
from storage import plugins


@dataclass(frozen=True)
class Prepared:
    """All items embedded, items_VE, and all texts adapted, name -> [1 + texts, D]."""

    items_VE: Tensor
    texts: Mapping[str, Tensor]


class CTRModel(nn.Module):
    """A network of the zoo with everything it reads; `forward` gives logits, float32 [B].

    Item fields are embedded once for each distinct item of a batch, whether it is a target or in histories.
    """

    def __init__(
        self,
        kind: str,
        config: NetworkConfig,
        vocabulary: Vocabulary,
        statistics: Sequence[TextStatistics] = (),
        adaptor: AdaptorConfig | None = None,
    ) -> None:
        """kind: a file of the zoo. Raises ConfigError where there is no such file."""
        super().__init__()
        width = config.width
        self.table = nn.Parameter(torch.randn(vocabulary.size, width) * 0.01)
        self.table.data[0] = 0
        self.text = TextAdaptor(adaptor or AdaptorConfig(), statistics, width)
        kinds = ("category", "number", "list", "count", "share")
        item_fields = len(vocabulary.of("item", *kinds))
        self.rating = vocabulary.named(RATING)
        fields = len(vocabulary.fields) - 1 + self.text.n_fields
        item_texts = [each.name for each in statistics if each.entity == "item" and each.name in self.text.sides]
        channels = ((item_fields * width, True), (width, False), *((width, True) for _ in item_texts))
        self.item_texts = item_texts
        self.text_names = [each.name for each in statistics]
        self.network = plugins.load(zoo, kind).Network(config, Shape(width, fields, channels))

    def prepare(self, tables: Tables, vectors: Mapping[str, Tensor]) -> Prepared:
        """Embed every item and adapt every text once, for scoring with weights that no longer change."""
        return Prepared(
            self._entities(tables.items, torch.arange(len(tables.items.single))).flatten(1), self.text.tables(vectors)
        )

    def forward(self, batch: Batch, vectors: Mapping[str, Tensor], *, prepared: Prepared | None = None) -> Tensor:
        """vectors: of each feature set, row 0 absent; prepared: what `prepare` made of the batch's tables."""
        if prepared is not None:
            table_VE, target_rows, history_rows = prepared.items_VE, batch.item_B, batch.history_BL
        else:
            items, target_rows, history_rows = _distinct(batch.item_B, batch.history_BL, len(batch.tables.items.single))
            table_VE = self._entities(batch.tables.items, items).flatten(1)
        target_BE = lookup(table_VE, target_rows)
        width = self.table.shape[1]
        fields = [
            self._entities(batch.tables.users, batch.user_B),
            target_BE.unflatten(1, (-1, width)),
            lookup(self.table, batch.context_BC),
        ]
        channels = [
            Channel(table_VE, history_rows, target_BE),
            Channel(self._ratings(), batch.rating_BL, None),
        ]
        for place, name in enumerate(self.text_names):
            if name not in self.text.sides:
                continue
            target, channel = self._text(name, batch, batch.text_BT[:, place].contiguous(), vectors, prepared)
            fields.append(target[:, None])
            channels += [channel] if channel else []
        if self.text.similarity is not None:
            fields.append(self.text.compare(batch.similarity_BS)[:, None])
        return self.network(Inputs(torch.cat(fields, dim=1), channels, batch.history_BL != 0, batch.liked_BL))

    def _entities(self, entities: Entities, rows: Tensor) -> Tensor:
        """Fields of users or items: [rows, fields, D]; of several values the mean."""
        fields = [lookup(self.table, entities.single[rows])]
        fields += [mean_pool(self.table, values[rows])[:, None] for values in entities.lists]
        return torch.cat(fields, dim=1)

    def _ratings(self) -> Tensor:
        own = self.table[self.rating.offset : self.rating.offset + self.rating.size]
        return torch.cat([torch.zeros_like(own[:1]), own])

    def _text(
        self,
        name: str,
        batch: Batch,
        rows_B: Tensor,
        vectors: Mapping[str, Tensor],
        prepared: Prepared | None,
    ) -> tuple[Tensor, Channel | None]:
        """The target's field [B, D] and, for an item set, the history's channel; each distinct text adapted once."""
        history = batch.text_history.get(name)
        if prepared is not None:
            table = prepared.texts[name]
        else:
            distinct, rows_B, history = _distinct(rows_B, history, len(vectors[name]))
            table = self.text.adapt(name, vectors[name][distinct])
        target = table.index_select(0, rows_B)
        if history is None:
            return target, None
        without_absent = torch.cat([torch.zeros_like(table[:1]), table[1:]])
        return target, Channel(without_absent, history, target)


def _distinct(rows_B: Tensor, rows_BL: Tensor | None, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The distinct numbers in both (0 first, always), and both renumbered to places among them, int32.

    Where there are fewer numbers than places in the history, all count as used: that is cheaper than looking.
    """
    if rows_BL is not None and size <= rows_BL.numel():
        return torch.arange(size), rows_B, rows_BL
    used = torch.zeros(size, dtype=torch.bool)
    used[0] = True
    used[rows_B] = True
    if rows_BL is not None:
        used[rows_BL.reshape(-1)] = True
    places = used.cumsum(0, dtype=torch.int32) - 1
    again = None if rows_BL is None else places[rows_BL]
    return used.nonzero().squeeze(1), places[rows_B], again  # type: ignore[return-value]
