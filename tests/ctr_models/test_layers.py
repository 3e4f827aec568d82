"""Look-ups equal torch's own in value and gradient; row 0 is padding."""

import pytest
import torch
from torch.nn import functional

from ctr_models.layers import MLP, lookup, mean_pool, pool


def table() -> torch.Tensor:
    torch.manual_seed(0)
    values = torch.randn(7, 3)
    values[0] = 0
    return values.requires_grad_()


ROWS = torch.tensor([[1, 2, 0, 2], [0, 0, 0, 0], [6, 6, 6, 1]], dtype=torch.int32)


def test_lookup_is_embedding() -> None:
    ours, theirs = table(), table()
    upstream = torch.randn(3, 4, 3)
    lookup(ours, ROWS).backward(upstream)
    functional.embedding(ROWS, theirs, padding_idx=0).backward(upstream)

    torch.testing.assert_close(lookup(ours, ROWS), functional.embedding(ROWS, theirs))
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_pool_is_a_sum_without_padding() -> None:
    ours, theirs = table(), table()
    upstream = torch.randn(3, 3)
    pool(ours, ROWS).backward(upstream)
    (functional.embedding(ROWS, theirs, padding_idx=0).sum(dim=1)).backward(upstream)

    torch.testing.assert_close(pool(ours, ROWS), functional.embedding(ROWS, theirs).sum(dim=1))
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_pool_ignores_what_row_0_holds() -> None:
    filled = torch.ones(7, 3)

    assert pool(filled, ROWS)[:, 0].tolist() == pytest.approx([3, 0, 4])
    assert mean_pool(filled, ROWS)[:, 0].tolist() == pytest.approx([1, 0, 1])


def test_mlp_has_the_sizes_it_was_given() -> None:
    shapes = [tuple(p.shape) for p in MLP(5, (4, 3), 2, dropout=0.5).parameters()]

    assert shapes == [(4, 5), (4,), (3, 4), (3,), (2, 3), (2,)]
