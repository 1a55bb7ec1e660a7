"""States inside a step: ``y(t + theta h) = y + h sum_j b_j(theta) k_j`` for polynomials ``b_j``.

Knows neither how the derivatives ``k_j`` came about nor which times are asked for.
"""

from collections.abc import Sequence
from fractions import Fraction

import torch

from odeum.types import Tensor


class Interpolation:
    """The continuous extension of a method, in the dtype and on the device of a state.

    Args:
        polynomials: per derivative, the coefficients of ``theta, theta^2, ...`` in ``b_j``.
        end_weights: per derivative, its weight in the step's end ``y1``.
        like: a tensor of the state's dtype on its device.

    Attributes:
        polynomials: [derivatives, powers], in float64 whatever the state is: the terms of a
            high-order interpolant cancel.
    """

    def __init__(
        self,
        polynomials: Sequence[Sequence[float | Fraction]],
        end_weights: Sequence[float | Fraction],
        like: Tensor,
    ) -> None:
        exact = torch.empty(0, dtype=torch.float64, device=like.device)
        self.polynomials = exact.new_tensor([[float(p) for p in row] for row in polynomials])
        self._end_weights = like.new_tensor([float(w) for w in end_weights])

    def weights(self, theta: Tensor) -> Tensor:
        """``b_j(theta)``, [derivatives, k], at fractions ``theta`` [k] of the step.

        At exactly 1 they are the method's own weights, so that the end of a step is ``y1``.
        """
        theta = theta.double()
        weights = (_horner(self.polynomials, theta) * theta).to(self._end_weights.dtype)
        weights[:, (theta == 1).nonzero().squeeze(-1)] = self._end_weights[:, None]
        return weights

    def slopes(self, theta: Tensor) -> Tensor:
        """``db_j/dtheta``, [derivatives, k]; zero at exactly 1, where the step's end is fixed."""
        return self._rates(theta).masked_fill(theta == 1, 0.0)

    def _rates(self, theta: Tensor) -> Tensor:
        powers = torch.arange(1, self.polynomials.shape[1] + 1, device=theta.device)
        rates = _horner(self.polynomials * powers, theta.double())
        return rates.to(self._end_weights.dtype)

    def derivative(self, theta: Tensor, ks: Sequence[Tensor]) -> Tensor:
        """``dy/dt`` at fractions of steps, or beyond them, [k, dim].

        Args:
            theta: the fractions, [k].
            ks: the derivatives of each step, [k, dim] each.
        """
        value = torch.zeros_like(ks[0])
        for rate, k in zip(self._rates(theta).unsqueeze(-1), ks, strict=True):
            value = torch.addcmul(value, rate, k)
        return value

    def __call__(self, theta: Tensor, h: Tensor, y: Tensor, ks: Tensor) -> Tensor:
        """States inside steps.

        Args:
            theta: fractions of the steps, [k].
            h: their sizes, [k, 1].
            y: states at their starts, [k, dim].
            ks: the derivatives of each step, [derivatives, k, dim].

        Returns:
            [k, dim].
        """
        weights = self.weights(theta).unsqueeze(-1) * h
        for weight, k in zip(weights, ks, strict=True):
            y = torch.addcmul(y, weight, k)
        return y


def _horner(polynomials: Tensor, x: Tensor) -> Tensor:
    """``sum_p polynomials[:, p] x^p``, [polynomials, k].

    A matrix product would be faster, but rounds a column differently in other company.
    """
    value = polynomials[:, -1:].expand(-1, len(x))
    for power in range(polynomials.shape[1] - 2, -1, -1):
        value = torch.addcmul(polynomials[:, power : power + 1], value, x)
    return value
