"""The fused engine: which solves it takes, and a solve by it.

Joins a trace, its derivative, a kernel and torch's autograd.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from llvmlite import ir

from odeum.compile.emit.kernel import Spec
from odeum.compile.emit.places import Layout
from odeum.compile.interpret import interpret
from odeum.compile.known import CompiledField, find
from odeum.compile.runtime.calls import Array, Bounds, Solve, tolerance_array
from odeum.compile.runtime.kernels import Kernel, is_kept, kernel_of
from odeum.compile.runtime.machine import machine
from odeum.eager.control import Tolerance
from odeum.eager.options import MAX_STEPS
from odeum.eager.problem import Outcome, Problem
from odeum.eager.records import Failure, Marked
from odeum.gradient import discrete
from odeum.methods import ExplicitRungeKutta
from odeum.solution import Stats, Status
from odeum.types import Tensor

REALS = {torch.float32: ir.FloatType(), torch.float64: ir.DoubleType()}


def why_not(problem: Problem) -> str | None:
    """Why the engine cannot take a problem, whatever its field is; None where it can."""
    if not isinstance(problem.method, ExplicitRungeKutta):
        return "the fused engine runs explicit Runge-Kutta methods, and this is none"
    if problem.dense:
        return "the fused engine keeps no dense output: leave dense=True to the eager one"
    return None


class Prepared:
    """A problem whose field is traced, and which a kernel can solve.

    Args:
        problem: one that :func:`why_not` has nothing against.
        gradient: whether backpropagation is to give the exact gradient of the steps.

    Raises:
        TraceError: where the field cannot be compiled.
    """

    def __init__(self, problem: Problem, *, gradient: bool) -> None:
        self._problem = problem
        times = problem.times()  # refuses times that are none
        self._compiled, values = find(problem.field, problem.y0, times.start)
        prologue = self._compiled.traced.prologue
        if prologue is not None:
            values = {**values, **interpret(prologue, values, rows=False)}
        self._values = values
        given = [problem.y0, problem.ts, *values.values()]
        self._recorded = (
            gradient and torch.is_grad_enabled() and any(x.requires_grad for x in given)
        )
        wanted: frozenset[str] = frozenset()
        if self._recorded:
            named = {name for name, x in values.items() if x.requires_grad}
            wanted = frozenset(named | {"state", "time"})
        self._plan = _Plan(problem, self._compiled, wanted)

    def is_ready(self) -> bool:
        """Whether machine code is there, in memory or on disk, or has been asked for before."""
        return self._plan.is_ready()

    def solve(self) -> Outcome:
        """Solves it, compiling what is not compiled yet."""
        problem, values = self._problem, self._values
        run = _Run(problem, self._plan.kernel())
        if not self._recorded:
            run.solve(problem.y0, problem.ts, values)
            return run.outcome()
        ys = _Fused.apply(run, list(values), problem.y0, problem.ts, *values.values())
        return replace(run.outcome(), ys=ys)


class _Run:
    """One solve, from its kernel to its outcome."""

    def __init__(self, problem: Problem, kernel: Kernel) -> None:
        self.problem = problem
        self.kernel = kernel
        self._solve: Solve | None = None

    def solve(self, y0: Tensor, ts: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """Runs the kernel; returns the states at the output times."""
        program = self.kernel.spec.program
        shared, row = (
            [values[node.name].detach().contiguous() for node in nodes]
            for nodes in (program.shared, program.row)
        )
        y0, ts = y0.detach().contiguous(), ts.detach().contiguous()
        tolerances = _tolerances(self.problem.tolerance, y0)
        run = Solve(
            self.kernel,
            y0,
            ts,
            shared,
            row,
            tolerances,
            _bounds(self.problem),
            torch.get_num_threads(),
        )
        run.ys.fill_(math.nan)
        run.forward()
        self._solve = run
        return run.ys

    def outcome(self) -> Outcome:
        """What a solve hands back."""
        assert self._solve is not None
        run = self._solve
        status, n_evaluations, n_accepted, n_rejected = run.counts.unbind(0)
        if self.problem.on_failure is not None and bool((status > Status.EVENT).any()):
            self.problem.on_failure(self._failure())
        y0 = self.problem.y0
        return Outcome(
            run.ys,
            status,
            Stats(n_evaluations, n_accepted, n_rejected),
            [],
            Marked.concatenate([], self.problem.ts, y0),
        )

    def _failure(self) -> Failure:
        assert self._solve is not None
        run, problem = self._solve, self.problem
        row = int((run.counts[0] > Status.EVENT).nonzero()[0])
        t, h, y, k = (run.of_row(name, row) for name in ("t", "h", "y", "k"))
        return Failure(
            row=row,
            status=Status(int(run.counts[0, row])),
            t=float(t[0]),
            h=float(h[0]),
            n_tried=int(run.counts[2, row] + run.counts[3, row]),
            y=problem.field.state(torch.from_numpy(y)),
            k=problem.field.state(torch.from_numpy(k)),
            implicit=False,
        )

    def pull(self, g_ys: Tensor) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Gradients of initial states, times, and of the inputs by name."""
        assert self._solve is not None
        found = self._solve.backward(g_ys.contiguous())
        program = self.kernel.spec.program
        named = {
            node.name: g
            for role, gs in (("shared", found.shared), ("row", found.row))
            for node, g in zip(program.wanted(role), gs, strict=True)
        }
        if self.problem.on_backward is not None:
            self.problem.on_backward(self._backward_stats())
        return found.y0, found.ts, named

    def _backward_stats(self) -> Stats:
        assert self._solve is not None
        n_accepted = self._solve.counts[2]
        per_step = self.kernel.spec.derivatives.n_without_extra - 1
        moved = (n_accepted > 0).long()
        return Stats(n_accepted * per_step + moved, n_accepted, torch.zeros_like(n_accepted))


class _Fused(torch.autograd.Function):
    """``(y0, ts, shared and row tensors) -> ys``."""

    @staticmethod
    def forward(ctx: Any, run: _Run, names: list[str], *inputs: Tensor) -> Tensor:
        y0, ts, *tensors = inputs
        ys = run.solve(y0, ts, dict(zip(names, tensors, strict=True)))
        ctx.run, ctx.names = run, names
        # Saved so that autograd notices inputs changed in place before the backward pass.
        ctx.save_for_backward(*inputs)
        return ys

    @staticmethod
    def backward(ctx: Any, g_ys: Tensor) -> tuple[Any, ...]:
        inputs = ctx.saved_tensors  # raises where one was changed
        if torch.is_grad_enabled():
            return (None, None, *_gradients_with_graph(ctx.run.problem, inputs, g_ys))
        g_y0, g_ts, named = ctx.run.pull(g_ys)
        if g_ts is None and ctx.needs_input_grad[3]:
            g_ts = torch.zeros_like(inputs[1])
        return (None, None, g_y0, g_ts, *(named.get(name) for name in ctx.names))


def _gradients_with_graph(
    problem: Problem, inputs: Sequence[Tensor], g_ys: Tensor
) -> list[Tensor | None]:
    """Gradients that can be differentiated again: by the eager engine, which takes all steps anew."""
    wanted = [x for x in inputs if x.requires_grad]
    again = discrete.solve(problem)
    found = iter(torch.autograd.grad(again.ys, wanted, g_ys, create_graph=True, allow_unused=True))
    return [next(found) if x.requires_grad else None for x in inputs]


class _Plan:
    """Which kernel a problem takes.

    Args:
        problem: the problem.
        compiled: its field.
        wanted: inputs that want gradients.
    """

    def __init__(self, problem: Problem, compiled: CompiledField, wanted: frozenset[str]) -> None:
        self._problem = problem
        self._compiled = compiled
        self._wanted = wanted
        method = problem.method
        assert isinstance(method, ExplicitRungeKutta)
        self._tableau = method.tableau
        fixed = problem.steps.fixed is not None or not method.adaptive
        self._controller = None if fixed else method.controller
        self._lands = fixed and problem.steps.fixed is None
        self._wants_times = "time" in wanted and problem.ts.requires_grad
        self._single = len(problem.y0) == 1
        self._key = (
            wanted,
            id(self._tableau),
            self._controller,
            self._lands,
            problem.ts.ndim,
            problem.ts.dtype,
            self._wants_times,
            self._single,
        )

    def is_ready(self) -> bool:
        """Whether machine code is there, in memory or on disk, or has been asked for before."""
        compiled = self._compiled
        if self._key in compiled.kernels or self._key in compiled.met:
            return True
        compiled.met.add(self._key)
        return is_kept(self._spec(), machine())

    def kernel(self) -> Kernel:
        """The kernel, compiled where there is none yet."""
        kernels = self._compiled.kernels
        if self._key not in kernels:
            kernels[self._key] = kernel_of(self._spec(), machine())
        return kernels[self._key]

    def _spec(self) -> Spec:
        problem = self._problem
        dtype = problem.y0.dtype
        width = machine().width(dtype.itemsize)
        layout = Layout(REALS[dtype], 1, 1, width) if self._single else Layout(REALS[dtype], width)
        return Spec(
            self._compiled.program(self._wanted),
            self._tableau,
            self._controller,
            self._lands,
            problem.ts.ndim == 2,
            problem.y0.shape[1],
            layout,
            REALS[problem.ts.dtype],
            bool(self._wanted),
            self._wants_times,
        )


def _bounds(problem: Problem) -> Bounds:
    steps = problem.steps
    fixed = steps.fixed is not None or not problem.method.adaptive
    unlimited = 2**62 if fixed else MAX_STEPS
    return Bounds(
        steps.first or 0.0,
        steps.max or math.inf,
        steps.min or 0.0,
        steps.fixed or math.inf,
        steps.max_steps or unlimited,
    )


def _tolerances(tolerance: Tolerance, y0: Tensor) -> tuple[Array, Array]:
    """``rtol`` and ``atol`` for every number of a state."""
    dim = y0.shape[1]

    def array(value: float | Tensor) -> Array:
        if isinstance(value, Tensor):
            return np.ascontiguousarray(value.detach().to(y0.dtype).expand(dim).numpy())
        return tolerance_array(value, dim, y0.dtype)

    return array(tolerance.rtol), array(tolerance.atol)
