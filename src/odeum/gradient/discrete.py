"""The exact gradient of the steps taken, as one autograd operation.

The forward pass stores ``(t, h, y)`` of the accepted steps and nothing else; the backward pass
(sweep.py) takes one step at a time again.
"""

from dataclasses import replace
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from odeum.eager.outputs import Segments
from odeum.eager.problem import Outcome, Problem
from odeum.gradient import adjoint
from odeum.gradient.inputs import Weights, isolate
from odeum.gradient.sweep import Sweep
from odeum.gradient.tape import Tape
from odeum.methods import Adams, SciPy
from odeum.types import Tensor


def solve(problem: Problem) -> Outcome:
    """Solves a problem so that backpropagation gives the exact gradient of the steps taken."""
    if not torch.is_grad_enabled():
        return problem.solve()
    if isinstance(problem.method, SciPy):
        # Its steps are not ours to pull back.
        return adjoint.solve(problem)
    saved = _SavedBytes()
    with saved:
        cut = isolate(problem)
    if not cut.wants_gradient:
        with torch.no_grad():
            return cut.problem.solve(cut.k0)
    if isinstance(problem.method, Adams):
        # A step reaches back to others: pulling one back at a time would not do.
        return problem.solve()
    tape = Tape(saved.n_bytes / len(cut.k0), wants_times=cut.wants_times)
    run = _Run(cut.problem, tape, cut.k0, cut.leaves)
    ys, marked, *dense = _Discrete.apply(run, *cut.inputs)
    # Kept, it would hold its own graph, and with it every step, for ever.
    outcome, run.outcome = run.outcome, None
    assert outcome is not None
    segments = [
        Segments(part.dense, *dense[6 * i : 6 * i + 6]) for i, part in enumerate(outcome.segments)
    ]
    return replace(outcome, ys=ys, marked=replace(outcome.marked, y=marked), segments=segments)


class _Run:
    """What the forward pass of a solve leaves for the backward pass."""

    def __init__(self, problem: Problem, tape: Tape, k0: Tensor, leaves: list[Tensor]) -> None:
        self.problem = problem
        self.tape = tape
        self.k0 = k0
        self.leaves = leaves
        self.weights = Weights(problem.field.field)
        self.outcome: Outcome | None = None
        self.dense: list[int] = []


class _Discrete(torch.autograd.Function):
    """``(y0, ts, start, args, captured) -> (ys, marked states, the segments of a dense solve)``."""

    @staticmethod
    def forward(ctx: Any, run: _Run, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        run.outcome = outcome = run.problem.solve(run.k0, run.tape)
        run.dense = [id(part.dense) for part in outcome.segments]
        ctx.run = run
        # Saved so that autograd notices inputs changed in place before the backward pass.
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(part.rows for part in outcome.segments))
        dense = [x for part in outcome.segments for x in part.tensors]
        return (outcome.ys, outcome.marked.y, *dense)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, g_ys: Tensor | None, g_marked: Tensor | None, *g_dense: Tensor | None
    ) -> tuple[Any, ...]:
        run: _Run = ctx.run
        _ = ctx.saved_tensors  # raises where one was changed
        field = run.problem.field.with_field(run.weights.restored())
        problem = replace(run.problem, field=field)
        sweep = Sweep(
            problem, run.tape.entries, run.leaves, wants_times=any(ctx.needs_input_grad[2:4])
        )
        dense = {part: g_dense[6 * i : 6 * i + 6] for i, part in enumerate(run.dense)}
        g_y0 = sweep.run(g_ys, g_marked, dense)
        if problem.on_backward is not None:
            problem.on_backward(sweep.stats())
        return (None, g_y0, sweep.g_ts, sweep.g_start, *sweep.g_leaves)


class _SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Counts what autograd stores of the operations inside it, parameters and constants aside."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._stored: list[Tensor] = []
        super().__init__(self._store, self._stored.__getitem__)

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        # An operation that stores its own output, which leads to it, would keep itself alive.
        self._stored[:] = [tensor.detach() for tensor in self._stored]

    @property
    def n_bytes(self) -> int:
        """Bytes stored."""
        return sum(self._sizes.values())

    def _store(self, tensor: Tensor) -> int:
        if not tensor.is_leaf:
            # Operations share what they store: the output of one is the input of the next.
            self._sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        self._stored.append(tensor)
        return len(self._stored) - 1
