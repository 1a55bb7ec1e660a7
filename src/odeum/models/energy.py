"""What Hamiltonian and Lagrangian fields share.

A network with one number as output, the halves of a state, and the error of derivatives. Knows
neither equation of motion.
"""

from collections.abc import Sequence

import torch
from torch import nn

from odeum.errors import InputError
from odeum.models.fields import MLPField
from odeum.types import Tensor


class MLPEnergy(nn.Module):
    """A number for every state: a multilayer perceptron of the parts of the state side by side.

    Weights start as orthogonal matrices: signals, and so the slopes that are learned, keep their
    size from layer to layer.

    Args:
        dim: numbers in all parts together, at least 1.
        hidden: width of each hidden layer.
        activation: a name from ``odeum.models.ACTIVATIONS``; a smooth one, as its slope is used.
        gain: of the last layer's weights at the start.

    Raises:
        InputError: for an unknown activation, or a size below 1.

    Example:
        >>> energy = MLPEnergy(4, hidden=(16,))
        >>> q, p = torch.ones(5, 2), torch.zeros(5, 2)
        >>> energy(q, p).shape
        torch.Size([5])
    """

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int] = (200, 200),
        activation: str = "tanh",
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = MLPField(dim, hidden, activation)
        last = nn.Linear((dim, *hidden)[-1], 1)
        self.network.layers[-1] = last
        begin_orthogonal(self.network)
        with torch.no_grad():
            last.weight.mul_(gain)

    def forward(self, *parts: Tensor) -> Tensor:
        """The energy [...] of a state in parts, each [..., size]."""
        return self.network(0.0, torch.cat(parts, dim=-1)).squeeze(-1)


def begin_orthogonal(network: nn.Module) -> None:
    """Gives every linear layer an orthogonal matrix, drawn from torch's generator.

    Args:
        network: changed in place.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight)


def halves(dim: int) -> int:
    """How many coordinates a state of ``dim`` numbers has: half of them.

    Raises:
        InputError: for a number that cannot be halved.
    """
    if not isinstance(dim, int) or isinstance(dim, bool) or dim < 2 or dim % 2:
        raise InputError(
            f"dim is {dim!r}: give an even number, as many coordinates as momenta or velocities"
        )
    return dim // 2


def split(y: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The two halves of a state, each [..., dim / 2].

    Raises:
        InputError: for a state of another size.
    """
    if y.shape[-1] != dim:
        raise InputError(f"the state has shape {list(y.shape)}: its last axis must have {dim}")
    first, second = y.chunk(2, dim=-1)
    return first, second


def derivative_error(field: nn.Module, y: Tensor, dydt: Tensor) -> Tensor:
    """Mean square error of a field's derivatives, over rows and components.

    Args:
        field: ``f(t, y) -> dy/dt`` that does not depend on time.
        y: states, [batch, dim].
        dydt: derivatives there, [batch, dim].
    """
    return (field(0.0, y) - dydt).square().mean()
