"""What does a state pay for not pointing at the right item? Full softmax, sampled softmax, or gBCE.

All are sums over the places that have an answer: states_ND [N, E], table_VE [V, E] (without the padding row), answers
target_N (int64 rows of the table). The caller divides, so that parts of a batch add up to the batch.
"""

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor
from torch.nn import functional

LOGITS = 1 << 19
"""Logits that exist at a time: as many as a core's own cache holds."""
RARE = 1e-30
"""Probabilities below are not trusted for a logarithm."""


class Softmax(BaseModel, extra="forbid", frozen=True):
    """Cross-entropy over the whole catalogue."""

    kind: Literal["softmax"] = "softmax"


class SampledSoftmax(BaseModel, extra="forbid", frozen=True):
    """Cross-entropy over the answer and random items, for catalogues that are too large for all of them."""

    kind: Literal["sampled_softmax"] = "sampled_softmax"
    negatives: PositiveInt = 512


class GBCE(BaseModel, extra="forbid", frozen=True):
    """Binary cross-entropy whose overconfidence is calibrated (Petrov and Macdonald 2023, gSASRec)."""

    kind: Literal["gbce"] = "gbce"
    negatives: PositiveInt = 256
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """t of the paper: 0 is plain binary cross-entropy, 1 predicts calibrated probabilities."""


LossConfig = Annotated[Softmax | SampledSoftmax | GBCE, Field(discriminator="kind")]


def loss(config: Softmax | SampledSoftmax | GBCE, states_NE: Tensor, table_VE: Tensor, target_N: Tensor) -> Tensor:
    """The configured loss, summed over the N places. Negatives are drawn once for all of them, uniformly."""
    if isinstance(config, Softmax):
        return softmax(states_NE, table_VE, target_N)
    negative_K = torch.randint(len(table_VE), (config.negatives,))
    if isinstance(config, SampledSoftmax):
        return sampled_softmax(states_NE, table_VE, target_N, negative_K)
    return gbce(states_NE, table_VE, target_N, negative_K, calibration=config.calibration)


def softmax(states_NE: Tensor, table_VE: Tensor, target_N: Tensor) -> Tensor:
    """Sum of -log softmax(states @ table.T)[target]; logits and their gradient never exist for all places at once."""
    return _Softmax.apply(states_NE, table_VE, target_N)  # type: ignore[no-any-return]


def sampled_softmax(states_NE: Tensor, table_VE: Tensor, target_N: Tensor, negative_K: Tensor) -> Tensor:
    """Sum of -s_t + log(exp s_t + (V - 1) / K' sum_k exp s_k) over the K' negatives that are not the answer.

    The weight makes the sum over uniform draws an unbiased estimate of the sum over all other items (importance
    sampling; Bengio and Senecal 2008): with each other item drawn once it is the full softmax.
    """
    right_N, wrong_NK, is_target_NK = _scores(states_NE, table_VE, target_N, negative_K)
    many_N1 = (~is_target_NK).sum(dim=1, keepdim=True).clamp(min=1)
    weighted_NK = (wrong_NK + torch.log((len(table_VE) - 1) / many_N1)).masked_fill(is_target_NK, -torch.inf)
    return (torch.logsumexp(torch.cat([right_N[:, None], weighted_NK], dim=1), dim=1) - right_N).sum()


def gbce(states_NE: Tensor, table_VE: Tensor, target_N: Tensor, negative_K: Tensor, *, calibration: float) -> Tensor:
    """Sum of -(beta log sigmoid(s_t) + sum_k log(1 - sigmoid(s_k))) / (K + 1); Petrov and Macdonald 2023.

    beta = a (t (1 - 1/a) + 1/a) with a = K / (V - 1), the share of the other items that is drawn, and t `calibration`.
    Draws of the answer itself count nothing. Every s is the product of state and item plus log(beta / K), the log-odds
    of an answer among the draws: training begins at the base rate (the prior of Lin et al. 2017, "Focal Loss",
    section 3.3). Without that constant, which no ranking sees, products must first learn to be negative for all items
    alike, and a network whose states begin all the same, as BERT4Rec's at hidden places, stays there.
    """
    right_N, wrong_NK, is_target_NK = _scores(states_NE, table_VE, target_N, negative_K)
    many = len(negative_K)
    share = min(1.0, many / max(1, len(table_VE) - 1))
    beta = share * (calibration * (1 - 1 / share) + 1 / share)
    base_rate = math.log(beta / many)
    negative_N = functional.logsigmoid(-base_rate - wrong_NK).masked_fill(is_target_NK, 0).sum(dim=1)
    return -(beta * functional.logsigmoid(right_N + base_rate) + negative_N).sum() / (many + 1)


def _scores(states_NE: Tensor, table_VE: Tensor, target_N: Tensor, negative_K: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of the answers [N] and of the negatives [N, K], and which negatives are the answer."""
    rows = functional.embedding(torch.cat([target_N, negative_K]), table_VE)
    right_N = (states_NE * rows[: len(target_N)]).sum(dim=1)
    return right_N, states_NE @ rows[len(target_N) :].T, target_N[:, None] == negative_K


class _Softmax(torch.autograd.Function):
    """Gradients are made beside the loss, chunk by chunk, while the probabilities are in a cache."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, target: Tensor) -> Tensor:
        wanted, table_wanted = ctx.needs_input_grad[:2]
        states_gradient = torch.empty_like(states) if wanted else None
        table_gradient = torch.zeros_like(table) if table_wanted else None
        total = states.new_zeros(())
        many = max(16, LOGITS // len(table))
        for start in range(0, len(states), many):
            some, answer = states[start : start + many], target[start : start + many, None]
            logits = some @ table.T
            probability = torch.softmax(logits, dim=1)
            right = probability.gather(1, answer)
            if right.min() < RARE:
                total -= torch.log_softmax(logits, dim=1).gather(1, answer).sum()
            else:
                total -= right.log_().sum()
            if not (wanted or table_wanted):
                continue
            probability.scatter_add_(1, answer, probability.new_full(answer.shape, -1.0))
            if states_gradient is not None:
                torch.mm(probability, table, out=states_gradient[start : start + many])
            if table_gradient is not None:
                table_gradient.addmm_(probability.T, some)
        ctx.save_for_backward(states_gradient, table_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        of_states, of_table = ctx.saved_tensors
        (scale,) = gradients
        return (
            None if of_states is None else of_states * scale,
            None if of_table is None else of_table * scale,
            None,
        )
