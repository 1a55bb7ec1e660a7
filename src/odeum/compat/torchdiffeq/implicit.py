"""The implicit methods of torchdiffeq's later versions: on a grid, one step of odeum's each."""

import torch

from odeum.api import solve
from odeum.compat.torchdiffeq.call import Call
from odeum.compat.torchdiffeq.grid import GridStep
from odeum.eager.options import StepOptions
from odeum.types import Tensor


def implicit(call: Call) -> GridStep:
    """The step of an implicit method."""

    def step(t0: Tensor, t1: Tensor, y0: Tensor) -> tuple[Tensor, Tensor]:
        solution = solve(
            call.field,
            y0,
            torch.stack([t0, t1]),
            method=call.method.tableau,
            gradient="autograd",
            # Longer than the interval: one step, cut to end with it.
            step=StepOptions(fixed=2 * float((t1 - t0).detach().abs())),
        )
        return solution.ys[-1], call.field(t0.to(y0.dtype), y0)

    return step
