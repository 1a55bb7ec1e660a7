"""The fused engine: which solves it takes, and a solve by it.

Joins a trace, its derivative, a kernel and torch's autograd.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from torch.autograd.function import once_differentiable

from odeum.compile.derivative import differentiate
from odeum.compile.emit.kernel import Program, Spec
from odeum.compile.emit.places import Layout
from odeum.compile.interpret import interpret
from odeum.compile.runtime.calls import Array, Bounds, Solve, tolerance_array
from odeum.compile.runtime.kernels import Kernel, kernel_of
from odeum.compile.runtime.machine import machine
from odeum.compile.trace import Traced
from odeum.eager.control import Tolerance
from odeum.eager.options import MAX_STEPS
from odeum.eager.problem import Outcome, Problem
from odeum.eager.records import Failure, Marked
from odeum.methods import ExplicitRungeKutta
from odeum.solution import Stats, Status
from odeum.types import Tensor

REALS = {torch.float32: ir.FloatType(), torch.float64: ir.DoubleType()}


@dataclass(frozen=True, eq=False)
class CompiledField:
    """A traced field with the kernels made of it so far.

    Attributes:
        traced: the field.
        programs: its graphs, by the names of the inputs that want gradients.
        kernels: by everything else that they depend on.
    """

    traced: Traced
    programs: dict[frozenset[str], Program] = field(default_factory=dict)
    kernels: dict[Any, Kernel] = field(default_factory=dict)

    def program(self, wanted: frozenset[str]) -> Program:
        """The graphs that gradients of some inputs take; none are wanted where it is empty."""
        if wanted not in self.programs:
            forward = self.traced.graph
            if not wanted:
                self.programs[wanted] = Program(forward)
            else:
                found = differentiate(self.traced.differentiable, wanted)
                self.programs[wanted] = Program(forward, found.recording, found.backward)
        return self.programs[wanted]


def why_not(problem: Problem) -> str | None:
    """Why the engine cannot take a problem, whatever its field is; None where it can."""
    method = problem.method
    if not isinstance(method, ExplicitRungeKutta):
        return "the fused engine runs explicit Runge-Kutta methods"
    if problem.dense:
        return "the fused engine keeps no dense output yet"
    if problem.watches or problem.marks_end or problem.start is not None:
        return "the fused engine knows no events"
    return None


def solve(
    problem: Problem, compiled: CompiledField, values: Mapping[str, Tensor], *, gradient: bool
) -> Outcome:
    """Solves a problem that the engine takes.

    Args:
        problem: the problem.
        compiled: its field.
        values: the shared and row tensors that the field reads, by name.
        gradient: whether backpropagation is to give the exact gradient of the steps.
    """
    problem.times()  # refuses times that are none
    if compiled.traced.prologue is not None:
        values = {**values, **interpret(compiled.traced.prologue, values, rows=False)}
    given = [problem.y0, problem.ts, *values.values()]
    if not (gradient and torch.is_grad_enabled() and any(x.requires_grad for x in given)):
        run = _Run(problem, compiled, values, frozenset())
        run.solve(problem.y0, problem.ts, values)
        return run.outcome()
    wanted = {name for name, x in values.items() if x.requires_grad}
    run = _Run(problem, compiled, values, frozenset(wanted | {"state", "time"}))
    ys = _Fused.apply(run, list(values), problem.y0, problem.ts, *values.values())
    return replace(run.outcome(), ys=ys)


class _Run:
    """One solve, from its kernel to its outcome."""

    def __init__(
        self,
        problem: Problem,
        compiled: CompiledField,
        values: Mapping[str, Tensor],
        wanted: frozenset[str],
    ) -> None:
        self.problem = problem
        self.kernel = _kernel(problem, compiled, wanted)
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
    @once_differentiable
    def backward(ctx: Any, g_ys: Tensor) -> tuple[Any, ...]:
        inputs = ctx.saved_tensors  # raises where one was changed
        g_y0, g_ts, named = ctx.run.pull(g_ys)
        if g_ts is None and ctx.needs_input_grad[3]:
            g_ts = torch.zeros_like(inputs[1])
        return (None, None, g_y0, g_ts, *(named.get(name) for name in ctx.names))


def _kernel(problem: Problem, compiled: CompiledField, wanted: frozenset[str]) -> Kernel:
    """The kernel for a problem, compiled where there is none yet."""
    method = problem.method
    assert isinstance(method, ExplicitRungeKutta)
    tableau = method.tableau
    fixed = problem.steps.fixed is not None or not method.adaptive
    controller = None if fixed else method.controller
    lands = fixed and problem.steps.fixed is None
    wants_times = "time" in wanted and problem.ts.requires_grad
    y0 = problem.y0
    key = (
        wanted,
        id(tableau),
        controller,
        lands,
        problem.ts.ndim,
        problem.ts.dtype,
        wants_times,
        len(y0) == 1,
    )
    kernel = compiled.kernels.get(key)
    if kernel is None:
        made_for = machine()
        width = made_for.width(y0.dtype.itemsize)
        real = REALS[y0.dtype]
        layout = Layout(real, 1, 1, width) if len(y0) == 1 else Layout(real, width)
        spec = Spec(
            compiled.program(wanted),
            tableau,
            controller,
            lands,
            problem.ts.ndim == 2,
            y0.shape[1],
            layout,
            REALS[problem.ts.dtype],
            bool(wanted),
            wants_times,
        )
        kernel = kernel_of(spec, made_for)
        compiled.kernels[key] = kernel
    return kernel


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
