"""A solve as one autograd operation whose backward pass gives first derivatives and no others.

Owns the operation, and what whoever differentiates further is told. Knows no gradient: a run
solves, and pulls cotangents back.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch

from odeum.eager.problem import Outcome, Problem
from odeum.gradient.batched import one_at_a_time
from odeum.gradient.inputs import Isolated, isolate
from odeum.gradient.refusal import refusing
from odeum.types import Tensor

ELSEWHERE = 'gradient="discrete" or "autograd", with a method of odeum\'s own'
"""What has the derivatives that these runs have not."""

Inputs = Sequence[Tensor | None]
"""What a solve depends on, in the order of :attr:`odeum.gradient.inputs.Isolated.inputs`."""


class Run(Protocol):
    """One solve and the way back through it."""

    @property
    def gradient(self) -> str:
        """The name of the gradient, for errors."""
        ...

    @property
    def needs_outputs(self) -> bool:
        """Whether the way back starts from the states of the outcome."""
        ...

    def solve(self) -> Outcome:
        """Solves, with the steps in the outcome only where the user wants them."""
        ...

    def pull(
        self,
        outputs: Sequence[Tensor],
        g_ys: Tensor | None,
        g_marked: Tensor | None,
        *,
        wants_times: bool,
    ) -> Inputs:
        """Cotangents of the inputs.

        Args:
            outputs: states at outputs and at marks, where they are needed; () where not.
            g_ys: cotangents of the first, zero where None.
            g_marked: cotangents of the second, zero where None.
            wants_times: whether those of the output times, or of where rows start, are wanted.
        """
        ...


def solved(problem: Problem, run_of: Callable[[Isolated], Run]) -> Outcome:
    """Solves a problem as one operation where anything of it wants a gradient.

    Args:
        problem: the problem.
        run_of: how, given the problem cut off from where its tensors come from.
    """
    if not torch.is_grad_enabled():
        return problem.solve()
    cut = isolate(problem)
    if not cut.wants_gradient:
        with torch.no_grad():
            return cut.problem.solve(cut.k0)
    return recorded(run_of(cut), cut.inputs)


def recorded(run: Run, inputs: Inputs) -> Outcome:
    """Solves a run, so that backpropagation pulls back by it."""
    taken: list[Outcome] = []
    ys, marked = _Operation.apply(run, taken, *inputs)
    (outcome,) = taken
    why = f'gradient="{run.gradient}" does not reach dense output: put the times in ts, or use '
    segments = [
        replace(part, y=refusing(part.y, inputs, why + ELSEWHERE)) for part in outcome.segments
    ]
    return replace(outcome, ys=ys, marked=replace(outcome.marked, y=marked), segments=segments)


class _Operation(torch.autograd.Function):
    """``(y0, ts, start, args, captured) -> (ys, marked states)``."""

    @staticmethod
    def forward(
        ctx: Any, run: Run, taken: list[Outcome], *inputs: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        outcome = run.solve()
        # Handed over, not kept: it would hold its own graph for ever. What the way back needs of
        # it autograd saves, and inputs too: it notices where one is changed in place.
        taken.append(outcome)
        outputs = (outcome.ys, outcome.marked.y)
        ctx.run, ctx.n_inputs = run, len(inputs)
        ctx.save_for_backward(*inputs, *(outputs if run.needs_outputs else ()))
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    @one_at_a_time
    def backward(ctx: Any, g_ys: Tensor | None, g_marked: Tensor | None) -> tuple[Any, ...]:
        run: Run = ctx.run
        inputs, outputs = ctx.saved_tensors[: ctx.n_inputs], ctx.saved_tensors[ctx.n_inputs :]
        with torch.no_grad():
            wants_times = any(ctx.needs_input_grad[3:5])
            found = run.pull(outputs, g_ys, g_marked, wants_times=wants_times)
        if torch.is_grad_enabled():
            why = f'gradient="{run.gradient}" has first derivatives only: for second ones use '
            depends_on = (*inputs, g_ys, g_marked)
            found = [x if x is None else refusing(x, depends_on, why + ELSEWHERE) for x in found]
        return (None, None, *found)
