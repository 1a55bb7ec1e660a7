"""Three mechanical systems and what is learned from them: the data of Greydanus et al. (2019).

Owns energies, starts and observations. Numbers are those of the authors' published code, where
the paper leaves them out; random numbers are torch's, so that the samples are others.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

import odeum
from odeum.models import HamiltonianField
from odeum.types import Tensor

Draw = Callable[[int, torch.Generator], Tensor]
"""States to start from, [n, dim] in float64, from how many and the source of randomness."""


class SpringEnergy(nn.Module):
    """``H = q^2 + p^2``."""

    def forward(self, q: Tensor, p: Tensor) -> Tensor:
        """The energy [...]."""
        return (q * q + p * p).sum(-1)


class PendulumEnergy(nn.Module):
    """``H = 3 (1 - cos q) + p^2``."""

    def forward(self, q: Tensor, p: Tensor) -> Tensor:
        """The energy [...]."""
        return (3 * (1 - q.cos()) + p * p).sum(-1)


class TwoBodyEnergy(nn.Module):
    """``H = |p|^2 / 2 - 1 / r`` for two bodies of mass 1 in the plane, q = (x1, x2, y1, y2)."""

    def forward(self, q: Tensor, p: Tensor) -> Tensor:
        """The energy [...]."""
        x1, x2, y1, y2 = q.unbind(-1)
        return (p * p).sum(-1) / 2 - ((x1 - x2).square() + (y1 - y2).square()).rsqrt()


class InMomenta(nn.Module):
    """A field of (q, v) as one of (q, p), with ``p = mass v``.

    Args:
        field: of coordinates and velocities.
        mass: of every coordinate.

    Example:
        >>> from odeum.models import LagrangianField
        >>> class Spring(nn.Module):
        ...     def forward(self, q, v):
        ...         return (v * v / 4 - q * q).sum(-1)
        >>> field = InMomenta(LagrangianField(2, lagrangian=Spring()), mass=0.5)
        >>> field(0.0, torch.tensor([[1.0, 2.0]]))  # of H = q^2 + p^2
        tensor([[ 4., -2.]])
    """

    def __init__(self, field: nn.Module, mass: float) -> None:
        super().__init__()
        self.field = field
        self.mass = mass

    def forward(self, t: Tensor | float, y: Tensor) -> Tensor:
        """The derivative of ``y`` = (q, p), [..., dim]."""
        q, p = y.chunk(2, dim=-1)
        dq, dv = self.field(t, torch.cat([q, p / self.mass], dim=-1)).chunk(2, dim=-1)
        return torch.cat([dq, self.mass * dv], dim=-1)


def spring_period(energy: Tensor) -> Tensor:
    """pi, whatever the energy."""
    return torch.full_like(energy, math.pi)


def pendulum_period(energy: Tensor) -> Tensor:
    """By the arithmetic-geometric mean; for energies below 6, at which it goes over the top."""
    a, b = torch.ones_like(energy), (1 - energy / 6).sqrt()
    for _ in range(6):
        a, b = (a + b) / 2, (a * b).sqrt()
    return 2 * math.pi / (math.sqrt(6) * a)


def orbit_period(energy: Tensor) -> Tensor:
    """Kepler's third law for two bodies of mass 1; the half axis is ``-1 / (2 energy)``."""
    return 2 * math.pi * ((-0.5 / energy) ** 3 / 2).sqrt()


@dataclass(frozen=True)
class Observations:
    """What is learned from, in float64.

    Attributes:
        y: observed states (q, p), [n, dim].
        dydt: their derivatives without noise, [n, dim].
    """

    y: Tensor
    dydt: Tensor


@dataclass(frozen=True, eq=False)
class Task:
    """A system, what is observed of it, and how what was learned is tested.

    Attributes:
        name: as ``--set task=`` takes it.
        title: for people.
        state_names: one per component, coordinates first.
        hamiltonian: the true energy ``H(q, p)``.
        mass: momentum by velocity, the same for all coordinates.
        period: of one turn, from the energy.
        draw: starts of the observed trajectories.
        draw_tests: starts of the solves in which energies are compared.
        t1: end of an observed trajectory, which starts at 0.
        n_times: observations of each.
        n_train: trajectories to learn from.
        n_test: trajectories for the test loss.
        noise: standard deviation of the noise on observed states.
        example: a start for pictures, [1, dim].
        horizon: end of the solves in which energies are compared.
    """

    name: str
    title: str
    state_names: tuple[str, ...]
    hamiltonian: nn.Module
    mass: float
    period: Callable[[Tensor], Tensor]
    draw: Draw
    draw_tests: Draw
    t1: float
    n_times: int
    n_train: int
    n_test: int
    noise: float
    example: Tensor
    horizon: float = 20.0

    @property
    def dim(self) -> int:
        """Components of the state."""
        return len(self.state_names)

    @property
    def field(self) -> HamiltonianField:
        """The true dynamics."""
        return HamiltonianField(self.dim, hamiltonian=self.hamiltonian)

    def energy(self, y: Tensor) -> Tensor:
        """The true energy [...] of states [..., dim]."""
        return self.field.energy(y)

    def observe(self, seed: int) -> tuple[Observations, Observations]:
        """Observations to learn from and to test with, of trajectories of their own each.

        Args:
            seed: of starts and noise.
        """
        generator = torch.Generator().manual_seed(seed)
        starts = self.draw(self.n_train + self.n_test, generator)
        ys = solve_exactly(self.field, starts, torch.linspace(0, self.t1, self.n_times).double())
        noise = torch.randn(ys.shape, generator=generator, dtype=ys.dtype)
        parts = (ys + self.noise * noise, self.field(0.0, ys))
        learned = (part[:, : self.n_train].flatten(0, 1) for part in parts)
        tested = (part[:, self.n_train :].flatten(0, 1) for part in parts)
        return Observations(*learned), Observations(*tested)

    def smaller(self, n_train: int) -> "Task":
        """The same with fewer trajectories; for trying things out."""
        return replace(self, n_train=min(n_train, self.n_train), n_test=min(n_train, self.n_test))


def solve_exactly(field: nn.Module, y0: Tensor, ts: Tensor) -> Tensor:
    """States at ``ts``, [time, batch, dim], far closer to the truth than anything learned."""
    options: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12, "gradient": "none"}
    with torch.no_grad():
        # Solved once or twice: compiling would not pay.
        return odeum.solve(field, y0, ts, method="dopri8", engine="eager", **options).ys


def _on_rings(least: float, most: float) -> Draw:
    """In the direction of a point of the square, at a radius uniform between two."""

    def draw(n: int, generator: torch.Generator) -> Tensor:
        y = 2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1
        radius = least + (most - least) * torch.rand(n, 1, generator=generator, dtype=y.dtype)
        return radius * y / y.norm(dim=-1, keepdim=True)

    return draw


def _off_the_axes(n: int, generator: torch.Generator) -> Tensor:
    """Either component between 0.2 and 1, of either sign."""
    y = 1.6 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 0.8
    return y + 0.2 * y.sign()


def _near_circles(n: int, generator: torch.Generator) -> Tensor:
    """Two bodies opposite each other, at 5 % more or less than the speed of a circle."""
    position = 0.5 + torch.rand(n, 2, generator=generator, dtype=torch.float64)
    excess = 1 + 0.05 * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    x, y = position.unbind(-1)
    turned = torch.stack([-y, x], -1)
    velocity = excess * turned / (2 * position.norm(dim=-1, keepdim=True) ** 1.5)
    pairs = torch.stack([position, -position, velocity, -velocity], -1)
    # [n, (x, y), (q1, q2, p1, p2)] as (x1, x2, y1, y2, then momenta alike).
    return torch.cat([pairs[..., :2].flatten(1), pairs[..., 2:].flatten(1)], -1)


SPRING = Task(
    name="spring",
    title="spring",
    state_names=("q", "p"),
    hamiltonian=SpringEnergy(),
    mass=0.5,
    period=spring_period,
    draw=_on_rings(0.1, 1.0),
    draw_tests=_off_the_axes,
    t1=3.0,
    n_times=30,
    n_train=25,
    n_test=25,
    noise=0.1,
    example=torch.tensor([[1.0, 0.0]], dtype=torch.float64),
)

PENDULUM = Task(
    name="pendulum",
    title="pendulum",
    state_names=("q", "p"),
    hamiltonian=PendulumEnergy(),
    mass=0.5,
    period=pendulum_period,
    draw=_on_rings(1.3, 2.3),
    draw_tests=_off_the_axes,
    t1=3.0,
    n_times=45,
    n_train=25,
    n_test=25,
    noise=0.1,
    example=torch.tensor([[2.1, 0.0]], dtype=torch.float64),
)

TWO_BODY = Task(
    name="two-body",
    title="two bodies",
    state_names=("x1", "x2", "y1", "y2", "px1", "px2", "py1", "py2"),
    hamiltonian=TwoBodyEnergy(),
    mass=1.0,
    period=orbit_period,
    draw=_near_circles,
    draw_tests=_near_circles,
    t1=20.0,
    n_times=50,
    n_train=800,
    n_test=200,
    noise=0.0,
    example=_near_circles(1, torch.Generator().manual_seed(0)),
)

TASKS = {task.name: task for task in (SPRING, PENDULUM, TWO_BODY)}
"""Every system by name."""
