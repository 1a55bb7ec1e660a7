"""The exact gradient of the steps taken, as one autograd operation.

The forward pass stores ``(t, h, y)`` of the accepted steps and nothing else; the backward pass
(sweep.py) takes one step at a time again.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from odeum.eager.outputs import Segments
from odeum.eager.problem import Outcome, Problem
from odeum.eager.records import Recorder
from odeum.errors import InputError
from odeum.gradient import adjoint
from odeum.gradient.checkpoints import CheckpointTape
from odeum.gradient.inputs import Isolated, Weights, isolate
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
        saved = _SavedBytes()
        with saved:
            cut = isolate(problem)
        if not cut.wants_gradient:
            with torch.no_grad():
                return cut.problem.solve(cut.k0)
        if isinstance(problem.method, Adams):
            # A step reaches back to others: pulling one back at a time would not do.
            self._refuse_checkpoints()
            return problem.solve()
        tape: Tape | CheckpointTape
        if self.checkpoints is None:
            tape = Tape(saved.n_bytes / len(cut.k0), wants_times=cut.wants_times)
        else:
            tape = CheckpointTape(self.checkpoints, cut.problem.y0, cut.k0)
        run = _Run(cut, tape.steps)
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

    def __init__(self, cut: Isolated, steps: Steps) -> None:
        self.problem = cut.problem
        self.steps = steps
        self.k0 = cut.k0
        self.leaves = cut.leaves
        self.weights = Weights(cut.problem.field.field)
        self.outcome: Outcome | None = None
        self.dense: list[int] = []


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
    @once_differentiable
    def backward(
        ctx: Any, g_ys: Tensor | None, g_marked: Tensor | None, *g_dense: Tensor | None
    ) -> tuple[Any, ...]:
        run: _Run = ctx.run
        _ = ctx.saved_tensors  # raises where one was changed
        field = run.problem.field.with_field(run.weights.restored())
        problem = replace(run.problem, field=field)
        sweep = Sweep(problem, run.steps, run.leaves, wants_times=any(ctx.needs_input_grad[3:5]))
        dense = {part: g_dense[6 * i : 6 * i + 6] for i, part in enumerate(run.dense)}
        g_y0 = sweep.run(g_ys, g_marked, dense)
        if problem.on_backward is not None:
            problem.on_backward(sweep.stats())
        return (None, None, g_y0, sweep.g_ts, sweep.g_start, *sweep.g_leaves)


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
