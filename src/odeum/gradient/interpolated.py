"""The adjoint over the stored forward solution: ``a' = -a df/dy(t, y(t))``, linear in ``a``.

The state is that of the forward solve's dense output, never solved backwards: where that would be
unstable, as in stiff and strongly damped problems, the adjoint alone is as stable as the forward
solve. Owns the stored states; knows no method's steps.
"""

from dataclasses import dataclass, replace

import torch

from odeum import methods
from odeum.eager.control import Tolerance
from odeum.eager.jacobian import JacobianFunction, jacobian
from odeum.eager.outputs import Segments, StepIndex
from odeum.eager.problem import Outcome, Problem
from odeum.errors import InputError
from odeum.gradient import continuous
from odeum.gradient.adjoint import Pull
from odeum.gradient.backwards import has_jacobians, jacobian_of
from odeum.methods import Method
from odeum.types import Tensor

NUMBERS_AT_ONCE = 2**18
"""Numbers in the states of steps whose polynomials are made together."""

AFTER_SYMPLECTIC = "tsit5"
"""Solves the adjoint where the forward method is one for Hamiltonian systems only."""


@dataclass(frozen=True)
class Interpolated:
    """``gradient="interpolated"`` with options of its own for the backward solve.

    The gradient is that of the exact solution, to the tolerance of both solves and the accuracy of
    the dense output. The forward solve keeps its steps as polynomials: memory grows with them. The
    adjoint of each row is scaled to its size at each observation, so that ``atol`` is relative to
    it. Integrals over time that give the gradients of parameters are summed by Gauss-Legendre
    quadrature over the steps of the backward solve, inside which the adjoint is smooth: those of
    the forward solve know nothing of where it jumps. Methods for stiff problems are given the
    Jacobian of the linear equation, which is the field's, transposed. Dense output carries no
    gradient.

    Attributes:
        method: that of the backward solve; the forward solve's where None, and "tsit5" where that
            is symplectic.
        rtol: its relative tolerance; the forward solve's where None.
        atol: its absolute tolerance; the forward solve's where None.

    Raises:
        InputError: for a method that does not exist, or is symplectic: those take no adjoint.

    Source:
        Rackauckas et al., A Comparison of Automatic Differentiation and Continuous Sensitivity
        Analysis for Derivatives of Differential Equation Solutions (2018), interpolating adjoints.

    Example:
        >>> import odeum
        >>> rate = torch.tensor(50.0, dtype=torch.float64, requires_grad=True)
        >>> y0, ts = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.0, 2.0])
        >>> gradient = odeum.gradient.Interpolated(rtol=1e-8)
        >>> field = lambda t, y: rate * (torch.cos(t) - y)
        >>> sol = odeum.solve(field, y0, ts, method="rodas5p", rtol=1e-8, gradient=gradient)
        >>> sol.ys[-1].sum().backward()
        >>> rate.grad
        tensor(-0.0004, dtype=torch.float64)
    """

    method: str | Method | None = None
    rtol: float | None = None
    atol: float | None = None

    def __post_init__(self) -> None:
        continuous.check_tolerances(self)
        if self.method is not None and isinstance(methods.get(self.method), methods.Symplectic):
            raise InputError(
                "Interpolated(method=...) is a symplectic method, which solves Hamiltonian systems "
                "and not their adjoint: leave it out, or give another one, as dopri8"
            )

    def __call__(self, problem: Problem) -> Outcome:
        """Solves a problem so that backpropagation solves its adjoint over what was stored."""
        return continuous.solve(problem, self._plan)

    def _plan(self, problem: Problem) -> continuous.Plan:
        if self.method is not None:
            method = methods.get(self.method)
        elif isinstance(problem.method, methods.Symplectic):
            method = methods.get(AFTER_SYMPLECTIC)
        else:
            method = problem.method
        tolerance = Tolerance(
            problem.tolerance.rtol if self.rtol is None else self.rtol,
            problem.tolerance.atol if self.atol is None else self.atol,
        )
        given = jacobian_of(problem.method)

        def keep(segments: list[Segments]) -> Past:
            return Past(segments, problem.times().direction, problem.y0)

        def equation(problem: Problem, past: Past) -> _OverPast:
            return _OverPast(problem, past, jacobian_of(problem.method) or given)

        backward = replace(problem, method=method, tolerance=tolerance)
        return continuous.Plan("interpolated", backward, equation, keep)


def solve(problem: Problem) -> Outcome:
    """Solves a problem so that backpropagation solves its adjoint over what was stored."""
    return Interpolated()(problem)


class Past:
    """A forward solution as polynomials, one a step, of rows at times in any order.

    Args:
        segments: all accepted steps, of each row in the order of time within a method.
        direction: +1 or -1 per row, [batch, 1].
        like: states, [batch, dim].
    """

    def __init__(self, segments: list[Segments], direction: Tensor, like: Tensor) -> None:
        n_powers = max((part.dense.polynomials.shape[1] for part in segments), default=1)
        nothing = direction[:0].to(segments[0].t.dtype if segments else direction.dtype)
        self._t, self._h, t1 = (
            torch.cat([nothing, *(getattr(part, name) for part in segments)])
            for name in ("t", "h", "t1")
        )
        self._y = torch.cat([like[:0], *(part.y for part in segments)])
        # [powers, steps, dim]: y(t + theta h) = y + sum_p theta^p c_p
        self._c = like.new_zeros(n_powers, len(self._y), like.shape[1])
        first = 0
        for part in segments:
            _write_powers(part, self._c[:, first : first + len(part.rows)])
            first += len(part.rows)
        rows = torch.cat([direction.new_empty(0).long(), *(part.rows for part in segments)])
        self._index = StepIndex(rows, t1, direction)

    def __call__(self, rows: Tensor, t: Tensor) -> Tensor:
        """States of rows [n] at times [n, 1] inside their solves, [n, dim]."""
        step = self._index(rows, t).squeeze(-1)
        theta = ((t - self._t[step]) / self._h[step]).to(self._y.dtype)
        value = self._c[-1].index_select(0, step)
        for power in range(len(self._c) - 2, -1, -1):  # flipped, all of them would be copied
            value = torch.addcmul(self._c[power].index_select(0, step), theta, value)
        return torch.addcmul(self._y.index_select(0, step), theta, value)


def _write_powers(segments: Segments, c: Tensor) -> None:
    """Writes the coefficients of ``theta, theta^2, ...`` in steps into ``c``, [powers, steps, dim].

    Summed in the precision of the interpolant, as those of a high order cancel, and some steps at
    a time: in double precision all of them would take more memory than what is kept.
    """
    polynomials = segments.dense.polynomials
    n_powers, at_once = polynomials.shape[1], max(1, NUMBERS_AT_ONCE // c.shape[2])
    for i in range(0, c.shape[1], at_once):
        steps = slice(i, i + at_once)
        sums = torch.einsum("jp,jsd->psd", polynomials, segments.ks[:, steps].to(polynomials.dtype))
        c[:n_powers, steps] = sums * segments.h[steps]


class _OverPast:
    """``a' = -a df/dy`` at stored states; see :class:`odeum.gradient.backwards.Equation`."""

    advice = (
        "the adjoint over the stored solution is as hard as the forward problem or harder. Use "
        'gradient="discrete", or another method (rodas5p where the problem is stiff) or tolerance '
        "with gradient=odeum.gradient.Interpolated(method=..., rtol=...)"
    )

    def __init__(self, problem: Problem, past: Past, given: JacobianFunction | None) -> None:
        self._past = past
        self._given = given
        self._pull = Pull(problem.field, functional=has_jacobians(problem.method))

    def start(self, y: Tensor, a: Tensor) -> Tensor:
        return a

    def split(self, rows: Tensor, t: Tensor, solved: Tensor) -> tuple[Tensor, Tensor]:
        return self._past(rows, t), solved

    def derivative(self, t: Tensor, y: Tensor, *args: Tensor) -> Tensor:
        (rows,) = args
        return -self._pull(rows, t, self._past(rows, t), y)[1]

    def jacobian(self, t: Tensor, y: Tensor, *args: Tensor) -> Tensor:
        """``-(df/dy)^T``, [n, dim, dim]: the equation is linear."""
        (rows,) = args
        matrix = jacobian(self._pull.field(rows), t, self._past(rows, t), self._given)
        return -matrix.transpose(1, 2)
