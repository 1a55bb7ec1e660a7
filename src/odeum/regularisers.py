"""Integrands that make a field easy to solve when their integrals are added to the loss.

Each is a function ``g(field, t, y, f)`` of a state and the field there, one number per row, for
``odeum.solve(..., integrals={"name": g})``. Knows nothing of how a solve integrates it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from odeum.eager.jacobian import load_forward_mode
from odeum.errors import InputError
from odeum.types import PyTree, Tensor

Evaluate = Callable[[Tensor, PyTree], PyTree]
"""The field of ``(t, y)``."""


def kinetic_energy(field: Evaluate, t: Tensor, y: PyTree, f: PyTree) -> Tensor:
    """``|f|^2``, summed over a row's numbers: solutions that go straight are cheap to solve.

    It takes no evaluation of the field beyond those of the solve.

    Args:
        field: the field; not evaluated.
        t: times.
        y: the state.
        f: the field there, [batch, *shape], or a pytree.

    Returns:
        [batch], in units of ``y`` squared over time squared; a single number for a [dim] state.

    Source:
        Finlay et al., How to train your neural ODE (2020), eq. 6; divide by the number of numbers
        in a row for their normalisation.

    Example:
        >>> import odeum
        >>> integrals = {"kinetic": kinetic_energy}
        >>> y0, ts = torch.ones(1, 2), torch.tensor([0.0, 1.0])
        >>> sol = odeum.solve(lambda t, y: 3 + 0 * y, y0, ts, integrals=integrals)
        >>> sol.integrals["kinetic"][-1].round(decimals=3)
        tensor([18.])
    """
    return _squares(f)


@dataclass(frozen=True)
class JacobianFrobenius:
    """``|df/dy|_F^2``, the squared Frobenius norm: neighbouring solutions stay neighbours.

    Estimated without bias by ``|e^T df/dy|^2`` for a random ``e`` of each row (Hutchinson), the
    same throughout a solve, at the cost of one vector-Jacobian product; or exactly, at one for
    each of a row's numbers. These evaluations are not in the solution's statistics. Rows must not
    depend on one another.

    Attributes:
        exact: whether to sum over all components of the field.
        noise: ``e``, in the structure and shapes of ``y0``, with unit covariance; signs drawn at
            random for each solve where None.
        generator: where those come from; torch's own where None.

    Raises:
        InputError: where both ``exact`` and noise are asked for.

    Source:
        Finlay et al., How to train your neural ODE (2020), eq. 7 and 10.

    Example:
        >>> import odeum
        >>> integrals = {"jacobian": JacobianFrobenius(exact=True)}
        >>> y0, ts = torch.ones(1, 2), torch.tensor([0.0, 0.5])
        >>> sol = odeum.solve(lambda t, y: -3 * y, y0, ts, integrals=integrals)
        >>> sol.integrals["jacobian"][-1].round(decimals=3)
        tensor([9.])
    """

    exact: bool = False
    noise: PyTree = None
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if self.exact and (self.noise is not None or self.generator is not None):
            raise InputError("JacobianFrobenius(exact=True) draws no noise: give one or the other")

    def draw(self, y0: PyTree) -> PyTree:
        """``e`` for a solve from ``y0``; None where the norm is exact."""
        if self.exact:
            return None
        if self.noise is None:
            return pytree.tree_map(self._signs, y0)
        leaves, spec = pytree.tree_flatten(self.noise)
        wanted, wanted_spec = pytree.tree_flatten(y0)
        if spec != wanted_spec or any(
            not isinstance(x, torch.Tensor) or x.shape != y.shape
            for x, y in zip(leaves, wanted, strict=True)
        ):
            shapes = pytree.tree_map(lambda x: list(x.shape), y0)
            raise InputError(f"JacobianFrobenius(noise=...) must be shaped like y0, {shapes}")
        return pytree.tree_map(lambda x, y: x.detach().to(y), self.noise, y0)

    def _signs(self, like: Tensor) -> Tensor:
        device = like.device if self.generator is None else self.generator.device
        bits = torch.randint(2, like.shape, generator=self.generator, device=device)
        return (2 * bits - 1).to(like)

    def __call__(self, field: Evaluate, t: Tensor, y: PyTree, f: PyTree, noise: PyTree) -> Tensor:
        """[batch], dimensionless over time squared; a single number for a [dim] state."""
        pull = _pull_of(lambda y: field(t, y), y)
        directions = _basis(f) if self.exact else [noise]
        return torch.stack([_squares(pull(e)) for e in directions]).sum(0)


@dataclass(frozen=True)
class Derivative:
    """``|d^k y/dt^k|^2`` along the solution, summed over a row's numbers.

    The local error of a method of order k - 1 is governed by it: solutions on which it is small
    are cheap for such methods. The first is the kinetic energy. The k-th takes about ``2^k``
    evaluations of the field, in nested forward mode, which are not in the solution's statistics.

    Attributes:
        order: k, at least 1.

    Raises:
        InputError: for an order that is none.

    Source:
        Kelly et al., Learning differential equations that are easy to solve (2020), eq. 1.

    Example:
        >>> import odeum
        >>> y0, ts = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.0, 1.0])
        >>> sol = odeum.solve(lambda t, y: t**3, y0, ts, integrals={"R3": Derivative(3)})
        >>> sol.integrals["R3"][-1].round(decimals=3)  # the integral of (6 t)^2
        tensor([12.], dtype=torch.float64)
    """

    order: int

    def __post_init__(self) -> None:
        if not isinstance(self.order, int) or self.order < 1:
            raise InputError(f"Derivative({self.order!r}): give a whole number from 1 on, as 3")

    def __call__(self, field: Evaluate, t: Tensor, y: PyTree, f: PyTree) -> Tensor:
        """[batch], in units of ``y`` squared over time to the 2k; one number for a [dim] state."""
        return _squares(self.of(field, t, y, f))

    def of(self, field: Evaluate, t: Tensor, y: PyTree, f: PyTree) -> PyTree:
        """The derivative itself, in the structure of ``y``.

        With the first ``m`` known, the solution is ``y(t + s) = sum_j y^(j) s^j / j!`` up to
        terms of higher order, and the next one is the m-th derivative of ``f(t + s, y(t + s))``.
        """
        load_forward_mode()
        known = [y, f]
        zero = pytree.tree_leaves(y)[0].new_zeros(())
        while len(known) <= self.order:
            slope = _slope_along(field, t, list(known))
            for _ in range(len(known) - 1):
                slope = _rate_of(slope)
            known.append(slope(zero))
        return known[-1]


def _slope_along(field: Evaluate, t: Tensor, known: list[PyTree]) -> Callable[[Tensor], PyTree]:
    """The field along the Taylor polynomial of a state and its derivatives, from ``t`` on."""

    def slope(s: Tensor) -> PyTree:
        weights = [s**j / math.factorial(j) for j in range(1, len(known))]

        def moved(y: Tensor, *rates: Tensor) -> Tensor:
            return y + sum(w * rate for w, rate in zip(weights, rates, strict=True))

        return field(t + s, pytree.tree_map(moved, *known))

    return slope


def _squares(values: PyTree) -> Tensor:
    """The sum of squares over each row, [batch]; over everything where there is no batch."""
    leaves = pytree.tree_leaves(values)
    if any(leaf.ndim > 1 for leaf in leaves):
        leaves = [leaf.reshape(len(leaf), -1) for leaf in leaves]
    return torch.stack([(leaf**2).sum(-1) for leaf in leaves]).sum(0)


def _basis(like: PyTree) -> list[PyTree]:
    """One direction for each number of a row, the same in every row."""
    leaves, spec = pytree.tree_flatten(like)
    batched = any(leaf.ndim > 1 for leaf in leaves)
    directions = []
    for i, leaf in enumerate(leaves):
        shape = leaf.shape[1:] if batched else leaf.shape
        for unit in torch.eye(shape.numel(), dtype=leaf.dtype, device=leaf.device):
            zeros = [torch.zeros_like(x) for x in leaves]
            zeros[i] = unit.view(shape).expand_as(leaf)
            directions.append(pytree.tree_unflatten(zeros, spec))
    return directions


def _pull_of(function: Callable[[PyTree], PyTree], x: PyTree) -> Callable[[PyTree], PyTree]:
    """The map of cotangents of a function's value to those of ``x``, itself differentiable."""
    try:
        pull = torch.func.vjp(function, x)[1]
        return lambda g: pull(g)[0]
    except RuntimeError:
        # Fields that differentiate inside by torch.autograd do not go with torch.func.
        return _recorded_pull_of(function, x)


def _recorded_pull_of(
    function: Callable[[PyTree], PyTree], x: PyTree
) -> Callable[[PyTree], PyTree]:
    recorded = torch.is_grad_enabled()
    leaves, spec = pytree.tree_flatten(x)
    with torch.enable_grad():
        leaves = [_differentiable(leaf, recorded=recorded) for leaf in leaves]
        value = pytree.tree_leaves(function(pytree.tree_unflatten(leaves, spec)))

    def pull(g: PyTree) -> PyTree:
        pulled = _gradients(value, leaves, pytree.tree_leaves(g), recorded=recorded)
        return pytree.tree_unflatten(pulled, spec)

    return pull


def _differentiable(x: Tensor, *, recorded: bool) -> Tensor:
    if recorded:
        return x if x.requires_grad else x.detach().requires_grad_()
    return x.detach().requires_grad_()


def _gradients(
    values: list[Tensor], inputs: list[Tensor], g: list[Tensor], *, recorded: bool
) -> list[Tensor]:
    """Cotangents of inputs; zero where nothing depends on one."""
    used = [(value, part) for value, part in zip(values, g, strict=True) if value.requires_grad]
    if not used:
        return [torch.zeros_like(x) for x in inputs]
    outputs, cotangents = zip(*used, strict=True)
    return list(
        torch.autograd.grad(
            outputs,
            inputs,
            cotangents,
            retain_graph=True,
            create_graph=recorded,
            materialize_grads=True,
        )
    )


def _rate_of(function: Callable[[Tensor], PyTree]) -> Callable[[Tensor], PyTree]:
    """The derivative of a function of one number."""

    def rate(s: Tensor) -> Any:
        try:
            return torch.func.jvp(function, (s,), (torch.ones_like(s),))[1]
        except (RuntimeError, NotImplementedError):
            return _reverse_rate(function, s)

    return rate


def _reverse_rate(function: Callable[[Tensor], PyTree], s: Tensor) -> PyTree:
    """The same by reverse mode alone: the cotangent of ``s`` is linear in the value's."""
    with torch.enable_grad():
        s = s if s.requires_grad else s.detach().requires_grad_()
        values, spec = pytree.tree_flatten(function(s))
        dummies = [torch.zeros_like(value, requires_grad=True) for value in values]
        (pulled,) = _gradients(values, [s], dummies, recorded=True)
        rates = _gradients([pulled], dummies, [torch.ones_like(s)], recorded=True)
    return pytree.tree_unflatten(rates, spec)
