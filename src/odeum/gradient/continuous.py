"""The two continuous adjoints as one autograd operation: what they share.

The forward solve is anyone's; backpropagation solves an equation backwards in time. Knows neither
the equation nor how it gets at the state: a plan says that.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from odeum.eager.outputs import Segments
from odeum.eager.problem import Outcome, Problem
from odeum.errors import InputError
from odeum.gradient.backwards import BackwardSolve, Equation
from odeum.gradient.batched import one_at_a_time
from odeum.gradient.inputs import Isolated, Weights, isolate
from odeum.gradient.observations import observations_of
from odeum.gradient.refusal import refusing
from odeum.types import Tensor


@dataclass(frozen=True)
class Plan:
    """How a solve is to be differentiated.

    Attributes:
        backward: the forward problem with the method and the tolerance of the backward solve.
        equation: makes the equation from the problem, as the backward pass finds it, and from
            what was kept.
        keep: what is to be kept of the steps of the forward solve; None where it need not keep
            them.
    """

    backward: Problem
    equation: Callable[[Problem, Any], Equation]
    keep: Callable[[list[Segments]], Any] | None = None


def solve(problem: Problem, plan: Callable[[Problem], Plan]) -> Outcome:
    """Solves a problem so that backpropagation solves an adjoint equation.

    Args:
        problem: the problem.
        plan: how, given the problem cut off from where its tensors come from.
    """
    if not torch.is_grad_enabled():
        return problem.solve()
    cut = isolate(problem)
    if not cut.wants_gradient:
        with torch.no_grad():
            return cut.problem.solve(cut.k0)
    run = _Run(cut, plan(cut.problem))
    ys, marked = _Continuous.apply(run, *cut.inputs)
    # Not kept: what the backward pass needs of it is saved by autograd.
    outcome, run.outcome = run.outcome, None
    assert outcome is not None
    segments = refusing(outcome.segments if problem.dense else [], cut.inputs, "continuous")
    return replace(outcome, ys=ys, marked=replace(outcome.marked, y=marked), segments=segments)


def check_tolerances(options: Any) -> None:
    """Refuses tolerances that are no positive numbers.

    Args:
        options: with ``rtol`` and ``atol``, None where not given.

    Raises:
        InputError: for anything else.
    """
    for name in ("rtol", "atol"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            kind = type(options).__name__
            raise InputError(f"{kind}({name}={value}): give a positive number")


class _Run:
    """What the forward pass of a solve leaves for the backward pass."""

    def __init__(self, cut: Isolated, plan: Plan) -> None:
        self.cut = cut
        self.plan = plan
        self.weights = Weights(cut.problem.field.field)
        self.outcome: Outcome | None = None


class _Continuous(torch.autograd.Function):
    """``(y0, ts, start, args, captured) -> (ys, marked states)``."""

    @staticmethod
    def forward(ctx: Any, run: _Run, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        problem, keep = run.cut.problem, run.plan.keep
        if keep is not None:
            problem = replace(problem, dense=True)
        run.outcome = outcome = problem.solve(run.cut.k0)
        ctx.run = run
        ctx.kept = None if keep is None else keep(outcome.segments)
        ctx.n_steps = outcome.stats.n_accepted
        ctx.marked = replace(outcome.marked, y=outcome.marked.y[:0])
        ctx.save_for_backward(*inputs, outcome.ys, outcome.marked.y)
        ctx.set_materialize_grads(False)
        return outcome.ys, outcome.marked.y

    @staticmethod
    @one_at_a_time
    @once_differentiable
    def backward(ctx: Any, g_ys: Tensor | None, g_marked: Tensor | None) -> tuple[Any, ...]:
        run: _Run = ctx.run
        *_, ys, y_marked = ctx.saved_tensors
        problem = run.plan.backward
        problem = replace(problem, field=problem.field.with_field(run.weights.restored()))
        equation = run.plan.equation(problem, ctx.kept)
        solver = BackwardSolve(problem, equation, run.cut.leaves, ctx.n_steps)
        marked = replace(ctx.marked, y=y_marked)
        g_y0 = solver.run(observations_of(problem, ys, marked, g_ys, g_marked))
        if g_ys is not None and problem.start is None:
            g_y0 = g_y0 + g_ys[0]
        of_times = solver.of_times(wanted=any(ctx.needs_input_grad[2:4]))
        if problem.on_backward is not None:
            problem.on_backward(solver.stats())
        return (None, g_y0, of_times.ts, of_times.start, *solver.g_leaves)
