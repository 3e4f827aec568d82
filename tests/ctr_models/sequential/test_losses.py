"""Losses against closed forms, values and gradients."""

import math

import pytest
import torch
from torch.nn import functional

from ctr_models.sequential import losses


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    states = torch.randn(700, 8, generator=random, dtype=torch.float64).requires_grad_()
    table = torch.randn(901, 8, generator=random, dtype=torch.float64).requires_grad_()
    return states, table, torch.randint(901, (700,), generator=random)


def test_softmax_is_the_cross_entropy_of_all_logits(case, monkeypatch: pytest.MonkeyPatch) -> None:
    states, table, target = case
    monkeypatch.setattr(losses, "LOGITS", 901 * 100)  # seven chunks
    ours = 3 * losses.softmax(states, table, target)
    mine = torch.autograd.grad(ours, [states, table])
    closed = 3 * functional.cross_entropy(states @ table.T, target, reduction="sum")

    torch.testing.assert_close(ours, closed)
    torch.testing.assert_close(mine, torch.autograd.grad(closed, [states, table]))


def test_softmax_stays_finite_where_the_answer_is_all_but_impossible() -> None:
    states, table = torch.tensor([[400.0]]), torch.tensor([[1.0], [-1.0]])
    value = losses.softmax(states.requires_grad_(), table, torch.tensor([1]))

    assert value.item() == pytest.approx(800)
    assert torch.autograd.grad(value, states)[0].item() == pytest.approx(2)


def test_a_frozen_table_gets_no_gradient(case) -> None:
    states, table, target = case
    value = losses.softmax(states, table.detach(), target)

    assert torch.autograd.grad(value, states)[0].shape == states.shape


def test_sampled_softmax_with_every_other_item_is_the_full_one() -> None:
    states, table = torch.randn(5, 4, dtype=torch.float64), torch.randn(30, 4, dtype=torch.float64)
    target = torch.full((5,), 7)
    everyone = torch.arange(30)

    torch.testing.assert_close(
        losses.sampled_softmax(states, table, target, everyone), losses.softmax(states, table, target)
    )


def test_gbce_by_hand() -> None:
    # one state, table rows that score 2 (the answer), 1, -1; V = 5, so two draws are half of the four others
    states = torch.tensor([[1.0]], dtype=torch.float64)
    table = torch.tensor([[2.0], [1.0], [-1.0], [0.0], [0.0]], dtype=torch.float64)

    def expected(beta: float) -> float:
        prior = math.log(beta / 2)
        log_sigmoid = [-math.log1p(math.exp(-s)) for s in (2 + prior, -(1 + prior), -(-1 + prior))]
        return -(beta * log_sigmoid[0] + log_sigmoid[1] + log_sigmoid[2]) / 3

    for calibration, beta in ((0.0, 1.0), (1.0, 0.5), (0.75, 0.625)):
        value = losses.gbce(states, table, torch.tensor([0]), torch.tensor([1, 2]), calibration=calibration)
        assert value.item() == pytest.approx(expected(beta))


def test_gbce_counts_nothing_for_draws_of_the_answer() -> None:
    states, table = torch.ones(1, 1, dtype=torch.float64), torch.tensor([[2.0], [1.0], [0.0]], dtype=torch.float64)
    twice = losses.gbce(states, table, torch.tensor([0]), torch.tensor([0, 0]), calibration=0.0)

    assert twice.item() == pytest.approx(math.log1p(math.exp(-2 + math.log(2))) / 3)


@pytest.mark.parametrize("config", [losses.Softmax(), losses.SampledSoftmax(negatives=9), losses.GBCE(negatives=9)])
def test_every_loss_is_a_sum_over_places(config) -> None:
    states, table, target = torch.randn(6, 4), torch.randn(30, 4), torch.arange(6)
    torch.manual_seed(3)
    whole = losses.loss(config, states, table, target)
    parts = []
    for chosen in (slice(0, 2), slice(2, 6)):
        torch.manual_seed(3)
        parts.append(losses.loss(config, states[chosen], table, target[chosen]))

    torch.testing.assert_close(whole, parts[0] + parts[1])
