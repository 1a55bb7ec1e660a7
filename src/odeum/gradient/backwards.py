"""A linear equation for ``a = dL/dy`` solved backwards, from each observation to the one before.

Between observations (outputs and marks) ``a' = -a df/dy``; at each, ``a`` grows by the cotangent
of the state. Where the state comes from is for the equation to say, which is solved by any method.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from odeum import methods
from odeum.eager.control import AdaptiveSteps
from odeum.eager.field import PerRow, RowField
from odeum.eager.jacobian import JacobianFunction
from odeum.eager.ledger import HANDED_OVER, Ledger
from odeum.eager.loop import Loop
from odeum.eager.options import MAX_STEPS
from odeum.eager.outputs import Outputs, Segments
from odeum.eager.problem import Problem
from odeum.eager.records import Failure, Limits, Observers, Sighting, State
from odeum.eager.stepper import Step
from odeum.eager.steppers import stepper_of
from odeum.errors import SolveError
from odeum.gradient.observations import Observations
from odeum.gradient.quadrature import ParameterIntegral, n_at_once
from odeum.gradient.totals import TimeGradients
from odeum.methods import Method
from odeum.solution import Stats, Status
from odeum.tree import structure_of
from odeum.types import Tensor


class Equation(Protocol):
    """What is solved backwards."""

    @property
    def jacobian(self) -> JacobianFunction | None:
        """Of ``derivative`` with respect to what is solved; by differentiation where None."""
        ...

    @property
    def advice(self) -> str:
        """What to try where the solve fails."""
        ...

    def start(self, y: Tensor, a: Tensor) -> Tensor:
        """What is solved, [rows, width], where state and adjoint are these, [rows, dim] each."""
        ...

    def split(self, rows: Tensor, t: Tensor, solved: Tensor) -> tuple[Tensor, Tensor]:
        """State and adjoint, [n, dim] each, of rows [n] at times [n, 1]."""
        ...

    def derivative(self, t: Tensor, y: Tensor, *args: Tensor) -> Tensor:
        """Of what is solved, which is ``y``, [n, width], in the rows that ``args`` holds."""
        ...


class BackwardSolve:
    """One backward solve.

    Args:
        problem: what was solved, with the method and the tolerance of the backward solve.
        equation: what is solved backwards.
        leaves: tensors that want gradients and that the field uses.
        n_steps: how many steps the forward solve took, [batch]: their mean size is the first that
            is tried backwards.

    Attributes:
        integral: the gradients of ``leaves``.
    """

    def __init__(
        self, problem: Problem, equation: Equation, leaves: list[Tensor], n_steps: Tensor
    ) -> None:
        method = with_jacobian(problem.method, equation.jacobian)
        self._problem = replace(problem, method=method)
        self._equation = equation
        self._a = torch.zeros_like(problem.y0)
        self.integral = ParameterIntegral(
            problem.field, leaves, equation.split, order_of(method), problem.y0
        )
        self._leaves = leaves
        none = torch.zeros(len(self._a), dtype=torch.int64, device=self._a.device)
        self._work = Stats(none, none, none)
        if has_jacobians(method):
            self._work = replace(self._work, n_jacobians=none, n_factorisations=none)
        times = problem.times()
        # The steps that rows try next; None where the user says what the first is.
        self._h: Tensor | None = None
        if problem.steps.first is None:
            self._h = (times.start - times.end) / n_steps.clamp(min=1).unsqueeze(-1)
        self._observations: Observations | None = None

    @property
    def g_leaves(self) -> list[Tensor | None]:
        """Gradients of the leaves."""
        return self.integral.of_leaves.gradients

    def run(self, observations: Observations) -> Tensor:
        """Goes back to the start; the gradient of the initial states but for their own output."""
        self._observations = seen = observations
        n_ranks = int(seen.rank.max()) + 1 if len(seen.rank) else 0
        spoilt = False
        for rank in range(n_ranks):
            at = (seen.rank == rank).nonzero().squeeze(-1)
            rows = seen.rows[at]
            self._a[rows] += seen.g[at]
            a = self._a[rows]
            lost = ~a.isfinite().all(-1)
            spoilt = spoilt or bool(lost.any())
            goes = ((seen.t[at] != seen.before[at]) & (a != 0).any(-1) & ~lost).nonzero()
            at, a = at[goes.squeeze(-1)], a[goes.squeeze(-1)]
            if len(at):
                ts = torch.stack([seen.t[at], seen.before[at]])
                self._a[seen.rows[at]] = self._go_back(seen.rows[at], ts, seen.y[at], a)
        self.integral.finish()
        if spoilt:
            # A loss that is NaN in a row says nothing of what all rows share.
            self.integral.of_leaves.gradients = [
                torch.full_like(x, torch.nan) for x in self._leaves
            ]
        return self._a

    def stats(self) -> Stats:
        """The work done, per row."""
        n_evaluations = self._work.n_evaluations + self.integral.n_evaluations
        return replace(self._work, n_evaluations=n_evaluations)

    def of_times(self, *, wanted: bool) -> TimeGradients:
        """Gradients of the output times and of the times where rows start.

        An output moves with its time by ``f``; the solve, by ``-f`` with where it starts.
        """
        times, seen = self._problem.times(), self._observations
        assert seen is not None
        totals = TimeGradients(times, wanted=wanted)
        if not wanted:
            return totals
        at = ((seen.index >= 0) & (seen.g != 0).any(-1)).nonzero().squeeze(-1)
        rows = seen.rows[at]
        of_outputs = self._along_field(rows, seen.t[at], seen.y[at], seen.g[at])
        totals.add(seen.index[at], rows, of_outputs)
        rows = (self._a != 0).any(-1).nonzero().squeeze(-1)
        start, y0 = times.start.squeeze(-1), self._problem.y0
        of_start = -self._along_field(rows, start[rows], y0[rows], self._a[rows])
        totals.arrive(torch.zeros_like(start).index_put_((rows,), of_start))
        return totals

    def _along_field(self, rows: Tensor, t: Tensor, y: Tensor, g: Tensor) -> Tensor:
        """``g . f(t, y)``, [n], in the dtype of the times."""
        field, at_once = self._problem.field, n_at_once(self._problem.field, self._a)
        parts = [slice(i, i + at_once) for i in range(0, len(rows), at_once)]
        with torch.no_grad():
            fs = [
                field.select(rows[part])(t[part].unsqueeze(-1).to(y.dtype), y[part])
                for part in parts
            ]
        self.integral.n_evaluations.index_add_(0, rows, torch.ones_like(rows))
        return (g * torch.cat([y[:0], *fs])).sum(-1).to(t.dtype)

    def _go_back(self, rows: Tensor, ts: Tensor, y: Tensor, a: Tensor) -> Tensor:
        """The adjoint at the end of one interval, [rows, dim].

        Args:
            rows: rows of the batch, ascending, [rows].
            ts: where the interval begins and ends, [2, rows].
            y: states where it begins, [rows, dim].
            a: adjoints there, [rows, dim].
        """
        size = a.abs().amax(-1, keepdim=True)
        state = self._equation.start(y, a / size)
        problem = Problem(
            RowField(self._equation.derivative, structure_of(state), PerRow(rows), joint=False),
            state,
            ts,
            self._problem.method,
            self._problem.tolerance,
            self._problem.steps,
            dense=bool(self._leaves),
            on_steps=lambda segments: self.integral.add(segments, rows, size),
            on_failure=lambda failure: self._fail(int(rows[failure.row]), failure),
        )
        with torch.no_grad():
            arrival = self._arrival(problem, rows)
            self._work = self._work.plus(arrival.stats.scattered(rows, len(self._a)))
            for segments in arrival.segments:
                self.integral.add(segments, rows, size)
            return self._equation.split(rows, ts[1].unsqueeze(-1), arrival.state)[1] * size

    def _arrival(self, problem: Problem, rows: Tensor) -> "Arrival":
        method = problem.method
        if not isinstance(method, methods.OneStep) or not _adapts(problem):
            outcome = problem.solve()
            return Arrival(outcome.ys[-1], outcome.stats, outcome.segments)
        arrival = _solved(problem, method, None if self._h is None else self._h[rows])
        if self._h is not None and arrival.h is not None:
            self._h[rows] = arrival.h
        return arrival

    def _fail(self, row: int, failure: Failure) -> None:
        row = self._problem.field.user_row(row)
        raise SolveError(
            f"the backward solve of row {row} stopped at t = {failure.t:.6g} "
            f"({failure.status.name}): {self._equation.advice}"
        )


@dataclass(frozen=True)
class Arrival:
    """The end of one interval.

    Attributes:
        state: what was solved, there, [rows, width].
        stats: the work.
        segments: every step, where they are wanted.
        h: the steps to try next, [rows, 1]; None where the method keeps that to itself.
    """

    state: Tensor
    stats: Stats
    segments: list[Segments]
    h: Tensor | None = None


def _solved(problem: Problem, method: methods.OneStep, h: Tensor | None) -> Arrival:
    """A problem solved from steps ``h`` on, and the steps with which its rows would go on."""
    times, tolerance, steps = problem.times(), problem.tolerance, problem.steps
    stepper = stepper_of(method, problem.y0, tolerance, problem.field)
    control = AdaptiveSteps(stepper, method.controller, tolerance, steps.first, steps.max)
    rows = torch.arange(len(problem.y0), device=problem.y0.device)
    outputs = Outputs(times, problem.y0, keep=problem.dense, on_steps=problem.on_steps)
    ledger = Ledger(len(rows), rows.device, implicit=stepper.implicit, n_evaluations=1)
    h = None if h is None else control.bound(h)
    start = State(rows, times.start, problem.y0, problem.derivative0(times), h)
    limits = Limits(steps.max_steps or MAX_STEPS, steps.min or 0.0)
    observers = Observers(watches=(_HandsOver(),), on_failure=problem.on_failure)
    loop = Loop(stepper, control, problem.field, start, times, outputs, ledger, limits, observers)
    loop.run()
    end = State.merged(loop.handed_over)
    return Arrival(end.y, ledger.stats, outputs.segments(), end.h)


class _HandsOver:
    """Has rows handed over where they arrive, with the steps that they would try next."""

    looks_inside = False

    def look(
        self, field: RowField, step: Step, segments: Segments, y1: Tensor, status: Tensor
    ) -> Sighting:
        """Looks for rows that have arrived."""
        arrived = status == int(Status.SUCCESS)
        return Sighting(segments.t1, status.masked_fill(arrived, HANDED_OVER), None)


def _adapts(problem: Problem) -> bool:
    return problem.steps.fixed is None and problem.method.adaptive


def with_jacobian(method: Method, jacobian: Callable[..., Tensor] | None) -> Method:
    """The method with another Jacobian, if it is one that uses them."""
    if isinstance(method, methods.Auto):
        return replace(method, stiff=replace(method.stiff, jacobian=jacobian))
    if isinstance(method, methods.ExplicitRungeKutta | methods.Symplectic):
        return method
    return replace(method, jacobian=jacobian) if has_jacobians(method) else method


def jacobian_of(method: Method) -> JacobianFunction | None:
    """The Jacobian that a method was given."""
    if isinstance(method, methods.Auto):
        return method.stiff.jacobian
    return getattr(method, "jacobian", None)


def order_of(method: Method) -> int:
    """Order of convergence; the higher one where a method is two."""
    if isinstance(method, methods.SciPy):
        return methods.SCIPY[method.solver].order
    if isinstance(method, methods.Adams):
        return method.order
    if isinstance(method, methods.Auto):
        return max(order_of(method.nonstiff), order_of(method.stiff))
    return method.tableau.order


def has_jacobians(method: Method) -> bool:
    """Whether a method uses Jacobians."""
    if isinstance(method, methods.SciPy | methods.Adams):
        return method.implicit
    return not isinstance(method, methods.ExplicitRungeKutta | methods.Symplectic)
