"""The continuous adjoint: the gradient as the solution of an equation solved backwards in time.

The state is solved again beside ``a = dL/dy``, and set to what the forward solve found at every
observation: ``(y, a)' = (f, -a df/dy)``. Knows no method's steps and keeps none.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch

from odeum import methods
from odeum.eager.control import Tolerance
from odeum.eager.field import RowField
from odeum.eager.problem import Outcome, Problem
from odeum.errors import InputError
from odeum.gradient import continuous
from odeum.gradient.backwards import has_jacobians
from odeum.methods import Method
from odeum.types import Tensor


@dataclass(frozen=True)
class Adjoint:
    """``gradient="adjoint"`` with options of its own for the backward solve.

    The gradient is that of the exact solution, to the tolerance of the backward solve; "discrete"
    gives the exact gradient of the steps taken. Memory does not grow with the number of steps. The
    adjoint of each row is scaled to its size at each observation, so that ``atol`` is relative to
    it. Integrals over time that give the gradients of parameters take no part in the choice of
    steps; they are summed by Gauss-Legendre quadrature over the steps taken. Dense output carries
    no gradient. Where solutions approach one another, as in stiff problems, the state cannot be
    solved backwards: use "interpolated" or "discrete" there.

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
        continuous.check_tolerances(self)
        if self.method is not None:
            _refuse_symplectic(methods.get(self.method))

    def __call__(self, problem: Problem) -> Outcome:
        """Solves a problem so that backpropagation solves its adjoint."""
        return continuous.solve(problem, self._plan)

    def _plan(self, problem: Problem) -> continuous.Plan:
        method = problem.method if self.method is None else methods.get(self.method)
        _refuse_symplectic(method)
        # The adjoint is held to the tolerance of the state.
        state = problem.field.state
        rtol, atol = (
            torch.cat([state(x), x]) if isinstance(x, torch.Tensor) else x
            for x in (
                problem.tolerance.rtol if self.rtol is None else self.rtol,
                problem.tolerance.atol if self.atol is None else self.atol,
            )
        )
        backward = replace(problem, method=method, tolerance=Tolerance(rtol, atol))
        return continuous.Plan("adjoint", backward, _equation)


def solve(problem: Problem) -> Outcome:
    """Solves a problem so that backpropagation solves its adjoint as the problem was solved."""
    return Adjoint()(problem)


def _refuse_symplectic(method: Method) -> None:
    if isinstance(method, methods.Symplectic):
        raise InputError(
            "the adjoint cannot be solved by a symplectic method: use gradient='discrete', or "
            "gradient=odeum.gradient.Adjoint(method='dopri8')"
        )


def _equation(problem: Problem, kept: Any) -> "_WithState":
    return _WithState(problem)


class _WithState:
    """``(y, a)' = (f, -a df/dy)``; see :class:`odeum.gradient.backwards.Equation`.

    Integrals are not solved again: nothing depends on them, and their adjoint is constant.
    """

    jacobian = None
    advice = (
        "the problem is harder backwards than forwards, as where its solutions approach one "
        'another. Use gradient="interpolated" or "discrete", more output times (the state is set '
        "right at each), or another method or tolerance with "
        "gradient=odeum.gradient.Adjoint(method=..., rtol=...)"
    )

    def __init__(self, problem: Problem) -> None:
        self._field = problem.field
        self._pull = Pull(problem.field, functional=has_jacobians(problem.method))

    def start(self, y: Tensor, a: Tensor) -> Tensor:
        return torch.cat([self._field.state(y), a], -1)

    def split(self, rows: Tensor, t: Tensor, solved: Tensor) -> tuple[Tensor, Tensor]:
        dim = self._field.dim
        y, a = solved[:, :dim], solved[:, dim:]
        return torch.nn.functional.pad(y, (0, a.shape[1] - dim)), a

    def derivative(self, t: Tensor, y: Tensor, *args: Tensor) -> Tensor:
        (rows,) = args
        f, pulled = self._pull(rows, t, *self.split(rows, t, y))
        return torch.cat([self._field.state(f), -pulled], -1)


class Pull:
    """A field's value and what its Jacobian makes of a covector from the left.

    Args:
        field: the field on the whole batch.
        functional: whether ``torch.func`` is to be tried: methods with Jacobians differentiate
            once more by it.
    """

    def __init__(self, field: RowField, *, functional: bool) -> None:
        self._whole = field
        self._rows: Tensor | None = None
        self._field = field
        self._functional = functional

    def field(self, rows: Tensor) -> RowField:
        """The field on some rows of the batch."""
        if rows is not self._rows:
            self._rows, self._field = rows, self._whole.select(rows)
        return self._field

    def __call__(self, rows: Tensor, t: Tensor, y: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """``f`` and ``a df/dy``, [n, dim] each, at times [n, 1] and states [n, dim]."""
        field = self.field(rows)
        if self._functional:
            try:
                f, pull = torch.func.vjp(lambda y: field(t, y), y)[:2]
                return f, pull(a)[0]
            except RuntimeError:
                # Fields that differentiate inside by torch.autograd do not go with torch.func.
                self._functional = False
        recorded = torch.is_grad_enabled() and any(x.requires_grad for x in (t, y, a))
        with torch.enable_grad():
            if not (recorded and y.requires_grad):
                y = y.detach().requires_grad_()
            f = field(t, y)
            if not f.requires_grad:
                return f, torch.zeros_like(y)
            (pulled,) = torch.autograd.grad(f, y, a, create_graph=recorded, materialize_grads=True)
        return f if recorded else f.detach(), pulled
