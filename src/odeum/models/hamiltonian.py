"""Hamiltonian dynamics: the energy is learned, and motion follows from its slopes.

Owns Hamilton's equations, ``dq/dt = dH/dp, dp/dt = -dH/dq``, with friction if asked for.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.func import grad
from torch.nn import functional

from odeum.errors import InputError
from odeum.models.energy import MLPEnergy, derivative_error, halves, split
from odeum.types import Tensor


class SeparableHamiltonian(nn.Module):
    """``H(q, p) = T(p) + V(q)``: what symplectic methods need.

    Args:
        kinetic: ``T(p)``, a module, [..., n] -> [...].
        potential: ``V(q)``, likewise.

    Example:
        >>> energy = SeparableHamiltonian(MLPEnergy(2, (16,)), MLPEnergy(2, (16,)))
        >>> energy(torch.ones(5, 2), torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, kinetic: nn.Module, potential: nn.Module) -> None:
        super().__init__()
        self.kinetic = kinetic
        self.potential = potential

    def forward(self, q: Tensor, p: Tensor) -> Tensor:
        """The energy [...] at coordinates and momenta, each [..., n]."""
        return self.kinetic(p) + self.potential(q)


class HamiltonianField(nn.Module):
    """``dq/dt = dH/dp, dp/dt = -dH/dq``: whatever network H is, solutions conserve it.

    The state is (q, p) side by side on the last axis, as symplectic methods take it. Those methods
    (``odeum.solve(field, y0, ts, method="yoshida4", step=...)``) are right where the energy is
    separable and there is no friction; all others always are.

    With friction, ``dp/dt = -dH/dq - d dH/dp`` with learned coefficients d > 0, one per coordinate:
    the energy only falls.

    Args:
        dim: components of the state, even: coordinates, and as many momenta.
        hidden: width of each hidden layer of the network.
        activation: its activation, a name from ``odeum.models.ACTIVATIONS``; a smooth one.
        separable: learn ``H = T(p) + V(q)`` with a network for each.
        friction: learn coefficients of friction too.
        hamiltonian: the energy itself, a module ``H(q, p) -> [batch]`` of coordinates and momenta,
            each [batch, dim / 2]; then no network is made.

    Attributes:
        hamiltonian: the energy, as a module.

    Raises:
        InputError: for an odd ``dim``, an unknown activation, a size below 1, or ``separable``
            together with a ``hamiltonian``; on a call, for a state of another size.

    Source:
        Greydanus, Dzamba & Yosinski, Hamiltonian Neural Networks, NeurIPS 2019; friction as in
        Zhong, Dey & Chakraborty, Dissipative SymODEN (2020), with a diagonal matrix.

    Example:
        >>> class Spring(nn.Module):
        ...     def forward(self, q, p):
        ...         return (q * q + p * p).sum(-1) / 2
        >>> field = HamiltonianField(2, hamiltonian=Spring())
        >>> y = torch.tensor([[1.0, 2.0]])
        >>> field(0.0, y).tolist(), field.energy(y).tolist()
        ([[2.0, -1.0]], [2.5])
        >>> learned = HamiltonianField(4, hidden=(16, 16), separable=True)
        >>> y0, ts = torch.ones(3, 4), torch.linspace(0, 1, 5)
        >>> import odeum
        >>> step = odeum.StepOptions(fixed=0.05)
        >>> odeum.solve(learned, y0, ts, method="yoshida4", step=step).ys.shape
        torch.Size([5, 3, 4])
    """

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int] = (200, 200),
        activation: str = "tanh",
        *,
        separable: bool = False,
        friction: bool = False,
        hamiltonian: nn.Module | None = None,
    ) -> None:
        super().__init__()
        n = halves(dim)
        self.dim = dim
        if hamiltonian is None:
            self.hamiltonian: nn.Module = (
                SeparableHamiltonian(*(MLPEnergy(n, hidden, activation) for _ in range(2)))
                if separable
                else MLPEnergy(dim, hidden, activation)
            )
        elif separable or not isinstance(hamiltonian, nn.Module):
            raise InputError(
                "hamiltonian must be an nn.Module H(q, p), and separable is for the network that "
                "is made where there is none: give one of the two"
            )
        else:
            self.hamiltonian = hamiltonian
        # Softplus keeps friction from driving; it begins small.
        self.raw_friction = nn.Parameter(torch.full((n,), -4.0)) if friction else None

    @property
    def friction(self) -> Tensor | None:
        """The coefficients d, [dim / 2]; None where there is no friction."""
        return None if self.raw_friction is None else functional.softplus(self.raw_friction)

    def energy(self, y: Tensor) -> Tensor:
        """``H`` [...] of states [..., dim]."""
        return self.hamiltonian(*split(y, self.dim))

    def forward(self, t: Tensor | float, y: Tensor) -> Tensor:
        """The derivative of ``y`` [..., dim]; ``t`` plays no part."""

        def total(q: Tensor, p: Tensor) -> Tensor:
            return self.hamiltonian(q, p).sum()

        # Rows do not meet in an energy: the slopes of the sum are each row's own.
        slopes: Any = grad(total, argnums=(0, 1))
        dq, dp = slopes(*split(y, self.dim))
        force = -dq if self.friction is None else -dq - self.friction * dp
        return torch.cat([dp, force], dim=-1)

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
