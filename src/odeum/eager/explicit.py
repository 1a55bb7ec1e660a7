"""One explicit Runge-Kutta step on every row, and the state inside a step.

Reads a tableau and nothing else of a method: step sizes are the loop's business. Every operation
here gives a row the same bits whatever rows stand beside it, and is differentiable by autograd.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from odeum.eager.field import RowField
from odeum.tableaus import RKTableau
from odeum.tableaus.record import Row
from odeum.types import Tensor


@lru_cache(maxsize=64)
def stepper(tableau: RKTableau, dtype: torch.dtype, device: torch.device) -> "Stepper":
    """The stepper of a tableau; made once, for small solves are over before it would be made."""
    return Stepper(tableau, dtype, device)


@dataclass(frozen=True)
class Weights:
    """Weights of a sum of derivatives.

    Attributes:
        used: the derivatives whose weight is not zero.
        values: their weights, [1, used].
    """

    used: tuple[int, ...]
    values: Tensor

    @property
    def single(self) -> float | None:
        """The weight, where there is one only."""
        return float(self.values) if len(self.used) == 1 else None


class Stepper:
    """A tableau in the dtype and on the device of a state.

    Args:
        tableau: the method.
        dtype: the state's.
        device: the state's.
    """

    def __init__(self, tableau: RKTableau, dtype: torch.dtype, device: torch.device) -> None:
        self.tableau = tableau
        self._like = torch.empty(0, dtype=dtype, device=device)
        self.fsal = tableau.first_same_as_last
        dense = tableau.interpolant
        self.stages = [self._weights(coefficients) for coefficients in tableau.a[1:]]
        self.b = self._weights(tableau.b)
        self.b_error = [self._weights(weights) for weights in tableau.b_error or ()]
        self.extra_stages = [self._weights(coefficients) for coefficients in dense.extra_a]
        self.nodes = self._column(tableau.c[1:])
        self.extra_nodes = self._column(dense.extra_c)
        self.single_weights = [weights.single for weights in self.stages]
        # In float64 whatever the state is: the terms of a high-order interpolant cancel.
        exact = torch.empty(0, dtype=torch.float64, device=device)
        self.polynomials = exact.new_tensor([[float(p) for p in row] for row in dense.weights])
        self.end_weights = self._like.new_tensor([float(w) for w in tableau.end_weights])

    def _weights(self, coefficients: Row) -> Weights:
        used = tuple(i for i, weight in enumerate(coefficients) if weight)
        values = self._like.new_tensor([[float(coefficients[i]) for i in used]])
        return Weights(used, values)

    def _column(self, nodes: Row) -> Tensor:
        return self._like.new_tensor([float(c) for c in nodes]).view(-1, 1, 1)

    def step(
        self,
        field: RowField,
        t: Tensor,
        h: Tensor,
        y: Tensor,
        k0: Tensor,
        *,
        with_end: bool = True,
    ) -> "Step":
        """Tries one step.

        Args:
            field: the field on these rows.
            t: times, [rows, 1].
            h: signed step sizes, [rows, 1].
            y: states, [rows, dim].
            k0: derivatives there, [rows, dim].
            with_end: whether to evaluate a last stage that is only the next step's first.
        """
        hy = h.to(y.dtype)
        ks = [k0]
        y_stage = y
        times = self._times(t, h, self.nodes)
        for weights, single, t_stage in zip(self.stages, self.single_weights, times, strict=True):
            if single is not None:
                y_stage = torch.addcmul(y, hy, ks[weights.used[0]], value=single)
            else:
                y_stage = torch.addcmul(y, hy, combine(ks, weights))
            if with_end or not self.fsal or len(ks) < len(self.stages):
                ks.append(field(t_stage, y_stage))
        if not self.fsal:
            y_stage = torch.addcmul(y, hy, combine(ks, self.b))
        return Step(t, h, y, y_stage, ks)

    def _times(self, t: Tensor, h: Tensor, nodes: Tensor) -> Sequence[Tensor]:
        dtype = self._like.dtype
        times = t + nodes.to(t.dtype) * h if t.dtype != dtype else t + nodes * h
        return times.to(dtype).unbind(0)

    def end_derivative(self, field: RowField, t1: Tensor, y1: Tensor) -> Tensor:
        """``f(t1, y1)``, where no stage is that."""
        return field(t1.to(y1.dtype), y1)

    def extra_derivatives(
        self, field: RowField, t: Tensor, h: Tensor, y: Tensor, ks: list[Tensor]
    ) -> list[Tensor]:
        """The extra stages that only the dense output needs, after ``ks``."""
        hy = h.to(y.dtype)
        n, ks = len(ks), list(ks)
        for weights, t_stage in zip(
            self.extra_stages, self._times(t, h, self.extra_nodes), strict=True
        ):
            ks.append(field(t_stage, torch.addcmul(y, hy, combine(ks, weights))))
        return ks[n:]

    def interpolation_weights(self, theta: Tensor) -> Tensor:
        """``b_j(theta)``, [derivatives, k], at fractions ``theta`` [k] of the step.

        At exactly 1 they are the method's own weights, so that the end of a step is ``y1``.
        """
        theta = theta.double()
        weights = (_horner(self.polynomials, theta) * theta).to(self._like.dtype)
        weights[:, (theta == 1).nonzero().squeeze(-1)] = self.end_weights[:, None]
        return weights

    def interpolation_slopes(self, theta: Tensor) -> Tensor:
        """``db_j/dtheta``, [derivatives, k]; zero at exactly 1, where the step's end is fixed."""
        powers = torch.arange(1, self.polynomials.shape[1] + 1, device=theta.device)
        slopes = _horner(self.polynomials * powers, theta.double())
        return slopes.masked_fill(theta == 1, 0.0).to(self._like.dtype)


def _horner(polynomials: Tensor, x: Tensor) -> Tensor:
    """``sum_p polynomials[:, p] x^p``, [polynomials, k].

    A matrix product would be faster, but rounds a column differently in other company.
    """
    value = polynomials[:, -1:].expand(-1, len(x))
    for power in range(polynomials.shape[1] - 2, -1, -1):
        value = torch.addcmul(polynomials[:, power : power + 1], value, x)
    return value


@dataclass(frozen=True)
class Step:
    """A tried step of every row: from ``(t, y)`` by ``h`` to ``y1`` with stages ``ks``."""

    t: Tensor
    h: Tensor
    y: Tensor
    y1: Tensor
    ks: list[Tensor]


def combine(ks: list[Tensor], weights: Weights) -> Tensor:
    """``sum_j w_j k_j`` as one matrix product."""
    stacked = torch.stack([ks[i] for i in weights.used])
    return torch.mm(weights.values, stacked.flatten(1)).view_as(ks[0])


def interpolate(stepper: Stepper, theta: Tensor, h: Tensor, y: Tensor, ks: Tensor) -> Tensor:
    """States inside steps.

    Args:
        stepper: the method.
        theta: fractions of the steps, [k].
        h: their sizes, [k, 1].
        y: states at their starts, [k, dim].
        ks: all derivatives the interpolant weighs, [derivatives, k, dim].

    Returns:
        [k, dim].
    """
    weights = stepper.interpolation_weights(theta).unsqueeze(-1) * h
    for weight, k in zip(weights, ks, strict=True):
        y = torch.addcmul(y, weight, k)
    return y
