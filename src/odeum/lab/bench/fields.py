"""The fields of the benchmarks, as a user of torch writes them, and weights to start from.

Weights are drawn so that signals keep their size from layer to layer: fields are neither dull nor
wild. A field's parameters, in order, are all that other libraries need to build the same one.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.func import grad, jacrev, vmap

from odeum.types import Tensor


def network(sizes: Sequence[int], activation: type[nn.Module], seed: int = 0) -> nn.Sequential:
    """Linear layers with activations between, in float64.

    Args:
        sizes: how many numbers go in, through the hidden layers, and out.
        activation: its class.
        seed: of the weights.

    Returns:
        The network; weights have variance ``1 / inputs``, twice that in the first layer.

    Example:
        >>> network((2, 64, 2), nn.Tanh)[0].weight.shape
        torch.Size([64, 2])
    """
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        linear = nn.Linear(n_in, n_out, dtype=torch.float64)
        gain = 2.0 if i == 0 else 1.0
        nn.init.normal_(linear.weight, std=(gain / n_in) ** 0.5, generator=generator)
        nn.init.normal_(linear.bias, std=0.1, generator=generator)
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1])


class Mlp(nn.Module):
    """``dy/dt = net(y)``.

    Args:
        sizes: of the network.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.net = network(sizes, nn.Tanh)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The field, [batch, dim]."""
        return self.net(y)


class Hamiltonian(nn.Module):
    """``dq/dt = dH/dp, dp/dt = -dH/dq`` with a network as the energy H, differentiated inside.

    Args:
        sizes: of the network, from two numbers to one.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.energy = network(sizes, nn.Tanh)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The field, [batch, 2]."""
        slope = grad(lambda y: self.energy(y).sum())(y)
        dq, dp = slope.chunk(2, -1)
        return torch.cat([dp, -dq], -1)


class Flow(nn.Module):
    """A continuous normalising flow: positions, and a log-density that loses the exact trace.

    Args:
        sizes: of the network, from positions and time to velocities.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.net = network(sizes, nn.Softplus)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The field, [batch, dim]; of the state the last number is the log-density."""
        z = y[:, :-1]
        times = t.reshape(-1, 1).expand(len(y), 1)

        def velocity(z: Tensor, t: Tensor) -> Tensor:
            return self.net(torch.cat([z, t], -1))

        jacobians: Any = vmap(jacrev(velocity))(z, times)
        trace = jacobians.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
        return torch.cat([velocity(z, times), -trace], -1)


class Lorenz(nn.Module):
    """Lorenz's system at its classical constants, without parameters."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The field, [batch, 3]."""
        x, v, z = y.unbind(-1)
        return torch.stack([10 * (v - x), x * (28 - z) - v, x * v - 8 / 3 * z], -1)
