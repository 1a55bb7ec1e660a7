"""The continuous adjoint: the gradient as the solution of an equation solved backwards in time.

``a = dL/dy`` obeys ``a' = -a df/dy`` between observations (outputs and marks), and grows by the
cotangent of the state at each. The state is solved again beside it, and set to what the forward
solve found at every observation. Knows no method's steps: it needs solves, and their dense output.
"""

from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from odeum import methods
from odeum.eager.control import Tolerance
from odeum.eager.field import PerRow, RowField
from odeum.eager.outputs import Segments
from odeum.eager.problem import Outcome, Problem
from odeum.eager.records import Failure
from odeum.errors import InputError, SolveError
from odeum.gradient.inputs import Isolated, Weights, isolate
from odeum.gradient.observations import Observations, observations_of
from odeum.methods import Method
from odeum.solution import Stats
from odeum.tree import structure_of
from odeum.types import Tensor

NUMBERS_AT_ONCE = 2**16
"""Numbers in the states that one evaluation of a parameter integral takes together."""


@dataclass(frozen=True)
class Adjoint:
    """``gradient="adjoint"`` with options of its own for the backward solve.

    The gradient is that of the exact solution, to the tolerance of the backward solve; "discrete"
    gives the exact gradient of the steps taken. Memory does not grow with the number of steps. The
    adjoint of each row is scaled to its size at each observation, so that ``atol`` is relative to
    it. Integrals over time that give the gradients of parameters take no part in the choice of
    steps; they are summed by Gauss-Legendre quadrature over the steps taken. Dense output carries
    no gradient.

    Attributes:
        method: that of the backward solve; the forward solve's where None.
        rtol: its relative tolerance; the forward solve's where None.
        atol: its absolute tolerance; the forward solve's where None.

    Raises:
        InputError: for a method that does not exist, or is symplectic: those take no adjoint.

    Source:
        Pontryagin et al. (1962); Chen et al., Neural Ordinary Differential Equations (2018).

    Example:
        >>> import odeum
        >>> y0 = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
        >>> gradient = odeum.gradient.Adjoint(rtol=1e-8, atol=1e-8)
        >>> sol = odeum.solve(lambda t, y: -y, y0, torch.tensor([0.0, 1.0]), gradient=gradient)
        >>> sol.ys[-1].sum().backward()
        >>> y0.grad
        tensor([[0.3679]], dtype=torch.float64)
    """

    method: str | Method | None = None
    rtol: float | None = None
    atol: float | None = None

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"Adjoint({name}={value}): give a positive number")
        if self.method is not None:
            _usable(methods.get(self.method))

    def __call__(self, problem: Problem) -> Outcome:
        """Solves a problem so that backpropagation solves its adjoint."""
        if not torch.is_grad_enabled():
            return problem.solve()
        cut = isolate(problem)
        if not cut.wants_gradient:
            with torch.no_grad():
                return cut.problem.solve(cut.k0)
        run = _Run(cut, self._backward_problem(cut.problem))
        ys, marked = _Adjoint.apply(run, *cut.inputs)
        # Not kept: what the backward pass needs of it is saved by autograd.
        outcome, run.outcome = run.outcome, None
        assert outcome is not None
        anchor = next(x for x in cut.inputs if x is not None and x.requires_grad)
        segments = [
            replace(part, y=_WithoutGradient.apply(part.y, anchor)) for part in outcome.segments
        ]
        return replace(outcome, ys=ys, marked=replace(outcome.marked, y=marked), segments=segments)

    def _backward_problem(self, problem: Problem) -> Problem:
        """The forward problem with the method and the tolerance of the backward solve."""
        given = problem.method if self.method is None else methods.get(self.method)
        rtol, atol = (
            torch.cat([x, x]) if isinstance(x, torch.Tensor) else x
            for x in (
                problem.tolerance.rtol if self.rtol is None else self.rtol,
                problem.tolerance.atol if self.atol is None else self.atol,
            )
        )
        return replace(problem, method=_usable(given), tolerance=Tolerance(rtol, atol))


def solve(problem: Problem) -> Outcome:
    """Solves a problem so that backpropagation solves its adjoint as the problem was solved."""
    return Adjoint()(problem)


def _usable(method: Method) -> Method:
    """The method as it solves ``(y, a)``, of which the user's Jacobian is not that."""
    if isinstance(method, methods.Symplectic):
        raise InputError(
            "the adjoint cannot be solved by a symplectic method: use gradient='discrete', or "
            "gradient=odeum.gradient.Adjoint(method='dopri8')"
        )
    if isinstance(method, methods.ExplicitRungeKutta):
        return method
    if isinstance(method, methods.Auto):
        return replace(method, stiff=replace(method.stiff, jacobian=None))
    return replace(method, jacobian=None)


def _order(method: Method) -> int:
    if isinstance(method, methods.SciPy):
        return methods.SCIPY[method.solver].order
    if isinstance(method, methods.Adams):
        return method.order
    if isinstance(method, methods.Auto):
        return max(_order(method.nonstiff), _order(method.stiff))
    return method.tableau.order


def _has_jacobians(method: Method) -> bool:
    if isinstance(method, methods.SciPy | methods.Adams):
        return method.implicit
    return not isinstance(method, methods.ExplicitRungeKutta)


class _Run:
    """What the forward pass of a solve leaves for the backward pass."""

    def __init__(self, cut: Isolated, backward: Problem) -> None:
        self.cut = cut
        self.backward = backward
        self.weights = Weights(cut.problem.field.field)
        self.outcome: Outcome | None = None


class _Adjoint(torch.autograd.Function):
    """``(y0, ts, start, args, captured) -> (ys, marked states)``."""

    @staticmethod
    def forward(ctx: Any, run: _Run, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        run.outcome = outcome = run.cut.problem.solve(run.cut.k0)
        ctx.run = run
        ctx.marked = replace(outcome.marked, y=outcome.marked.y[:0])
        ctx.save_for_backward(*inputs, outcome.ys, outcome.marked.y)
        ctx.set_materialize_grads(False)
        return outcome.ys, outcome.marked.y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_ys: Tensor | None, g_marked: Tensor | None) -> tuple[Any, ...]:
        run: _Run = ctx.run
        *_, ys, y_marked = ctx.saved_tensors
        problem = run.backward
        problem = replace(problem, field=problem.field.with_field(run.weights.restored()))
        solver = _BackwardSolve(problem, run.cut.leaves)
        marked = replace(ctx.marked, y=y_marked)
        g_y0 = solver.run(observations_of(problem, ys, marked, g_ys, g_marked))
        if g_ys is not None and problem.start is None:
            g_y0 = g_y0 + g_ys[0]
        g_ts, g_start = solver.of_times() if any(ctx.needs_input_grad[2:4]) else (None, None)
        if problem.on_backward is not None:
            problem.on_backward(solver.stats())
        return (None, g_y0, g_ts, g_start, *solver.g_leaves)


class _WithoutGradient(torch.autograd.Function):
    """Lets a tensor pass, and refuses to be differentiated rather than give a wrong zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        raise InputError(
            "the adjoint gives no gradient to dense output: put the times in ts, or use "
            "gradient='discrete' with a method of odeum's own"
        )


class _BackwardSolve:
    """One backward solve.

    Args:
        problem: what was solved, with the method and the tolerance of the backward solve.
        leaves: tensors that want gradients and that the field uses.

    Attributes:
        g_leaves: gradients of ``leaves``, None where nothing depends on one.
    """

    def __init__(self, problem: Problem, leaves: list[Tensor]) -> None:
        self._problem = problem
        self._leaves = leaves
        self.g_leaves: list[Tensor | None] = [None] * len(leaves)
        self._a = torch.zeros_like(problem.y0)
        none = torch.zeros(len(self._a), dtype=torch.int64, device=self._a.device)
        self._n_evaluations = none
        self._work: list[Stats] = []
        nodes, weights = np.polynomial.legendre.leggauss(_order(problem.method) // 2 + 1)
        self._nodes = problem.ts.new_tensor((nodes + 1) / 2)
        self._weights = problem.ts.new_tensor(weights / 2)
        self._observations: Observations | None = None
        self._rows: Tensor | None = None
        self._field = problem.field
        # Methods with Jacobians differentiate this derivative once more, by torch.func.
        self._functional = _has_jacobians(problem.method)

    def run(self, observations: Observations) -> Tensor:
        """Goes back to the start; the gradient of the initial states but for their own output."""
        self._observations = seen = observations
        n_ranks = int(seen.rank.max()) + 1 if len(seen.rank) else 0
        for rank in range(n_ranks):
            at = (seen.rank == rank).nonzero().squeeze(-1)
            rows = seen.rows[at]
            self._a[rows] += seen.g[at]
            a = self._a[rows]
            lost = ~a.isfinite().all(-1)
            if bool(lost.any()):
                # A loss that is NaN in a row says nothing of what all rows share.
                self.g_leaves = [torch.full_like(leaf, torch.nan) for leaf in self._leaves]
            goes = ((seen.t[at] != seen.before[at]) & (a != 0).any(-1) & ~lost).nonzero()
            at, a = at[goes.squeeze(-1)], a[goes.squeeze(-1)]
            if len(at):
                ts = torch.stack([seen.t[at], seen.before[at]])
                self._a[seen.rows[at]] = self._go_back(seen.rows[at], ts, seen.y[at], a)
        return self._a

    def stats(self) -> Stats:
        """The work done, per row."""
        none = torch.zeros_like(self._n_evaluations)
        total = Stats(none, none, none)
        if _has_jacobians(self._problem.method):
            total = replace(total, n_jacobians=none, n_factorisations=none)
        total = reduce(Stats.plus, self._work, total)
        return replace(total, n_evaluations=total.n_evaluations + self._n_evaluations)

    def of_times(self) -> tuple[Tensor, Tensor | None]:
        """Gradients of the output times and of the times where rows start, where those differ.

        An output moves with its time by ``f``; the solve, by ``-f`` with where it starts.
        """
        problem, times, seen = self._problem, self._problem.times(), self._observations
        assert seen is not None
        g_ts = torch.zeros_like(problem.ts)
        at = ((seen.index >= 0) & (seen.g != 0).any(-1)).nonzero().squeeze(-1)
        rows, index = seen.rows[at], seen.index[at]
        of_outputs = self._along_field(rows, seen.t[at], seen.y[at], seen.g[at])
        g_ts.index_put_((index, rows) if times.per_row else (index,), of_outputs, accumulate=True)
        rows = (self._a != 0).any(-1).nonzero().squeeze(-1)
        start = times.start.squeeze(-1)
        of_start = -self._along_field(rows, start[rows], problem.y0[rows], self._a[rows])
        if problem.start is None:
            first = torch.zeros_like(rows)
            g_ts.index_put_((first, rows) if times.per_row else (first,), of_start, accumulate=True)
            return g_ts, None
        return g_ts, torch.zeros_like(start).index_put_((rows,), of_start).unsqueeze(-1)

    def _along_field(self, rows: Tensor, t: Tensor, y: Tensor, g: Tensor) -> Tensor:
        """``g . f(t, y)``, [n], in the dtype of the times."""
        with torch.no_grad():
            fs = [
                self._problem.field.select(rows[part])(t[part].unsqueeze(-1).to(y.dtype), y[part])
                for part in self._parts(len(rows))
            ]
        self._count(rows)
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
        state = torch.cat([y, a / size], -1)
        problem = Problem(
            RowField(self._derivative, structure_of(state), PerRow(rows), joint=False),
            state,
            ts,
            self._problem.method,
            self._problem.tolerance,
            self._problem.steps,
            dense=bool(self._leaves),
            on_failure=lambda failure: self._fail(int(rows[failure.row]), failure),
        )
        with torch.no_grad():
            outcome = problem.solve()
        self._work.append(outcome.stats.scattered(rows, len(self._a)))
        for segments in outcome.segments:
            self._integrate(segments, rows, size)
        return outcome.ys[-1, :, y.shape[1] :] * size

    def _derivative(self, t: Tensor, y: Tensor, *args: Tensor) -> Tensor:
        """``(f, -a df/dy)`` of ``(y, a)``, [rows, 2 dim], in the rows of the batch in ``args``."""
        (rows,) = args
        if rows is not self._rows:
            self._rows, self._field = rows, self._problem.field.select(rows)
        field = self._field
        y, a = y.split(y.shape[1] // 2, -1)
        if self._functional:
            try:
                f, pull = torch.func.vjp(lambda y: field(t, y), y)[:2]
                return torch.cat([f, -pull(a)[0]], -1)
            except RuntimeError:
                # Fields that differentiate inside by torch.autograd do not go with torch.func.
                self._functional = False
        recorded = torch.is_grad_enabled() and y.requires_grad
        with torch.enable_grad():
            if not recorded:
                y = y.detach().requires_grad_()
            f = field(t, y)
            pulled = torch.zeros_like(y)
            if f.requires_grad:
                (pulled,) = torch.autograd.grad(
                    f, y, a, create_graph=recorded, materialize_grads=True
                )
        return torch.cat([f if recorded else f.detach(), -pulled], -1)

    def _integrate(self, steps: Segments, rows: Tensor, size: Tensor) -> None:
        """Adds ``int a df/dtheta dt`` over the steps to the gradients of the leaves."""
        n_nodes = len(self._nodes)
        step = torch.arange(len(steps.rows), device=rows.device).repeat_interleave(n_nodes)
        # Steps go back in time: the integral from their ends to their starts is wanted.
        length = (steps.t - steps.t1).squeeze(-1)[step]
        node, weight = (x.repeat(len(steps.rows)) for x in (self._nodes, self._weights))
        t = steps.t.squeeze(-1)[step] - length * node
        position = steps.rows[step]
        factor = (length * weight).unsqueeze(-1).to(size.dtype) * size[position]
        for part in self._parts(len(step)):
            y, a = steps.evaluate(step[part], t[part]).split(self._a.shape[1], -1)
            field = self._problem.field.select(rows[position[part]])
            with torch.enable_grad():
                f = field(t[part].unsqueeze(-1).to(y.dtype), y)
            if f.requires_grad:
                self._add(f, a * factor[part])
        self._count(rows[position])

    def _add(self, f: Tensor, g: Tensor) -> None:
        # A graph the field closes over belongs to the user: it is not ours to free.
        gradients = torch.autograd.grad(f, self._leaves, g, retain_graph=True, allow_unused=True)
        for i, gradient in enumerate(gradients):
            if gradient is not None:
                total = self.g_leaves[i]
                self.g_leaves[i] = gradient.clone() if total is None else total.add_(gradient)

    def _parts(self, n: int) -> list[slice]:
        """``n`` evaluations in parts that are made together."""
        n_rows, dim = self._a.shape
        at_once = 1 if self._problem.field.scalar_time else max(n_rows, NUMBERS_AT_ONCE // dim)
        return [slice(i, i + at_once) for i in range(0, n, at_once)]

    def _count(self, rows: Tensor) -> None:
        """Counts an evaluation of each of the rows, of which some may come several times."""
        self._n_evaluations.index_add_(0, rows, torch.ones_like(rows))

    def _fail(self, row: int, failure: Failure) -> None:
        name = failure.status.name
        raise SolveError(
            f"the backward solve of row {row} stopped at t = {failure.t:.6g} ({name}): the problem "
            "is harder backwards than forwards, as where its solutions approach one another. Use "
            'gradient="discrete", more output times (the state is set right at each), or another '
            "method or tolerance with gradient=odeum.gradient.Adjoint(method=..., rtol=...)"
        )
