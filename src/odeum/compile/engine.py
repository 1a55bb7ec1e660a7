"""The fused engine: which solves it takes, and a solve by it.

Joins a trace, its derivative, a kernel and torch's autograd.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from llvmlite import ir

from odeum.compile.emit.kernel import Spec
from odeum.compile.known import CompiledField, find
from odeum.compile.layouts import chosen
from odeum.compile.run import Run, recorded
from odeum.compile.runtime.calls import Array, Control
from odeum.compile.runtime.kernels import Kernel, is_kept, kernel_of
from odeum.compile.runtime.machine import machine
from odeum.eager.explicit import stepper
from odeum.eager.options import MAX_STEPS
from odeum.eager.outputs import Segments
from odeum.eager.problem import Outcome, Problem
from odeum.eager.records import Failure, Marked
from odeum.errors import TraceError
from odeum.gradient import discrete
from odeum.methods import ExplicitRungeKutta
from odeum.solution import Status
from odeum.types import Tensor

LARGEST_STACK = 4 * 2**20
"""Bytes of stack that a kernel may take."""

LARGE = 2**20
"""Bytes of shared tensors beyond which torch's own kernels are the better ones: they do not fit
into a core's memory, and torch reads them once for all rows."""

FEW = 32
"""Rows up to which that does not matter."""

UNLIMITED = 2**62
"""Tried steps that no solve will have."""

REALS = {torch.float32: ir.FloatType(), torch.float64: ir.DoubleType()}


def why_not(problem: Problem) -> str | None:
    """Why the engine cannot take a problem, whatever its field is; None where it can."""
    if not isinstance(problem.method, ExplicitRungeKutta):
        return "the fused engine runs explicit Runge-Kutta methods, and this is none"
    if not len(problem.y0):
        return "the fused engine has nothing to do where there are no rows"
    return None


class Prepared:
    """A problem whose field is traced, and which a kernel can solve.

    Args:
        problem: one that :func:`why_not` has nothing against.
        gradient: whether backpropagation is to give the exact gradient of the steps.

    Attributes:
        compiled: the field.
        recorded: whether anything is to be differentiated.

    Raises:
        TraceError: where the field cannot be compiled.
    """

    def __init__(self, problem: Problem, *, gradient: bool) -> None:
        self.problem = problem
        times = problem.times()  # refuses times that are none
        self.compiled, values = find(problem.field, problem.y0, times.start)
        self._inputs = self.compiled.inputs(values)
        given = [problem.y0, problem.ts, *self._inputs.values()]
        self.recorded = gradient and torch.is_grad_enabled() and any(x.requires_grad for x in given)
        wanted: frozenset[str] = frozenset()
        if self.recorded and problem.dense:
            raise TraceError(
                "dense output that is differentiated is the eager engine's: leave "
                'engine="auto", give gradient="none", or put the times in ts',
                operation="dense=True",
            )
        if self.recorded:
            named = {name for name, x in self._inputs.items() if x.requires_grad}
            wanted = frozenset(named | {"state", "time"})
        self._plan = _Plan(problem, self.compiled, wanted)

    @property
    def is_large(self) -> bool:
        """Whether torch's own kernels, which take all rows at once, are the better ones."""
        program = self.compiled.traced.graph
        shared = sum(self._inputs[node.name].nbytes for node in program.of_role("shared"))
        return shared > LARGE and len(self.problem.y0) > FEW

    def is_ready(self) -> bool:
        """Whether machine code is there, in memory or on disk, or has been asked for before."""
        return self._plan.is_ready()

    def kernel(self) -> Kernel:
        """The kernel, compiled where it is not compiled yet."""
        return self._plan.kernel()

    @property
    def n_threads(self) -> int:
        """How many threads are worth it."""
        return self._plan.n_threads

    def tensors(self) -> list[Tensor]:
        """What the kernel reads, in the order of its inputs."""
        program = self.kernel().spec.program
        return [self._inputs[node.name] for node in (*program.shared, *program.row)]

    def solve(self) -> Outcome:
        """Solves it, compiling what is not compiled yet."""
        problem = self.problem
        run = Run(
            self.kernel(),
            control_of(problem),
            self.n_threads,
            self._eagerly,
            problem.on_backward,
        )
        if self.recorded:
            ys = recorded(run, problem.y0, problem.ts, self.tensors())
        else:
            ys = run.solve(problem.y0, problem.ts, self.tensors())
        if run.failed and problem.on_failure is not None:
            problem.on_failure(_failure(run, problem))
        status, stats = run.status_and_stats()
        none = Marked.concatenate([], problem.ts, problem.y0)
        return Outcome(ys, status, stats, self._segments(run) if problem.dense else [], none)

    def _segments(self, run: Run) -> list[Segments]:
        """The steps, for the dense output."""
        assert run.solved is not None
        steps, method, y0 = run.solved.steps(), self.problem.method, self.problem.y0
        assert isinstance(method, ExplicitRungeKutta)
        dense = stepper(method.tableau, y0.dtype, y0.device).dense
        ks = steps.ks.transpose(0, 1).contiguous()
        parts = (steps.rows, steps.t, steps.t1, steps.h, steps.y, ks)
        return [Segments(dense, *parts)] if len(steps.rows) else []

    def _eagerly(self) -> Tensor:
        with torch.enable_grad():
            return discrete.solve(self.problem).ys


def _failure(run: Run, problem: Problem) -> Failure:
    """The first row that did not arrive."""
    solved = run.solved
    assert solved is not None
    status, _, n_accepted, n_rejected, *_ = solved.counts
    row = int(status.nonzero()[0][0])
    t, h, y, k = solved.of_failed(row)
    return Failure(
        row=row,
        status=Status(int(status[row])),
        t=float(t),
        h=float(h),
        n_tried=int(n_accepted[row] + n_rejected[row]),
        y=problem.field.state(y),
        k=problem.field.state(k),
        implicit=False,
    )


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
        real = REALS[problem.y0.dtype]
        width = machine().width(problem.y0.dtype.itemsize)
        self._choice = chosen(
            compiled.traced.graph, real, width, len(problem.y0), torch.get_num_threads()
        )
        self._key = (
            wanted,
            id(self._tableau),
            self._controller,
            self._lands,
            problem.dense,
            problem.ts.ndim,
            problem.ts.dtype,
            self._wants_times,
            self._choice.layout,
        )

    def is_ready(self) -> bool:
        """Whether machine code is there, in memory or on disk, or has been asked for before."""
        compiled = self._compiled
        if self._key in compiled.kernels or self._key in compiled.met:
            return True
        compiled.met.add(self._key)
        return is_kept(self._spec(), machine())

    @property
    def n_threads(self) -> int:
        """How many threads are worth it."""
        return self._choice.n_threads

    def kernel(self) -> Kernel:
        """The kernel, compiled where there is none yet."""
        kernels = self._compiled.kernels
        if self._key not in kernels:
            spec = self._spec()
            if spec.stack_size > LARGEST_STACK and spec.layout.registers > 1:
                spec = replace(spec, layout=replace(spec.layout, registers=1))
            if spec.stack_size > LARGEST_STACK:
                raise TraceError(
                    f"the field computes with {spec.stack_size / 2**20:.0f} MB at a time, too much "
                    'for a kernel: leave engine="auto", or give "eager"',
                    operation="solve",
                )
            kernels[self._key] = kernel_of(spec, machine())
        return kernels[self._key]

    def _spec(self) -> Spec:
        problem = self._problem
        return Spec(
            self._compiled.program(self._wanted),
            self._tableau,
            self._controller,
            self._lands,
            problem.ts.ndim == 2,
            problem.y0.shape[1],
            self._choice.layout,
            REALS[problem.ts.dtype],
            bool(self._wanted),
            problem.dense,
            self._wants_times,
        )


def control_of(problem: Problem) -> Control:
    """Tolerances and bounds on steps."""
    steps, tolerance = problem.steps, problem.tolerance
    fixed = steps.fixed is not None or not problem.method.adaptive
    return Control(
        _per_number(tolerance.rtol, problem.y0),
        _per_number(tolerance.atol, problem.y0),
        first=steps.first or 0.0,
        max=steps.max or math.inf,
        min=steps.min or 0.0,
        fixed=steps.fixed or math.inf,
        max_steps=steps.max_steps or (UNLIMITED if fixed else MAX_STEPS),
    )


def _per_number(tolerance: float | Tensor, y0: Tensor) -> Array:
    """A tolerance for every number of a state, [dim]."""
    value = torch.as_tensor(tolerance, dtype=y0.dtype).detach()
    return np.ascontiguousarray(value.expand(y0.shape[1]).numpy())
