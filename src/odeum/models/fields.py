"""Ready vector fields with weights: linear, and a multilayer perceptron.

A field is ``f(t, y) -> dy/dt`` on the last axis of ``y`` [..., dim]. It knows nothing of solvers.
"""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from odeum.errors import InputError, unknown_name
from odeum.types import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": functional.elu,
    "gelu": functional.gelu,
    "leaky_relu": functional.leaky_relu,
    "mish": functional.mish,
    "relu": torch.relu,
    "selu": torch.selu,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "sin": torch.sin,
    "softplus": functional.softplus,
    "tanh": torch.tanh,
}
"""The activations that :class:`MLPField` takes by name."""


class LinearField(nn.Module):
    """``dy/dt = A y``, or ``A y + b``.

    Args:
        dim: components of the state, at least 1.
        bias: whether there is a ``b``.

    Attributes:
        linear: holds ``A`` as ``linear.weight`` [dim, dim] and ``b`` as ``linear.bias`` [dim].

    Raises:
        InputError: for a ``dim`` below 1.

    Example:
        >>> field = LinearField(2)
        >>> with torch.no_grad():
        ...     _ = field.linear.weight.copy_(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
        >>> field(0.0, torch.tensor([[1.0, 2.0]])).tolist()
        [[2.0, -1.0]]
    """

    def __init__(self, dim: int, bias: bool = False) -> None:
        super().__init__()
        self.dim = _positive("dim", dim)
        self.linear = nn.Linear(dim, dim, bias=bias)

    def forward(self, t: Tensor | float, y: Tensor) -> Tensor:
        """The derivative of ``y`` [..., dim]; ``t`` plays no part."""
        return self.linear(y)


class MLPField(nn.Module):
    """``dy/dt = MLP(y)``, or ``MLP(y, t)``: linear layers with an activation between them.

    Args:
        dim: components of the state, at least 1.
        hidden: width of each hidden layer; empty for none.
        activation: a name from ``odeum.models.ACTIVATIONS``.
        time_dependent: whether the time is one more input.

    Raises:
        InputError: for an unknown activation, or a size below 1.

    Example:
        >>> field = MLPField(2, hidden=(16,), activation="silu", time_dependent=True)
        >>> y = torch.ones(5, 2)
        >>> field(torch.tensor(0.5), y).shape, field(torch.ones(5, 1), y).shape
        (torch.Size([5, 2]), torch.Size([5, 2]))
    """

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        time_dependent: bool = False,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise unknown_name("activation", str(activation), ACTIVATIONS)
        self.dim = _positive("dim", dim)
        self.hidden = tuple(_positive("hidden", width) for width in hidden)
        self.activation = activation
        self.time_dependent = time_dependent
        widths = (dim + time_dependent, *self.hidden, dim)
        self.layers = nn.ModuleList(
            nn.Linear(n_in, n_out) for n_in, n_out in itertools.pairwise(widths)
        )

    def forward(self, t: Tensor | float, y: Tensor) -> Tensor:
        """The derivative of ``y`` [..., dim] at time ``t``: a number, 0-dimensional or [..., 1]."""
        if self.time_dependent:
            time = torch.as_tensor(t, dtype=y.dtype, device=y.device)
            y = torch.cat([y, time.expand(*y.shape[:-1], 1)], dim=-1)
        activate = ACTIVATIONS[self.activation]
        *before, last = self.layers
        for layer in before:
            y = activate(layer(y))
        return last(y)


def _positive(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} is {value!r}: give a whole number of at least 1")
    return value
