"""The methods by name: what ``method=`` accepts, and what each one is.

A method is a record of coefficients and the constants that control its steps; no code of its own.
"""

from dataclasses import dataclass, replace

from odeum.control import Controller, I
from odeum.errors import InputError, unknown_name
from odeum.tableaus import EXPLICIT, RKTableau


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


def names() -> list[str]:
    """Every name that ``method=`` accepts.

    Example:
        >>> "tsit5" in names()
        True
    """
    return list(EXPLICIT)


def get(
    method: str | ExplicitRungeKutta, *, controller: Controller | None = None
) -> ExplicitRungeKutta:
    """The method of that name.

    Args:
        method: a name from :func:`names`, or a method object.
        controller: constants of its step-size control, as ``odeum.control.PI``.

    Raises:
        InputError: for an unknown name.

    Example:
        >>> get("rk4").tableau.order
        4
    """
    if isinstance(method, str):
        if method not in EXPLICIT:
            raise unknown_name("method", method, names())
        method = ExplicitRungeKutta(EXPLICIT[method])
    if not isinstance(method, ExplicitRungeKutta):
        raise InputError(
            f"method is a {type(method).__name__}: give a name from odeum.methods.names() "
            "or an object from odeum.methods.get(name, ...)"
        )
    return method if controller is None else replace(method, controller=controller)


def describe(name: str) -> Description:
    """What the method of that name is.

    Example:
        >>> d = describe("dopri5")
        >>> d.order, d.adaptive, d.dense_order
        (5, True, 4)
    """
    tableau = get(name).tableau
    return Description(
        name=tableau.name,
        order=tableau.order,
        adaptive=tableau.adaptive,
        stiff=False,
        dense_order=tableau.interpolant.order,
        n_stages=tableau.n_stages,
        source=tableau.source,
    )
