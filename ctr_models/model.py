"""How do a batch's integers become a network's inputs? One embedding table, the text adaptor, and the network.

Shapes: B rows of a batch, L places of a history, D width of a field, K fields of an item, V distinct items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctr_models import adaptors, zoo
from ctr_models.adaptors import AdaptorConfig, FoldedSimilarity, Texts
from ctr_models.layers import lookup, mean_pool
from ctr_models.samples import Batch
from ctr_models.tables import Entities, Tables
from ctr_models.text import TextStatistics
from ctr_models.vocabulary import RATING, Vocabulary
from ctr_models.zoo import Channel, Inputs, NetworkConfig, Shape
from storage import plugins


@dataclass(frozen=True)
class Prepared:
    """All item versions embedded, items_VE; adapted texts, of each version of an item, and all of users.

    texts: name -> [V, D + own]; users: name -> [1 + texts, D + own], own the numbers that the adaptor keeps of a text;
    user_fields: the same as fields, [1 + texts, 1, D]; compare: the field of a batch's similarities, if there is one.
    """

    items_VE: Tensor
    texts: Mapping[str, Tensor]
    users: Mapping[str, Tensor]
    user_fields: Mapping[str, Tensor]
    compare: FoldedSimilarity | None


class CTRModel(nn.Module):
    """A network of the zoo with everything it reads; `forward` gives logits, float32 [B].

    Items are embedded once for each distinct item of a batch, whether it is a target or in histories.
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
        width, self.first_order = config.width, config.first_order
        self.table = nn.Parameter(torch.randn(vocabulary.size, width) * 0.01)
        self.table.data[0] = 0
        self.text = adaptors.make(adaptor, statistics, width - config.first_order)
        self.rating = vocabulary.named(RATING)
        self.item_texts = [each.name for each in statistics if each.entity == "item"]
        self.user_texts = [each.name for each in statistics if each.entity == "user"]
        kinds = ("category", "number", "list")
        item_fields = len(vocabulary.of("item", *kinds)) + sum(name in self.text.sides for name in self.item_texts)
        fields = len(vocabulary.fields) - 1 + self.text.n_fields  # the rating belongs to the history alone
        shape = Shape(width, fields, channels=((item_fields * width, True), (width, False)))
        self.network = plugins.load(zoo, kind).Network(config, shape)

    def prepare(self, tables: Tables, vectors: Mapping[str, Tensor]) -> Prepared:
        """Embed every item and adapt every text once, for scoring with weights that no longer change."""
        everything = torch.arange(len(tables.items.single))
        users = {name: self.text.adapt(name, vectors[name]) for name in self.user_texts if name in self.text.sides}
        compare = self.text.folded(before=self.first_order) if self.text.similarity is not None else None
        user_fields = {name: self._text_field(text) for name, text in users.items()}
        return Prepared(*self._items(tables.items, everything, vectors), users, user_fields, compare)

    def forward(self, batch: Batch, vectors: Mapping[str, Tensor], *, prepared: Prepared | None = None) -> Tensor:
        """vectors: of each feature set, row 0 absent; prepared: what `prepare` made of the batch's tables."""
        width, tables = self.table.shape[1], batch.tables
        similarity: Tensor | None = None
        if prepared is not None:
            if prepared.compare is not None:
                similarity = prepared.compare(batch.similarity_BS)[:, None]
            items_VE, texts, values_VA = prepared.items_VE, prepared.texts, tables.items.values
            target_rows, history_rows = batch.item_B, batch.history_BL
        else:
            items, target_rows, history_rows = _distinct(batch.item_B, batch.history_BL, len(tables.items.single))
            items_VE, texts = self._items(tables.items, items, vectors)
            values_VA = tables.items.values[items]
            if self.text.similarity is not None:
                similarity = self._text_field(self.text.compare(batch.similarity_BS))
        target_BE = lookup(items_VE, target_rows)
        user_fields = [lookup(self.table, batch.context_BC)]
        users: dict[str, Tensor] = {}
        for name, rows_B in zip(self.user_texts, batch.user_text_BT.unbind(1), strict=True):
            if prepared is None and name in self.text.sides:
                users[name] = self._adapted(name, rows_B, vectors[name])
                user_fields.append(self._text_field(users[name]))
            elif prepared is not None and name in prepared.users:
                user_fields.append(prepared.user_fields[name].index_select(0, rows_B))
                if self.text.n_relations:
                    users[name] = prepared.users[name].index_select(0, rows_B)
        item_fields = [target_BE.unflatten(1, (-1, width))]
        related = self.text.relate(Texts(texts, target_rows, history_rows, batch.liked_BL, users))
        item_fields += [self._text_field(field) for field in related]
        if similarity is not None:
            item_fields.append(similarity)
        nothing = torch.zeros(0, 0, dtype=torch.int32)
        channels = [
            Channel(items_VE, history_rows, target_BE, values_VA, values_VA.index_select(0, target_rows)),
            Channel(self._ratings(), batch.rating_BL, None, nothing, nothing),
        ]
        rows, before = len(batch.item_B), self._entities(tables.users, batch.user_B)
        fields = [before, *item_fields, *user_fields]
        fields_BFD = torch.cat([field.expand(rows, -1, -1) for field in fields], dim=1)
        n_before, n_own = before.shape[1], sum(field.shape[1] for field in item_fields)
        own = slice(n_before, n_before + n_own) if len(history_rows) < rows else None
        return self.network(Inputs(fields_BFD, channels, batch.history_BL != 0, batch.liked_BL, own))

    def _items(
        self, entities: Entities, rows: Tensor, vectors: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """All fields of item versions, [rows, fields * D], the first row, padding, zero; and their adapted texts."""
        fields = [self._entities(entities, rows)]
        texts: dict[str, Tensor] = {}
        for place, name in enumerate(self.item_texts):
            if name in self.text.sides:
                texts[name] = self._adapted(name, entities.text[rows, place], vectors[name])
                fields.append(self._text_field(texts[name]))
        items_VE = torch.cat(fields, dim=1).flatten(1)
        return torch.cat([torch.zeros_like(items_VE[:1]), items_VE[1:]]) if texts else items_VE, texts

    def _entities(self, entities: Entities, rows: Tensor) -> Tensor:
        """Fields of users or items from the embedding table: [rows, fields, D]; of several values the mean."""
        fields = [lookup(self.table, entities.single[rows])]
        fields += [mean_pool(self.table, values[rows])[:, None] for values in entities.lists]
        return torch.cat(fields, dim=1)

    def _text_field(self, text_ND: Tensor) -> Tensor:
        """An adapted text, without the adaptor's own numbers, as a field without first-order weights: [N, 1, D]."""
        field = text_ND[:, None, : self.text.width]
        return functional.pad(field, (self.first_order, 0)) if self.first_order else field

    def _adapted(self, name: str, rows: Tensor, vectors: Tensor) -> Tensor:
        """Texts as fields and what the adaptor keeps of them: [rows, D + own]; each distinct text is adapted once."""
        distinct, places, _ = _distinct(rows, None, len(vectors))
        return self.text.adapt(name, vectors[distinct]).index_select(0, places)

    def _ratings(self) -> Tensor:
        own = self.table[self.rating.offset : self.rating.offset + self.rating.size]
        return torch.cat([torch.zeros_like(own[:1]), own])


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
