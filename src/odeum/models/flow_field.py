"""A field made for flows: the trace of its Jacobian has a closed form that is cheap.

Knows no solver and no density.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from odeum.errors import InputError
from odeum.types import Tensor


class FlowField(nn.Module):
    """Two hidden layers that the time scales and shifts, and the exact trace for one product more.

    ``f(t, y) = C h2 + c`` with ``h2 = tanh(s2 (B h1 + b) + r2)`` and ``h1 = tanh(s1 (A y + a) +
    r1)``, where ``s`` and ``r`` are functions of ``t``. Its Jacobian is ``C D2 B D1 A`` with the
    diagonals ``D = diag(s (1 - h^2))``, and the trace of that is ``d2^T (B * (A C)^T) d1`` with an
    elementwise product of matrices that no point changes. Pull-backs would take a product with
    ``B`` for each component, and in training their derivatives.

    Args:
        dim: components of the state, at least 1.
        hidden: widths of the two hidden layers.

    Raises:
        InputError: for another number of layers, or a size below 1.

    Example:
        >>> field, y = FlowField(3, hidden=(16, 8)), torch.randn(3)
        >>> f, trace = field.with_trace(torch.tensor(0.2), y[None])
        >>> jacobian = torch.autograd.functional.jacobian(lambda y: field(torch.tensor(0.2), y), y)
        >>> bool((jacobian.trace() - trace).abs() < 1e-12)
        True
    """

    def __init__(self, dim: int, hidden: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        if len(hidden) != 2 or min(dim, *hidden) < 1:
            raise InputError(
                f"dim is {dim} and hidden {tuple(hidden)}: give at least one component and two "
                "widths, such as hidden=(64, 64)"
            )
        self.dim = dim
        self.first = _TimedLayer(dim, hidden[0])
        self.second = _TimedLayer(hidden[0], hidden[1])
        self.last = nn.Linear(hidden[1], dim)

    def forward(self, t: Tensor | float, y: Tensor) -> Tensor:
        """The derivative of ``y`` [..., dim] at time ``t``: a number, 0-dimensional or [..., 1]."""
        return self.with_trace(t, y)[0]

    def with_trace(self, t: Tensor | float, y: Tensor) -> tuple[Tensor, Tensor]:
        """The derivative, and the trace of its Jacobian by ``y``, [..., 1]."""
        time = torch.as_tensor(t, dtype=y.dtype, device=y.device).expand(*y.shape[:-1], 1)
        h1, slope1 = self.first(time, y)
        h2, slope2 = self.second(time, h1)
        loops = self.second.linear.weight * (self.first.linear.weight @ self.last.weight).T
        trace = (slope2 * functional.linear(slope1, loops)).sum(-1, keepdim=True)
        return self.last(h2), trace


class _TimedLayer(nn.Module):
    """``h = tanh(s (W x + b) + r)`` and its slopes ``s (1 - h^2)``; ``s`` and ``r`` from the time.

    Both are Grathwohl et al.'s (2019, "concatsquash"): ``s = sigmoid(u t + v)`` and ``r = w t``.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)
        self.scale = nn.Linear(1, n_out)
        self.shift = nn.Linear(1, n_out, bias=False)

    def forward(self, time: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values and slopes, [..., n_out] each, at times [..., 1]."""
        scale = self.scale(time).sigmoid()
        h = (scale * self.linear(x) + self.shift(time)).tanh()
        return h, scale * (1 - h.square())
