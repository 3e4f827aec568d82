"""How does a recurrent layer walk along a history? A gated unit whose update gate may be scaled at each step.

Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder", section 2.3, with the reset gate applied
after the matrix, as torch's GRU does; the scale of the update gate is AUGRU of DIEN (Zhou et al. 2019). A
step of scale 0 leaves the state as it is, so padding is a scale of 0 and an ordinary GRU a scale of 1.

The backward pass is written out: torch records some twenty operations for each step, which cost five times as much.
"""

from typing import Any

import torch
from torch import Tensor, nn


class GRU(nn.Module):
    """inputs_LB3H, scale_LB -> the state after each step, [L, B, H]; the first state is zero.

    inputs_LB3H: W x + b of the update gate, the reset gate and the candidate, so that a caller may look them up.
    u = scale sigmoid(x_u + U_u h), r = sigmoid(x_r + U_r h), n = tanh(x_n + r * (U_n h + b_n)), h' = h + u (n - h).
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, 3 * size))
        self.bias = nn.Parameter(torch.zeros(size))
        nn.init.uniform_(self.weight, -(size**-0.5), size**-0.5)

    def forward(self, inputs_LB3H: Tensor, scale_LB: Tensor) -> Tensor:
        return _GRU.apply(inputs_LB3H, scale_LB, self.weight, self.bias)  # type: ignore[no-any-return]


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        steps, rows, size = inputs.shape[0], inputs.shape[1], weight.shape[0]
        states = inputs.new_zeros(steps + 1, rows, size)
        gates = torch.empty_like(inputs)  # update (unscaled), reset, candidate
        kept = inputs.new_empty(steps, rows, size)  # U_n h + b_n
        turned = inputs.new_empty(rows, 3 * size)
        for step in range(steps):
            torch.mm(states[step], weight, out=turned)
            gate, candidate = gates[step, :, : 2 * size], gates[step, :, 2 * size :]
            torch.add(inputs[step, :, : 2 * size], turned[:, : 2 * size], out=gate).sigmoid_()
            torch.add(turned[:, 2 * size :], bias, out=kept[step])
            torch.addcmul(inputs[step, :, 2 * size :], gate[:, size:], kept[step], out=candidate)
            candidate.mul_(2).sigmoid_().mul_(2).sub_(1)  # tanh, four times as fast
            torch.sub(candidate, states[step], out=states[step + 1])
            states[step + 1].mul_(gate[:, :size]).mul_(scale[step, :, None]).add_(states[step])
        ctx.save_for_backward(scale, weight, states, gates, kept)
        return states[1:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scale, weight, states, gates, kept = ctx.saved_tensors
        steps, rows, size = kept.shape
        to_inputs, to_turned = torch.empty_like(gates), torch.empty_like(gates)
        to_scale = torch.empty_like(scale)
        flow = kept.new_zeros(rows, size)  # gradient of the state after this step
        for step in reversed(range(steps)):
            update, reset, candidate = gates[step].split(size, dim=1)
            flow = flow + gradients[0][step]
            change = (candidate - states[step]).mul_(flow)  # times d h' / d u
            torch.sum(change * update, dim=1, out=to_scale[step])
            factor = scale[step, :, None] * update
            to_update, to_reset, to_candidate = to_inputs[step].split(size, dim=1)
            torch.mul(change, scale[step, :, None] * (update - update * update), out=to_update)
            torch.mul(flow * factor, 1 - candidate * candidate, out=to_candidate)
            torch.mul(to_candidate * kept[step], reset - reset * reset, out=to_reset)
            to_turned[step, :, : 2 * size] = to_inputs[step, :, : 2 * size]
            torch.mul(to_candidate, reset, out=to_turned[step, :, 2 * size :])
            flow = torch.addmm(flow - flow * factor, to_turned[step], weight.t())
        flat = to_turned.flatten(0, 1)
        return to_inputs, to_scale, states[:-1].flatten(0, 1).t() @ flat, flat[:, 2 * size :].sum(dim=0)
