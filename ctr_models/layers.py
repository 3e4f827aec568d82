"""Which building blocks do models share? Table look-ups with a fast backward, pairs, attention, perceptrons.

`lookup` and `pool` are `torch.nn.functional.embedding` and `embedding_bag` (sum) in value and gradient. Their backward
sorts the look-ups by row once (a counting sort) and then adds each row's gradients up in one pass over memory; torch's
own dense backward on a CPU is 20 to 1000 times slower on the shapes of a history.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.nn import functional


def lookup(table_VE: Tensor, rows: Tensor) -> Tensor:
    """Rows of a table: any shape of int32 row numbers -> that shape + [E]. Row 0 gets no gradient."""
    return _Lookup.apply(table_VE, rows)  # type: ignore[no-any-return]


def pool(table_VE: Tensor, rows_BL: Tensor) -> Tensor:
    """Sum of the table rows that each line of int32 `rows_BL` names: [B, E]. Row 0 adds nothing, gets no gradient."""
    return _Pool.apply(table_VE, rows_BL)  # type: ignore[no-any-return]


def mean_pool(table_VE: Tensor, rows_BL: Tensor) -> Tensor:
    """Mean of the rows of each line that are not 0; zero where all are."""
    return pool(table_VE, rows_BL) / (rows_BL != 0).sum(dim=1, keepdim=True).clamp(min=1)


def fields_linear(layer: nn.Linear, fields_BFD: Tensor, own: slice | None) -> Tensor:
    """`layer` of the flattened fields, its first inputs: [B, out]. own: fields that differ between rows; all if None.

    What the first row has in common with the others is multiplied once: W x_b = W x_1 + W_own (x_b - x_1).
    """
    flat = fields_BFD.flatten(1)
    weight = layer.weight[:, : flat.shape[1]]
    if own is None:
        return functional.linear(flat, weight, layer.bias)
    columns = slice(own.start * fields_BFD.shape[2], own.stop * fields_BFD.shape[2])
    same = functional.linear(flat[:1], weight, layer.bias)
    return torch.addmm(same, flat[:, columns] - flat[:1, columns], weight[:, columns].T)


def pairwise_products(fields_BFD: Tensor) -> Tensor:
    """Sum over all pairs of fields of their inner products: [B].

    In linear time, as half of the squared sum less the squares (Rendle 2010, "Factorization Machines", lemma 3.1).
    """
    return (fields_BFD.sum(dim=1) ** 2 - (fields_BFD**2).sum(dim=1)).sum(dim=1) / 2


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension of the places where `mask` is true; 0 elsewhere, and everywhere if none is."""
    scores = scores.masked_fill(~mask, -torch.inf)
    greatest = scores.detach().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
    weight = (scores - greatest).exp()
    return weight / weight.sum(dim=-1, keepdim=True).clamp(min=1)  # the greatest alone weighs 1, if there is one


def _by_row(rows: Tensor, n_rows: int, width: int) -> tuple[Tensor, Tensor]:
    """For each table row the lines that used it, as (lines, ends): the transpose of a sparse 0/1 matrix."""
    flat = rows.reshape(-1).numpy()
    ends = np.arange(0, len(flat) + 1, width, dtype=np.int32)
    used = csr_matrix((np.ones(len(flat), np.int8), flat, ends), shape=(len(flat) // width, n_rows)).tocsc()
    return torch.from_numpy(used.indices), torch.from_numpy(used.indptr)


def _spread(gradient_NE: Tensor, rows: Tensor, n_rows: int, width: int) -> Tensor:
    lines, ends = _by_row(rows, n_rows, width)
    table = functional.embedding_bag(lines, gradient_NE.contiguous(), ends, mode="sum", include_last_offset=True)
    table[0] = 0
    return table


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.n_rows = len(table)
        return table.index_select(0, rows.reshape(-1)).view(*rows.shape, table.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        gradient = gradients[0]
        return _spread(gradient.reshape(-1, gradient.shape[-1]), rows, ctx.n_rows, 1), None


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.n_rows = len(table)
        ends = torch.arange(0, rows.numel() + 1, rows.shape[1], dtype=torch.int32)
        summed = functional.embedding_bag(rows.reshape(-1), table, ends, mode="sum", include_last_offset=True)
        padding = (rows == 0).sum(dim=1, keepdim=True)
        return summed - padding * table[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return _spread(gradients[0], rows, ctx.n_rows, rows.shape[1]), None


class MLP(nn.Sequential):
    """Linear, activation and dropout for each hidden size, then a linear layer to `out`."""

    def __init__(self, width: int, hidden: Sequence[int], out: int, *, dropout: float = 0.0) -> None:
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()] + ([nn.Dropout(dropout)] if dropout else [])
            width = size
        super().__init__(*layers, nn.Linear(width, out))

    def of_fields(self, fields_BFD: Tensor, own: slice | None, beside_BH: Tensor | None = None) -> Tensor:
        """`self`, its first layer being `fields_linear`; beside_BH: what its further inputs add to that layer."""
        first, *others = self
        assert isinstance(first, nn.Linear)
        values = fields_linear(first, fields_BFD, own)
        if beside_BH is not None:
            values = values + beside_BH
        for layer in others:
            values = layer(values)
        return values


class Experts(nn.Module):
    """Several MLPs dim -> hidden -> out at once, a ReLU after both layers: [V, dim] -> [V, experts, out]."""

    def __init__(self, dim: int, experts: int, hidden: int, out: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim, experts * hidden)
        self.second = nn.Parameter(torch.empty(experts, hidden, out))
        self.bias = nn.Parameter(torch.zeros(experts, 1, out))
        nn.init.uniform_(self.second, -(hidden**-0.5), hidden**-0.5)

    def forward(self, vectors: Tensor) -> Tensor:
        experts = self.second.shape[0]
        hidden = self.first(vectors).relu().unflatten(1, (experts, -1)).transpose(0, 1)
        return (torch.baddbmm(self.bias, hidden, self.second)).relu().transpose(0, 1)
