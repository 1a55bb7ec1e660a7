"""The methods by name: what ``method=`` accepts, and what each one is.

A method is a record of coefficients and the constants that control its steps; no code of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from odeum.control import Controller, I
from odeum.errors import InputError, unknown_name
from odeum.tableaus import (
    EXPLICIT,
    IMPLICIT,
    ROSENBROCK,
    SYMPLECTIC,
    RKTableau,
    RosenbrockTableau,
    SymplecticTableau,
)
from odeum.types import Tensor


@dataclass(frozen=True)
class ExplicitRungeKutta:
    """An explicit Runge-Kutta method with its step-size controller.

    Attributes:
        tableau: the coefficients.
        controller: constants of the step-size control; read where the step size adapts.

    Example:
        >>> import torch, odeum
        >>> method = odeum.methods.get("dopri5", controller=odeum.control.PI)
        >>> y0, ts = torch.ones(1, 1), torch.tensor([0.0, 1.0])
        >>> odeum.solve(lambda t, y: -y, y0, ts, method=method).ys[-1]
        tensor([[0.3679]])
    """

    tableau: RKTableau
    controller: Controller = I

    @property
    def adaptive(self) -> bool:
        """Whether its steps follow a tolerance."""
        return self.tableau.adaptive


@dataclass(frozen=True)
class ImplicitRungeKutta:
    """An implicit Runge-Kutta method: each row solves its own stage equations.

    Attributes:
        tableau: the coefficients.
        controller: constants of the step-size control; read where the step size adapts.
        jacobian: ``f(t, y)`` or ``f(t, y, args)`` as the field is called, returning
            [batch, dim, dim]; by forward-mode differentiation where None.

    Example:
        >>> import torch, odeum
        >>> y0, ts = torch.ones(1, 1), torch.tensor([0.0, 1.0])
        >>> odeum.solve(lambda t, y: -1e4 * (y - 1 / (1 + t)), y0, ts, method="kvaerno5").ys[-1]
        tensor([[0.5000]])
    """

    tableau: RKTableau
    controller: Controller = I
    jacobian: Callable[..., Tensor] | None = None

    @property
    def adaptive(self) -> bool:
        """Whether its steps follow a tolerance."""
        return self.tableau.adaptive


@dataclass(frozen=True)
class Rosenbrock:
    """A Rosenbrock method: implicit, but each stage is one linear system.

    Attributes:
        tableau: the coefficients.
        controller: constants of the step-size control; read where the step size adapts.
        jacobian: as for :class:`ImplicitRungeKutta`.
    """

    tableau: RosenbrockTableau
    controller: Controller = I
    jacobian: Callable[..., Tensor] | None = None

    @property
    def adaptive(self) -> bool:
        """Whether its steps follow a tolerance."""
        return True


@dataclass(frozen=True)
class SciPy:
    """One of SciPy's solvers: each row by itself, in float64, the field staying in torch.

    Its steps cannot be pulled back, so ``gradient="discrete"`` means ``"adjoint"`` here and
    ``gradient="autograd"`` is refused. It takes the least ``rtol`` of the components.

    Attributes:
        solver: "RK45", "RK23", "DOP853", "Radau", "BDF" or "LSODA".
        jacobian: as for :class:`ImplicitRungeKutta`; only the last three use one.

    Raises:
        InputError: for another solver, or a Jacobian that the solver does not use.

    Source:
        Virtanen et al., SciPy 1.0 (2020), Nature Methods 17; ``scipy.integrate``.

    Example:
        >>> import torch, odeum
        >>> y0, ts = torch.ones(1, 1), torch.tensor([0.0, 1.0])
        >>> odeum.solve(lambda t, y: -y, y0, ts, method="scipy:LSODA", rtol=1e-6).ys[-1]
        tensor([[0.3679]])
    """

    solver: str
    jacobian: Callable[..., Tensor] | None = None

    @property
    def adaptive(self) -> bool:
        """Whether its steps follow a tolerance."""
        return True

    @property
    def implicit(self) -> bool:
        """Whether it uses Jacobians."""
        return SCIPY[self.solver].stiff

    def __post_init__(self) -> None:
        if self.solver not in SCIPY:
            raise unknown_name("SciPy solver", self.solver, SCIPY)
        if self.jacobian is not None and not self.implicit:
            raise InputError(
                f"scipy:{self.solver} uses no Jacobian: leave jacobian= out, or choose "
                "scipy:Radau, scipy:BDF or scipy:LSODA"
            )


@dataclass(frozen=True)
class Symplectic:
    """A symplectic method for separable systems ``q' = f_q(t, p)``, ``p' = f_p(t, q)``.

    The state is a pair of tensors of one shape, q and then p; or one tensor, the first half of
    whose every row is q and the second half p. Steps are fixed: the energy of a Hamiltonian
    system stays near its start for exponentially long times.

    Attributes:
        tableau: the coefficients.

    Example:
        >>> import torch, odeum
        >>> q, p, ts = torch.ones(1, 1), torch.zeros(1, 1), torch.linspace(0, 20, 401)
        >>> pendulum = lambda t, state: (state[1], -torch.sin(state[0]))
        >>> q, p = odeum.solve(pendulum, (q, p), ts, method="yoshida4").ys
        >>> energy = p**2 / 2 - torch.cos(q)
        >>> bool((energy - energy[0]).abs().max() < 1e-5)
        True
    """

    tableau: SymplecticTableau

    @property
    def adaptive(self) -> bool:
        """Whether its steps follow a tolerance."""
        return False


OneStep = ExplicitRungeKutta | ImplicitRungeKutta | Rosenbrock
"""Methods that carry nothing but the state and its derivative from step to step."""


@dataclass(frozen=True)
class Adams:
    """A multistep method of Adams: fixed steps, which need not be equal.

    The derivatives at times already passed are interpolated by a polynomial and integrated: the
    explicit method (Adams-Bashforth) evaluates the field once a step, the implicit one
    (Adams-Moulton) solves for the derivative at the step's end. The first steps are those of the
    classical Runge-Kutta method.

    Attributes:
        order: order of convergence, 2 to 5.
        implicit: whether the polynomial goes through the derivative at the end of the step.
        jacobian: as for :class:`ImplicitRungeKutta`; only the implicit method uses one.

    Raises:
        InputError: for another order, or a Jacobian that is not used.

    Source:
        Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I (1993), III.1, III.5.

    Example:
        >>> import torch, odeum
        >>> y0, ts = torch.ones(1, 1), torch.linspace(0, 1, 21)
        >>> sol = odeum.solve(lambda t, y: -y, y0, ts, method=Adams(order=4, implicit=False))
        >>> sol.ys[-1], sol.stats.n_evaluations
        (tensor([[0.3679]]), tensor([30]))
    """

    order: int
    implicit: bool
    jacobian: Callable[..., Tensor] | None = None

    @property
    def adaptive(self) -> bool:
        """Whether its steps follow a tolerance."""
        return False

    def __post_init__(self) -> None:
        if self.order not in range(2, 6):
            raise InputError(
                f"Adams(order={self.order}): give an order from 2 to 5; that of order 1 is "
                '"euler", or "implicit_euler"'
            )
        if self.jacobian is not None and not self.implicit:
            raise InputError(
                "the explicit Adams method uses no Jacobian: leave jacobian= out, or choose "
                "implicit_adams"
            )


@dataclass(frozen=True)
class Auto:
    """Starts with one method and goes over to another where a row is stiff, and back.

    Attributes:
        nonstiff: an adaptive explicit method whose last two stages are at the end of the step, as
            those of ``tsit5`` and ``dopri5``.
        stiff: an adaptive method for stiff rows.

    Example:
        >>> import torch, odeum
        >>> y0, ts = torch.ones(1, 1), torch.tensor([0.0, 1.0])
        >>> odeum.solve(lambda t, y: -1e4 * (y - 1 / (1 + t)), y0, ts, method="auto").ys[-1]
        tensor([[0.5000]])
    """

    nonstiff: ExplicitRungeKutta
    stiff: ImplicitRungeKutta | Rosenbrock

    @property
    def adaptive(self) -> bool:
        """Whether its steps follow a tolerance."""
        return True

    def __post_init__(self) -> None:
        tableau = self.nonstiff.tableau
        if not (tableau.adaptive and tableau.first_same_as_last and tableau.c[-2] == 1):
            raise InputError(
                f"{tableau.name} cannot notice stiffness: give a nonstiff method whose last two "
                "stages are at the end of the step, as dopri5 or tsit5"
            )
        if not self.stiff.adaptive:
            raise InputError(
                f"{self.stiff.tableau.name} has fixed steps: give an adaptive stiff method, as "
                "rodas5p or kvaerno5"
            )


FixedStep = Symplectic | Adams
"""Methods that never estimate their error."""

Method = OneStep | FixedStep | Auto | SciPy

_METHODS: dict[str, Method] = {
    **{name: ExplicitRungeKutta(tableau) for name, tableau in EXPLICIT.items()},
    **{name: ImplicitRungeKutta(tableau) for name, tableau in IMPLICIT.items()},
    # As cautious as its usual control, which counts Newton's iterations in (Hairer & Wanner IV.8).
    "radau5": ImplicitRungeKutta(IMPLICIT["radau5"], Controller(safety=0.78)),
    **{name: Rosenbrock(tableau) for name, tableau in ROSENBROCK.items()},
    **{name: Symplectic(tableau) for name, tableau in SYMPLECTIC.items()},
    "explicit_adams": Adams(4, implicit=False),
    "implicit_adams": Adams(4, implicit=True),
    "auto": Auto(ExplicitRungeKutta(EXPLICIT["tsit5"]), Rosenbrock(ROSENBROCK["rodas5p"])),
}
"""Every method, by the name that ``method=`` gives it."""


@dataclass(frozen=True)
class Description:
    """What a method is.

    Attributes:
        name: how ``method=`` names it.
        order: order of convergence.
        adaptive: whether its steps follow a tolerance.
        stiff: whether it suits stiff problems.
        dense_order: order of its dense output.
        n_stages: evaluations of the field in one step, the first shared with the step before
            where the method is first-same-as-last.
        source: where it is published.
    """

    name: str
    order: int
    adaptive: bool
    stiff: bool
    dense_order: int
    n_stages: int
    source: str


def _scipy(
    solver: str, order: int, dense_order: int, n_stages: int, source: str, *, stiff: bool
) -> Description:
    return Description(f"scipy:{solver}", order, True, stiff, dense_order, n_stages, source)


SCIPY: dict[str, Description] = {
    description.name.removeprefix("scipy:"): description
    for description in (
        _scipy("RK45", 5, 4, 7, "Dormand & Prince (1980); Shampine (1986)", stiff=False),
        _scipy("RK23", 3, 3, 4, "Bogacki & Shampine (1989)", stiff=False),
        _scipy("DOP853", 8, 7, 12, "Hairer, Norsett & Wanner I (1993), II.5", stiff=False),
        _scipy("Radau", 5, 3, 3, "Hairer & Wanner II (1996), IV.8", stiff=True),
        _scipy("BDF", 5, 5, 1, "Shampine & Reichelt (1997), up to order 5", stiff=True),
        _scipy("LSODA", 12, 12, 1, "Petzold (1983), up to order 12, or 5 where stiff", stiff=True),
    )
}
"""What SciPy's solvers are; those of variable order by the highest."""

_METHODS |= {f"scipy:{solver}": SciPy(solver) for solver in SCIPY}


def names() -> list[str]:
    """Every name that ``method=`` accepts.

    Example:
        >>> "tsit5" in names()
        True
    """
    return list(_METHODS)


def get(method: str | Method, **options: Any) -> Any:
    """The method of that name, with other options than its own.

    Args:
        method: a name from :func:`names`, or a method object.
        **options: attributes of the method to change: ``controller``, the constants of its
            step-size control, as ``odeum.control.PI``; for stiff methods ``jacobian``.

    Raises:
        InputError: for an unknown name or option.

    Example:
        >>> get("rk4").tableau.order
        4
    """
    if isinstance(method, str):
        if method not in _METHODS:
            raise unknown_name("method", method, names())
        method = _METHODS[method]
    if not isinstance(method, Method):
        raise InputError(
            f"method is a {type(method).__name__}: give a name from odeum.methods.names() "
            "or an object from odeum.methods.get(name, ...)"
        )
    known = [field.name for field in fields(method)]
    for name in options:
        if name not in known:
            raise unknown_name(f"option of {type(method).__name__}", name, known)
    return replace(method, **options) if options else method


def describe(name: str) -> Description:
    """What the method of that name is.

    Example:
        >>> d = describe("dopri5")
        >>> d.order, d.adaptive, d.dense_order
        (5, True, 4)
    """
    method = get(name)
    if isinstance(method, SciPy):
        return SCIPY[method.solver]
    if isinstance(method, Adams):
        return Description(
            name=name,
            order=method.order,
            adaptive=False,
            stiff=False,
            dense_order=3,
            n_stages=2 if method.implicit else 1,
            source="Hairer, Norsett & Wanner I (1993), III.1",
        )
    if isinstance(method, Auto):
        described = describe(method.nonstiff.tableau.name)
        return replace(
            described,
            name=name,
            stiff=True,
            source=f"{described.name}, and {method.stiff.tableau.name} where a row is stiff",
        )
    tableau = method.tableau
    if isinstance(method, Symplectic):
        return Description(
            name=tableau.name,
            order=tableau.order,
            adaptive=False,
            stiff=False,
            dense_order=3,
            n_stages=len(tableau.kicks) + len(tableau.drifts),
            source=tableau.source,
        )
    return Description(
        name=tableau.name,
        order=tableau.order,
        adaptive=method.adaptive,
        stiff=isinstance(method, Rosenbrock | ImplicitRungeKutta),
        dense_order=tableau.interpolant.order,
        n_stages=tableau.n_stages,
        source=tableau.source,
    )
