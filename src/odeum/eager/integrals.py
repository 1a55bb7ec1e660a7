"""Integrals along a solution: numbers that ride on each row of a state, and act back on nothing.

Owns what integrands are called with and the check of what comes back. Knows no method.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch.utils import _pytree as pytree

from odeum.errors import InputError
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
