"""The exact gradient of the steps taken, as one autograd operation.

The forward pass stores ``(t, h, y)`` of the accepted steps and nothing else; the backward pass
(sweep.py) takes one step at a time again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from odeum.eager.outputs import Segments
from odeum.eager.problem import Outcome, Problem
from odeum.eager.records import Recorder
from odeum.errors import InputError
from odeum.gradient import adjoint
from odeum.gradient.batched import one_at_a_time
from odeum.gradient.checkpoints import CheckpointTape
from odeum.gradient.inputs import Args, Isolated, Start, Weights, isolate
from odeum.gradient.retrace import Retrace
from odeum.gradient.sweep import Sweep
from odeum.gradient.tape import Steps, Tape
from odeum.methods import Adams, SciPy
from odeum.types import Tensor


@dataclass(frozen=True)
class Discrete:
    """The exact gradient of the steps taken, by pulling them back one at a time.

    The forward solve stores one state a step, or a few states in all: then steps are taken again
    from the nearest one before them, none more than ``r`` times where
    ``binomial(checkpoints + r, r)`` is at least the number of steps.

    Attributes:
        checkpoints: at most so many states are stored, each with its derivative and what an
            implicit method carries along; one for each step where None.

    Raises:
        InputError: for a number of checkpoints below 1, or with an Adams method, whose steps need
            more than the state before them.

    Source:
        Wang, Moin & Iaccarino (2009); Griewank & Walther (2000); see
        :mod:`odeum.gradient.checkpoints`.

    Example:
        >>> import odeum
        >>> y0 = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
        >>> gradient = odeum.gradient.Discrete(checkpoints=4)
        >>> sol = odeum.solve(lambda t, y: -y, y0, torch.tensor([0.0, 1.0]), gradient=gradient)
        >>> sol.ys[-1].sum().backward()
        >>> y0.grad
        tensor([[0.3679]], dtype=torch.float64)
    """

    checkpoints: int | None = None

    def __post_init__(self) -> None:
        k = self.checkpoints
        if k is not None and (not isinstance(k, int) or isinstance(k, bool) or k < 1):
            raise InputError(
                f"Discrete(checkpoints={k!r}): give a whole number of at least 1, or None to "
                "store the state of every step"
            )

    def __call__(self, problem: Problem) -> Outcome:
        """Solves a problem so that backpropagation gives the gradient."""
        if not torch.is_grad_enabled():
            return problem.solve()
        if isinstance(problem.method, SciPy):
            # Its steps are not ours to pull back.
            return adjoint.solve(problem)
        cut = isolate(problem, keep_start=True)
        if not cut.wants_gradient:
            with torch.no_grad():
                return cut.problem.solve(cut.k0)
        if isinstance(problem.method, Adams):
            # A step reaches back to others: pulling one back at a time would not do.
            self._refuse_checkpoints()
            return problem.solve()
        tape: Tape | CheckpointTape
        if self.checkpoints is None:
            tape = Tape(cut)
            run = _Run(cut, tape.steps, tape.start)
        else:
            tape = CheckpointTape(self.checkpoints, cut.problem.y0, cut.k0)
            run = _Run(cut, tape.steps, None)
        ys, marked, *dense = _Discrete.apply(run, tape, *cut.inputs)
        # Kept, it would hold its own graph, and with it every step, for ever.
        outcome, run.outcome = run.outcome, None
        assert outcome is not None
        segments = [
            Segments(part.dense, *dense[6 * i : 6 * i + 6])
            for i, part in enumerate(outcome.segments)
        ]
        return replace(outcome, ys=ys, marked=replace(outcome.marked, y=marked), segments=segments)

    def _refuse_checkpoints(self) -> None:
        if self.checkpoints is not None:
            raise InputError(
                "checkpoints do not go with Adams methods, whose steps reach back to others: use "
                'a one-step method such as "dopri8", or gradient="adjoint"'
            )


solve = Discrete()
"""The gradient with a state stored for every step."""


class _Run:
    """What the forward pass of a solve leaves for the backward pass."""

    def __init__(self, cut: Isolated, steps: Steps, start: Start | None) -> None:
        self.problem = cut.problem
        self.steps = steps
        self.start = start
        self.k0 = cut.k0
        self.leaves = cut.leaves
        self.weights = Weights(cut.problem.field.field)
        self.outcome: Outcome | None = None
        self.dense: list[int] = []

    def restored(self) -> Problem:
        """The problem with the field as it was."""
        field = self.problem.field.with_field(self.weights.restored())
        return replace(self.problem, field=field)

    def pull(
        self, cotangents: Sequence[Tensor | None], *, wants_times: bool
    ) -> tuple[Tensor | None, ...]:
        """Cotangents of the inputs, from those of the outputs."""
        g_ys, g_marked, *g_dense = cotangents
        problem = self.restored()
        sweep = Sweep(problem, self.steps, self.leaves, self.start, wants_times=wants_times)
        dense = {part: tuple(g_dense[6 * i : 6 * i + 6]) for i, part in enumerate(self.dense)}
        g_y0 = sweep.run(g_ys, g_marked, dense)
        if problem.on_backward is not None:
            problem.on_backward(sweep.stats())
        of_times = sweep.of_times
        return (g_y0, of_times.ts, of_times.start, *sweep.of_leaves.gradients)

    def retrace(
        self, y0: Tensor, ts: Tensor, start: Tensor | None, *leaves: Tensor
    ) -> list[Tensor]:
        """The outputs, recorded by autograd on other tensors than those of the forward pass."""
        problem = self.restored()
        with torch.no_grad():
            uncounted = torch.zeros(len(y0), dtype=torch.int64, device=y0.device)
            entries = list(self.steps.backwards(problem.field, uncounted))
        args = Args(problem.field.args)
        field = problem.field.with_args(args.replaced(leaves[: len(args.tensors)]))
        problem = replace(problem, field=field, y0=y0, ts=ts, start=start)
        again = Retrace(problem, [entry.record.accepted() for entry in reversed(entries)])
        return [again.ys, again.marked, *(x for part in again.segments for x in part.tensors)]


class _Discrete(torch.autograd.Function):
    """``(y0, ts, start, args, captured) -> (ys, marked states, the segments of a dense solve)``."""

    @staticmethod
    def forward(
        ctx: Any, run: _Run, recorder: Recorder, *inputs: Tensor | None
    ) -> tuple[Tensor, ...]:
        run.outcome = outcome = run.problem.solve(run.k0, recorder)
        run.dense = [id(part.dense) for part in outcome.segments]
        ctx.run = run
        # Saved so that autograd notices inputs changed in place before the backward pass.
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(part.rows for part in outcome.segments))
        dense = [x for part in outcome.segments for x in part.tensors]
        return (outcome.ys, outcome.marked.y, *dense)

    @staticmethod
    @one_at_a_time
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        run: _Run = ctx.run
        inputs = ctx.saved_tensors  # raises where one was changed
        wanted = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            grads = _Pull.apply(run, wanted, *inputs, *cotangents)
        else:
            grads = run.pull(cotangents, wants_times=any(wanted[1:3]))
        return (None, None, *grads)


class _Pull(torch.autograd.Function):
    """The backward pass of a solve: ``(inputs, cotangents of the outputs) -> those of the inputs``.

    Its own backward pass takes all steps again in one graph.
    """

    @staticmethod
    def forward(
        ctx: Any, run: _Run, wanted: tuple[bool, ...], *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        ctx.run, ctx.wanted = run, wanted
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        return run.pull(tensors[len(wanted) :], wants_times=any(wanted[1:3]))

    @staticmethod
    def backward(ctx: Any, *g: Tensor | None) -> tuple[Any, ...]:
        run: _Run = ctx.run
        if torch.is_grad_enabled():
            raise InputError(
                'gradient="discrete" has first and second derivatives: give gradient="autograd" '
                "for those of higher order"
            )
        n_inputs = len(ctx.wanted)
        saved = ctx.saved_tensors
        # What the field reads by itself it reads as it is.
        own = len(run.leaves) - len(Args(run.problem.field.args).tensors)
        with torch.enable_grad():
            inputs = [
                x if x is None or i >= n_inputs - own else x.detach().requires_grad_(wants)
                for i, (x, wants) in enumerate(zip(saved, ctx.wanted, strict=False))
            ]
            inputs[n_inputs - own :] = run.leaves[len(run.leaves) - own :]
            cotangents = [
                None if x is None else x.detach().requires_grad_() for x in saved[n_inputs:]
            ]
            outputs = run.retrace(*inputs)
            first = _grad(outputs, inputs, cotangents, create_graph=True)
        variables = [*inputs, *cotangents]
        return (None, None, *_grad(first, variables, g, create_graph=False))


def _grad(
    outputs: Sequence[Tensor | None],
    inputs: Sequence[Tensor | None],
    cotangents: Sequence[Tensor | None],
    *,
    create_graph: bool,
) -> list[Tensor | None]:
    """Cotangents of the inputs that want one, None of the others."""
    pairs = [
        (x, g)
        for x, g in zip(outputs, cotangents, strict=True)
        if x is not None and g is not None and x.requires_grad
    ]
    wanted = [x for x in inputs if x is not None and x.requires_grad]
    if not pairs or not wanted:
        return [None] * len(inputs)
    # A graph the field closes over belongs to the user: it is not ours to free.
    found = iter(
        torch.autograd.grad(
            [x for x, _ in pairs],
            wanted,
            [g for _, g in pairs],
            create_graph=create_graph,
            retain_graph=True,
            allow_unused=True,
        )
    )
    return [next(found) if x is not None and x.requires_grad else None for x in inputs]
