"""Integrals along a solution: numbers that ride on each row of a state, and act back on nothing.

Owns what integrands are called with and the check of what comes back. Knows no method.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch.utils import _pytree as pytree

from odeum.errors import InputError
from odeum.methods import Method, SciPy, Symplectic
from odeum.types import PyTree, Tensor


class Integrand(Protocol):
    """What is integrated along a solution.

    One that has a method ``draw(y0)`` is handed what that returned for this solve, tensors
    [batch, ...], as its last argument: in each call the entries of the rows at hand.
    """

    def __call__(
        self,
        field: Callable[[Tensor, PyTree], PyTree],
        t: Tensor,
        y: PyTree,
        f: PyTree,
        *drawn: Any,
    ) -> Tensor:
        """One number per row, [batch]; a single one for a [dim] state.

        Args:
            field: the user's field, to be evaluated at will as ``field(t, y)``.
            t: times, in the shape that the field receives them.
            y: the state.
            f: the field there, already evaluated.
            drawn: what was drawn for this solve, where anything was.
        """
        ...


@dataclass(frozen=True)
class Integrals:
    """The integrands of one solve.

    Attributes:
        integrands: by the names that the user gave them.
        drawn: what each has drawn for this solve, () or a tuple of one pytree.
    """

    integrands: dict[str, Integrand]
    drawn: dict[str, tuple[PyTree, ...]]

    @staticmethod
    def of(integrands: dict[str, Integrand], y0: PyTree) -> "Integrals":
        """Integrands that have drawn what they need for a solve from ``y0``."""
        state = pytree.tree_map(torch.Tensor.detach, y0)
        drawn = {
            name: (integrand.draw(state),) if hasattr(integrand, "draw") else ()
            for name, integrand in integrands.items()
        }
        return Integrals(integrands, drawn)

    def __len__(self) -> int:
        """How many."""
        return len(self.integrands)

    def select(self, rows: Tensor) -> "Integrals":
        """The same on some of the user's rows."""
        return replace(self, drawn=pytree.tree_map_only(Tensor, lambda x: x[rows], self.drawn))

    def __call__(
        self, field: Callable[[Tensor, PyTree], PyTree], t: Tensor, y: PyTree, f: PyTree, n: int
    ) -> Tensor:
        """All integrands on ``n`` rows, [n, integrands]."""
        values = []
        for name, integrand in self.integrands.items():
            value = integrand(field, t, y, f, *self.drawn[name])
            if not isinstance(value, torch.Tensor) or value.numel() != n:
                given = (
                    list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
                )
                raise InputError(
                    f"the integrand {name!r} returned {given} for {n} "
                    f"{'row' if n == 1 else 'rows'}: return one number per row, "
                    "as (f**2).sum(-1)"
                )
            values.append(value.reshape(n))
        return torch.stack(values, -1)


def running_integrals(
    integrands: Mapping[str, Integrand] | None, y0: PyTree, method: Method
) -> Integrals | None:
    """The integrals of a solve, checked; None where there are none.

    Args:
        integrands: the user's, by name.
        y0: the user's initial state.
        method: what will integrate them.

    Raises:
        InputError: for integrands that are none, and methods that have no place for them.
    """
    if integrands is None:
        return None
    if not isinstance(integrands, Mapping):
        raise InputError(
            f"integrals is a {type(integrands).__name__}: give a dict, as "
            '{"kinetic": odeum.regularisers.kinetic_energy}'
        )
    for name, integrand in integrands.items():
        if not callable(integrand) or isinstance(integrand, type):
            raise InputError(
                f"integrals[{name!r}] is {integrand!r}: give a function g(field, t, y, f), as "
                "odeum.regularisers.kinetic_energy or odeum.regularisers.Derivative(3)"
            )
    if not integrands:
        return None
    if isinstance(method, Symplectic):
        raise InputError(
            "symplectic methods move q and p by turns and have no place for integrals: use a "
            "Runge-Kutta method, as dopri8"
        )
    if isinstance(method, SciPy):
        raise InputError(
            f"scipy:{method.solver} would choose its steps by the integrals too: use a method of "
            "odeum's own, as dopri8, or rodas5p where the problem is stiff"
        )
    return Integrals.of(dict(integrands), y0)
