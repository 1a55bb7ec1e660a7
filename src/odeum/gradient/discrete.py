"""The exact gradient of the steps taken, as one autograd operation.

The forward pass stores ``(t, h, y)`` of the accepted steps and nothing else; the backward pass
(sweep.py) takes one step at a time again.
"""

from dataclasses import replace
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from odeum.gradient.inputs import Args, captured_tensors
from odeum.gradient.sweep import Sweep
from odeum.solve.loop import Accepted
from odeum.solve.outputs import Segments
from odeum.solve.problem import Outcome, Problem
from odeum.types import Tensor


def solve(problem: Problem) -> Outcome:
    """Solves a problem so that backpropagation gives the exact gradient of the steps taken."""
    if not torch.is_grad_enabled():
        return problem.solve()
    args = Args(problem.field.args)
    isolated = replace(
        problem,
        field=problem.field.with_args(args.replaced([x.detach() for x in args.tensors])),
        y0=problem.y0.detach(),
        ts=problem.ts.detach(),
    )
    k0 = isolated.derivative0(isolated.times())
    captured = captured_tensors(problem.field.field, k0)
    run = _Run(isolated, args, k0.detach())
    inputs = (problem.y0, problem.ts, *args.tensors, *captured)
    if not any(tensor.requires_grad for tensor in inputs):
        with torch.no_grad():
            return isolated.solve(run.k0)
    ys, *dense = _Discrete.apply(run, *inputs)
    assert run.outcome is not None
    segments = [Segments(*dense)] if dense else []
    return replace(run.outcome, ys=ys, segments=segments)


class _Run:
    """What the forward pass of a solve leaves for the backward pass."""

    def __init__(self, problem: Problem, args: Args, k0: Tensor) -> None:
        self.problem = problem
        self.args = args
        self.k0 = k0
        self.records: list[Accepted] = []
        self.outcome: Outcome | None = None


class _Discrete(torch.autograd.Function):
    """``(y0, ts, args, captured) -> (ys, the segments of a dense solve)``."""

    @staticmethod
    def forward(ctx: Any, run: _Run, *inputs: Tensor) -> tuple[Tensor, ...]:
        run.outcome = run.problem.solve(run.k0, run.records)
        ctx.run = run
        # Saved so that autograd notices inputs changed in place before the backward pass.
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        if not run.outcome.segments:
            return (run.outcome.ys,)
        kept = Segments.concatenate(run.outcome.segments)
        ctx.mark_non_differentiable(kept.rows)
        return (run.outcome.ys, kept.rows, kept.t, kept.t1, kept.h, kept.y, kept.ks)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_ys: Tensor | None, *g_dense: Tensor | None) -> tuple[Any, ...]:
        run: _Run = ctx.run
        inputs = ctx.saved_tensors
        n_args = len(run.args.tensors)
        args = [x.detach().requires_grad_() for x in inputs[2 : 2 + n_args]]
        field = run.problem.field.with_args(run.args.replaced(args))
        sweep = Sweep(
            run.problem,
            run.records,
            field,
            leaves=[*args, *inputs[2 + n_args :]],
            wants_times=ctx.needs_input_grad[2],
        )
        g_y0 = sweep.run(g_ys, g_dense)
        assert run.outcome is not None
        batch_shape = run.problem.field.structure.batch_shape
        run.outcome.stats.backward = sweep.stats().spread(batch_shape)
        return (None, g_y0, sweep.g_ts, *sweep.g_leaves)
