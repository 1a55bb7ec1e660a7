"""Bodies under gravity: two, three and seven of them, in the plane.

States hold positions first, then velocities. Fields are smooth but for collisions, nowhere stiff,
and ask for steps of very different sizes along one orbit. Nothing here knows of solvers or plots.
"""

import math
from typing import Any

import torch

from odeum.errors import InputError
from odeum.systems.system import Constant, State, System, register
from odeum.types import Tensor

_N_NEWTON = 40
"""Newton's steps on Kepler's equation: about 10 reach rounding, 30 at an eccentricity of 1 - 1e-6.
A fixed number keeps every row on the same operations."""


def _kepler(t: Tensor, state: State, gravity: Constant) -> State:
    x, y, vx, vy = state
    square = x * x + y * y
    pull = -gravity / (square * square**0.5)
    return vx, vy, pull * x, pull * y


def _kepler_energy(state: State, gravity: Constant) -> Tensor:
    x, y, vx, vy = state
    return 0.5 * (vx * vx + vy * vy) - gravity / (x * x + y * y) ** 0.5


def _kepler_momentum(state: State, gravity: Constant) -> Tensor:
    x, y, vx, vy = state
    return x * vy - y * vx


def _kepler_solution(t: Tensor, y0: Tensor, gravity: Constant) -> Tensor:
    """Lagrange's f and g from the change ``angle`` of the eccentric anomaly since the start."""
    t = torch.as_tensor(t, dtype=y0.dtype, device=y0.device)
    t = t.reshape(t.shape + (1,) * (y0.ndim - t.ndim))[..., None]
    position, velocity = y0.split(2, dim=-1)
    distance = position.square().sum(-1, keepdim=True).sqrt()
    axis = 1 / (2 / distance - velocity.square().sum(-1, keepdim=True) / gravity)
    rate = (gravity / axis**3) ** 0.5
    # The eccentricity times the cosine and the sine of the anomaly at the start.
    cosine = 1 - distance / axis
    sine = (position * velocity).sum(-1, keepdim=True) / (gravity * axis) ** 0.5
    angle = _anomaly_change(cosine.detach(), sine.detach(), (rate * t).detach())
    # One more step of Newton's, with gradients: those of the equation's solution.
    excess = angle - cosine * angle.sin() + sine * (1 - angle.cos()) - rate * t
    angle = angle - excess / (1 - cosine * angle.cos() + sine * angle.sin())
    later = axis * (1 - cosine * angle.cos() + sine * angle.sin())
    f = 1 - axis / distance * (1 - angle.cos())
    g = t - (angle - angle.sin()) / rate
    f_rate = -((gravity * axis) ** 0.5) * angle.sin() / (later * distance)
    g_rate = 1 - axis / later * (1 - angle.cos())
    return torch.cat((f * position + g * velocity, f_rate * position + g_rate * velocity), dim=-1)


def _anomaly_change(cosine: Tensor, sine: Tensor, phase: Tensor) -> Tensor:
    """Solves Kepler's equation ``E - e sin(E) = M`` for ``E`` less its value at the start.

    From E = pi (or -pi) on the side of M, within one turn, Newton's iteration is monotone.
    """
    eccentricity = (cosine * cosine + sine * sine).sqrt()
    start = torch.atan2(sine, cosine)
    mean = start - sine + phase
    turns = 2 * math.pi * (mean / (2 * math.pi)).round()
    mean = mean - turns
    anomaly = torch.where(mean < 0, -math.pi, math.pi).to(mean)
    for _ in range(_N_NEWTON):
        excess = anomaly - eccentricity * anomaly.sin() - mean
        anomaly = anomaly - excess / (1 - eccentricity * anomaly.cos())
    return anomaly + turns - start


@register
def kepler(eccentricity: float = 0.6, gravity: Constant = 1.0) -> System:
    """A planet on its ellipse around a fixed sun; energy and angular momentum are conserved.

    ``(x, y)'' = -gravity (x, y) / (x^2 + y^2)^(3/2)``. The default start is the point nearest to
    the sun of an orbit with half axis 1, and so period ``2 pi``, at ``gravity = 1``. The exact
    solution, by Kepler's equation, holds for every bound orbit that does not fall into the sun.

    Args:
        eccentricity: of the default start's orbit, 0 (a circle) <= eccentricity < 1.
        gravity: mass of the sun times the constant of gravitation, length^3/time^2.

    Raises:
        InputError: if ``eccentricity`` is not a number of that range.

    Source:
        Hairer, Lubich & Wanner, Geometric Numerical Integration (2006), section I.2; class D of
        Hull, Enright, Fellen & Sedgwick, SIAM J. Numer. Anal. 9 (1972).

    Example:
        >>> kepler()(0.0, torch.tensor([0.5, 0.0, 0.0, 1.0]))
        tensor([ 0.,  1., -4., -0.])
        >>> circle = kepler(eccentricity=0.0)
        >>> circle.exact(torch.tensor([torch.pi / 3]), torch.tensor(circle.y0))
        tensor([[ 0.5000,  0.8660, -0.8660,  0.5000]])
    """
    if not isinstance(eccentricity, int | float) or not 0 <= eccentricity < 1:
        raise InputError(
            f"eccentricity of kepler is {eccentricity!r}: give a number from 0 to below 1"
        )
    return System(
        name="kepler",
        state_names=("x", "y", "vx", "vy"),
        constants={"gravity": gravity},
        y0=(1 - eccentricity, 0.0, 0.0, math.sqrt((1 + eccentricity) / (1 - eccentricity))),
        span=(0.0, 20.0),
        description="One planet around a fixed sun, on an ellipse for ever.",
        reference="Hairer, Lubich & Wanner, Geometric Numerical Integration (2006), section I.2",
        derivative=_kepler,
        conserved={"energy": _kepler_energy, "angular momentum": _kepler_momentum},
        solution=_kepler_solution,
    )


def _arenstorf(t: Tensor, state: State, mass: Constant) -> State:
    x, y, vx, vy = state
    square = y * y
    to_earth = (x + mass) * (x + mass) + square
    to_moon = (x + mass - 1) * (x + mass - 1) + square
    earth = (1 - mass) / (to_earth * to_earth**0.5)
    moon = mass / (to_moon * to_moon**0.5)
    return (
        vx,
        vy,
        x + 2 * vy - earth * (x + mass) - moon * (x + mass - 1),
        y - 2 * vx - (earth + moon) * y,
    )


def _jacobi_integral(state: State, mass: Constant) -> Tensor:
    x, y, vx, vy = state
    earth = (1 - mass) / ((x + mass) * (x + mass) + y * y) ** 0.5
    moon = mass / ((x + mass - 1) * (x + mass - 1) + y * y) ** 0.5
    return 0.5 * (vx * vx + vy * vy - x * x - y * y) - earth - moon


@register
def arenstorf(mass: Constant = 0.012277471) -> System:
    """A spacecraft around earth and moon, on an orbit that closes after ``span``.

    The restricted three-body problem in the frame that turns with earth, at ``(-mass, 0)``, and
    moon, at ``(1 - mass, 0)``: with distances ``r`` and ``s`` to them,
    ``x'' = x + 2 y' - (1 - mass) (x + mass) / r^3 - mass (x + mass - 1) / s^3``,
    ``y'' = y - 2 x' - (1 - mass) y / r^3 - mass y / s^3``; Jacobi's integral is conserved.

    Args:
        mass: of the moon, as a share of both, dimensionless; at the default the default start is
            the orbit's.

    Source:
        Arenstorf, Periodic solutions of the restricted three body problem, Amer. J. Math. 85
        (1963); start and period as in Hairer, Norsett & Wanner, Solving Ordinary Differential
        Equations I (1993), section II.0, equations 0.1 and 0.2.

    Example:
        >>> arenstorf(mass=0.5)(0.0, torch.tensor([0.0, 0.5, 1.0, 0.0]))
        tensor([ 1.0000,  0.0000,  0.0000, -2.9142])
    """
    return System(
        name="arenstorf",
        state_names=("x", "y", "vx", "vy"),
        constants={"mass": mass},
        y0=(0.994, 0.0, 0.0, -2.00158510637908252240537862224),
        span=(0.0, 17.0652165601579625588917206249),
        description="A closed orbit around earth and moon that passes close by the moon.",
        reference="Arenstorf, Amer. J. Math. 85 (1963); Hairer, Norsett & Wanner, Solving "
        "Ordinary Differential Equations I (1993), section II.0",
        derivative=_arenstorf,
        conserved={"Jacobi integral": _jacobi_integral},
    )


Masses = tuple[float, ...] | Tensor

_N_STARS = 7


def _stars(state: State, masses: Masses) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Coordinates, velocities and masses with the stars on the last axis."""
    parts = [torch.cat(tuple(state[i : i + _N_STARS]), -1) for i in range(0, 28, _N_STARS)]
    x, y, vx, vy = parts
    return x, y, vx, vy, torch.as_tensor(masses, dtype=x.dtype, device=x.device)


def _added(terms: Tensor) -> Tensor:
    """The sum over the last axis in one order: the same bits whatever the batch."""
    total: Any = sum(terms.unbind(-1))
    return total


def _separations(x: Tensor) -> Tensor:
    """``[..., i, j]``: from star i to star j."""
    return x[..., None, :] - x[..., :, None]


def _pleiades(t: Tensor, state: State, masses: Masses) -> State:
    x, y, vx, vy, m = _stars(state, masses)
    dx, dy = _separations(x), _separations(y)
    # Ones on the diagonal: a star's pull on itself is 0 / 1.
    square = dx * dx + dy * dy + torch.eye(_N_STARS, dtype=x.dtype, device=x.device)
    pull = m[..., None, :] / (square * square.sqrt())
    return vx, vy, _added(pull * dx), _added(pull * dy)


def _pleiades_energy(state: State, masses: Masses) -> Tensor:
    x, y, vx, vy, m = _stars(state, masses)
    dx, dy = _separations(x), _separations(y)
    first, second = torch.triu_indices(_N_STARS, _N_STARS, offset=1, device=x.device)
    distance = (dx * dx + dy * dy)[..., first, second].sqrt()
    potential = (m[..., first] * m[..., second] / distance).sum(-1, keepdim=True)
    return 0.5 * (m * (vx * vx + vy * vy)).sum(-1, keepdim=True) - potential


def _pleiades_momentum(state: State, masses: Masses) -> Tensor:
    x, y, vx, vy, m = _stars(state, masses)
    return (m * (x * vy - y * vx)).sum(-1, keepdim=True)


@register
def pleiades(masses: Masses = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)) -> System:
    """Seven stars in the plane that pull at each other and nearly meet several times.

    ``x_i'' = sum over j of masses_j (x_j - x_i) / r_ij^3``, and so for ``y``; the state is all
    ``x``, all ``y``, then their rates in the same order. Energy and angular momentum are conserved.

    Args:
        masses: of the seven stars: a tuple, or a tensor ``[7]`` or ``[batch, 7]``.

    Raises:
        InputError: if there are not seven masses.

    Source:
        Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I (1993), section II.10;
        PLEI in Mazzia & Magherini, Test Set for Initial Value Problem Solvers (2008).

    Example:
        >>> system = pleiades()
        >>> system(0.0, torch.tensor(system.y0))[14:17]
        tensor([-2.9308, -0.5294,  0.4754])
    """
    shape = list(masses.shape) if isinstance(masses, Tensor) else [len(masses)]
    if shape[-1:] != [_N_STARS]:
        raise InputError(f"masses of pleiades have shape {shape}: give 7, or [batch, 7]")
    letters = ("x", "y", "vx", "vy")
    return System(
        name="pleiades",
        state_names=tuple(f"{letter}{i}" for letter in letters for i in range(1, 8)),
        constants={"masses": masses},
        y0=(
            *(3.0, 3.0, -1.0, -3.0, 2.0, -2.0, 2.0, 3.0, -3.0, 2.0, 0.0, 0.0, -4.0, 4.0),
            *(0.0, 0.0, 0.0, 0.0, 0.0, 1.75, -1.5, 0.0, 0.0, 0.0, -1.25, 1.0, 0.0, 0.0),
        ),
        span=(0.0, 3.0),
        description="Seven stars in the plane with near collisions.",
        reference="Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I (1993), "
        "section II.10; Mazzia & Magherini, Test Set for Initial Value Problem Solvers (2008)",
        derivative=_pleiades,
        conserved={"energy": _pleiades_energy, "angular momentum": _pleiades_momentum},
    )
