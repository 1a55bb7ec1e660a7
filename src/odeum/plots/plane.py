"""A two-dimensional window into state space, and the field's values on a grid in it.

Owns how a picture calls a field: ``field(t, y)`` with t [n, 1], y [n, dim], once per grid, without
gradients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from odeum.errors import InputError
from odeum.plots.arrays import to_numpy

Field = Callable[..., Any]
Limits = tuple[float, float]


@dataclass(frozen=True)
class Plane:
    """The window: which two components it shows, its limits, and where the others rest.

    Attributes:
        field: called as ``field(t, y)`` with t [n, 1] and y [n, dim].
        xlim: limits of component ``dims[0]``, increasing.
        ylim: limits of component ``dims[1]``, increasing.
        dims: the two components shown.
        base: [dim], a whole state; its entries at ``dims`` do not matter.
        at_t: the time at which the field is frozen.
    """

    field: Field
    xlim: Limits
    ylim: Limits
    dims: tuple[int, int]
    base: torch.Tensor
    at_t: float

    def grid(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Coordinates x [n], y [n] and the field's two components there, each [n, n], y first."""
        x, y = np.linspace(*self.xlim, n), np.linspace(*self.ylim, n)
        rates = to_numpy(self.rate(self.points(n))).reshape(n, n, -1)
        return x, y, rates[..., self.dims[0]], rates[..., self.dims[1]]

    def points(self, n: int) -> torch.Tensor:
        """The states of an n by n grid over the window, [n * n, dim], x running fastest."""
        x, y = np.meshgrid(np.linspace(*self.xlim, n), np.linspace(*self.ylim, n))
        points = self.base.repeat(n * n, 1)
        points[:, self.dims[0]] = torch.from_numpy(x.ravel()).to(points)
        points[:, self.dims[1]] = torch.from_numpy(y.ravel()).to(points)
        return points

    def rate(self, states: torch.Tensor) -> torch.Tensor:
        """The field at ``states`` [n, dim] without gradients, [n, dim].

        Raises:
            InputError: the field returned another shape.
        """
        with torch.no_grad():
            # A detached view: fields that differentiate inside may switch gradients on for theirs.
            rates = self.field(self.time(states), states.detach())
        if not isinstance(rates, torch.Tensor) or rates.shape != states.shape:
            given = list(rates.shape) if isinstance(rates, torch.Tensor) else type(rates).__name__
            raise InputError(
                f"the field returned {given} for states shaped {list(states.shape)}: it must "
                "return a tensor of the same shape; a state of more than two components needs base"
            )
        return rates.detach()

    def time(self, states: torch.Tensor) -> torch.Tensor:
        """``at_t`` for each of ``states`` [n, dim], as [n, 1]."""
        return states.new_full((len(states), 1), self.at_t)


def make_plane(
    field: Field,
    xlim: Limits,
    ylim: Limits,
    *,
    dims: tuple[int, int] = (0, 1),
    base: Sequence[float] | torch.Tensor | None = None,
    at_t: float = 0.0,
) -> Plane:
    """Check the arguments every picture of a field shares and put them on the field's device.

    Args:
        field: called as ``field(t, y)`` with t [n, 1] and y [n, dim].
        xlim: limits of the first component shown.
        ylim: limits of the second component shown.
        dims: which two components to show.
        base: [dim] the state the window passes through; None for a field of two components.
        at_t: the time at which the field is frozen.

    Returns:
        The plane.

    Raises:
        InputError: limits that do not increase, components that do not exist.

    Example:
        >>> plane = make_plane(lambda t, y: -y, (-1, 1), (-2, 2))
        >>> plane.rate(plane.points(3)).shape
        torch.Size([9, 2])
    """
    for name, limits in (("xlim", xlim), ("ylim", ylim)):
        if len(limits) != 2 or not np.isfinite(limits).all() or not limits[0] < limits[1]:
            raise InputError(f"{name} is {limits!r}: give two finite numbers, the smaller first")
    like = torch.empty(0)
    if isinstance(field, torch.nn.Module):
        tensors = [*field.parameters(), *field.buffers()]
        like = next((tensor for tensor in tensors if tensor.is_floating_point()), like)
    if isinstance(base, torch.Tensor):
        whole = base.detach().reshape(-1).to(like if isinstance(field, torch.nn.Module) else base)
    else:
        whole = torch.as_tensor([0.0, 0.0] if base is None else base).to(like)
    dim = len(whole)
    if len(set(dims)) != 2 or not all(0 <= i < dim for i in dims):
        hint = " (base was left out, so the state is taken to have two)" if base is None else ""
        raise InputError(
            f"dims is {dims!r} for a state of {dim} components{hint}: give two different indices "
            f"below {dim}, and base where the state has more than two"
        )
    return Plane(field, (xlim[0], xlim[1]), (ylim[0], ylim[1]), (dims[0], dims[1]), whole, at_t)
