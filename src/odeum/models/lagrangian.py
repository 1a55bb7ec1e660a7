"""Lagrangian dynamics: the Lagrangian is learned, and motion follows from Euler's equation.

Owns ``d/dt dL/dv = dL/dq``, solved for the acceleration. Coordinates and velocities suffice:
momenta need not be known.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.func import grad, vjp, vmap

from odeum.errors import InputError
from odeum.models.energy import MLPEnergy, derivative_error, halves, split
from odeum.types import Tensor


class MLPLagrangian(nn.Module):
    """``L(q, v) = v . v / 2 + N(q, v)`` with a perceptron N that is small at the start.

    Its mass matrix ``d2L/dv2`` so begins near the identity, and accelerations are finite; for N
    alone it would be any matrix, singular ones included.

    Args:
        dim: components of q and v together, even.
        hidden: width of each hidden layer.
        activation: a name from ``odeum.models.ACTIVATIONS``; a smooth one, as its second
            derivative is used.

    Raises:
        InputError: for an unknown activation, or a size below 1.

    Example:
        >>> lagrangian = MLPLagrangian(4, hidden=(16,))
        >>> lagrangian(torch.ones(5, 2), torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(
        self, dim: int, hidden: Sequence[int] = (200, 200), activation: str = "tanh"
    ) -> None:
        super().__init__()
        self.network = MLPEnergy(dim, hidden, activation, gain=0.1)

    def forward(self, q: Tensor, v: Tensor) -> Tensor:
        """The Lagrangian [...] at coordinates and velocities, each [..., dim / 2]."""
        return v.square().sum(-1) / 2 + self.network(q, v)


class LagrangianField(nn.Module):
    """``dq/dt = v`` and ``d2L/dv2 dv/dt = dL/dq - d2L/dvdq v``: solutions conserve an energy.

    The state is (q, v) side by side on the last axis.

    Args:
        dim: components of the state, even: coordinates, and as many velocities.
        hidden: width of each hidden layer of the network, an :class:`MLPLagrangian`.
        activation: its activation, a name from ``odeum.models.ACTIVATIONS``; a smooth one.
        lagrangian: the Lagrangian itself, a module ``L(q, v) -> [batch]`` of coordinates and
            velocities, each [batch, dim / 2]; then no network is made.

    Attributes:
        lagrangian: as a module.

    Raises:
        InputError: for an odd ``dim``, an unknown activation, a size below 1, or a ``lagrangian``
            that is no module; on a call, for a state of another size.

    Source:
        Cranmer, Greydanus, Hoyer, Battaglia, Spergel & Ho, Lagrangian Neural Networks (2020),
        equation 6.

    Example:
        >>> class Pendulum(nn.Module):
        ...     def forward(self, q, v):
        ...         return (v * v / 2 + q.cos()).sum(-1)
        >>> field = LagrangianField(2, lagrangian=Pendulum())
        >>> y = torch.tensor([[torch.pi / 2, 1.0]])
        >>> field(0.0, y), field.energy(y)
        (tensor([[ 1., -1.]]), tensor([0.5000]))
        >>> LagrangianField(4, hidden=(16, 16))(0.0, torch.ones(3, 4)).shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int] = (200, 200),
        activation: str = "tanh",
        *,
        lagrangian: nn.Module | None = None,
    ) -> None:
        super().__init__()
        halves(dim)
        self.dim = dim
        if lagrangian is None:
            lagrangian = MLPLagrangian(dim, hidden, activation)
        elif not isinstance(lagrangian, nn.Module):
            raise InputError(
                f"lagrangian is a {type(lagrangian).__name__}: give an nn.Module L(q, v)"
            )
        self.lagrangian = lagrangian

    def energy(self, y: Tensor) -> Tensor:
        """``v . dL/dv - L`` [...] of states [..., dim]."""
        q, v = split(y, self.dim)

        def total(v: Tensor) -> tuple[Tensor, Tensor]:
            values = self.lagrangian(q, v)
            return values.sum(), values

        slopes: Any = grad(total, has_aux=True)
        momentum, values = slopes(v)
        return (v * momentum).sum(-1) - values

    def forward(self, t: Tensor | float, y: Tensor) -> Tensor:
        """The derivative of ``y`` [..., dim]; ``t`` plays no part.

        Not finite in rows whose mass matrix is singular.
        """
        q, v = split(y, self.dim)

        def total(q: Tensor, v: Tensor) -> Tensor:
            return self.lagrangian(q, v).sum()

        def momentum(q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            force, momentum = grad(total, argnums=(0, 1))(q, v)
            return momentum, force

        found: Any = vjp(momentum, q, v, has_aux=True)
        _, pull_back, force = found
        # Rows do not meet in a Lagrangian: a unit vector in every row gives a line of each matrix.
        n = q.shape[-1]
        units = torch.eye(n, dtype=y.dtype, device=y.device).view(n, *[1] * (y.ndim - 1), n)
        lines: Any = vmap(pull_back)(units.expand(n, *q.shape))
        mixed, mass = (matrix.movedim(0, -2) for matrix in lines)
        driven = force - (mixed @ v.unsqueeze(-1)).squeeze(-1)
        # Unlike `solve`, it lets a singular row be, and the others have their answer.
        acceleration = torch.linalg.solve_ex(mass, driven.unsqueeze(-1)).result.squeeze(-1)
        return torch.cat([v, acceleration], dim=-1)

    def loss(self, y: Tensor, dydt: Tensor) -> Tensor:
        """Mean square error of the derivatives, over rows and components.

        Args:
            y: states, [batch, dim].
            dydt: derivatives observed there, [batch, dim].

        Returns:
            A scalar with its graph.
        """
        return derivative_error(self, y, dydt)

    def metrics(self, y: Tensor, dydt: Tensor) -> dict[str, Tensor]:
        """That error, ``mse``; arguments as of :meth:`loss`."""
        return {"mse": self.loss(y, dydt).detach()}
