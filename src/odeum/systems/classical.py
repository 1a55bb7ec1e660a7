"""The classical systems: for each its equations, then one registered factory.

To add one, write its derivative on components and a factory under ``@register``, and re-export it
in ``__init__``. Nothing here knows of solvers or plots.
"""

from typing import Any

import torch

from odeum.errors import InputError
from odeum.systems.system import Constant, State, System, register
from odeum.types import Tensor

Matrix = tuple[tuple[float, float], tuple[float, float]] | Tensor


def _entry(a: Matrix, i: int, j: int) -> Any:
    return a[..., i, j, None] if isinstance(a, Tensor) else a[i][j]


def _spiral(t: Tensor, state: State, a: Matrix) -> State:
    # Entry by entry, not as a matrix product: pointwise operations give every row of a batch the
    # same bits whatever the batch size.
    x, y = state
    return (
        _entry(a, 0, 0) * x + _entry(a, 0, 1) * y,
        _entry(a, 1, 0) * x + _entry(a, 1, 1) * y,
    )


def _spiral_solution(t: Tensor, y0: Tensor, a: Matrix) -> Tensor:
    a = torch.as_tensor(a, dtype=y0.dtype, device=y0.device)
    t = torch.as_tensor(t, dtype=y0.dtype, device=y0.device)
    t = t.reshape(t.shape + (1,) * (y0.ndim - t.ndim))
    return (torch.linalg.matrix_exp(a * t[..., None, None]) @ y0[..., None]).squeeze(-1)


@register
def spiral(a: Matrix = ((-0.1, -1.0), (1.0, -0.1))) -> System:
    """Linear plane spiral, ``dy/dt = A y`` with ``y`` a column (``y @ A.T`` for a batch of rows).

    Args:
        a: the matrix ``A`` in rows: nested sequences, or a tensor ``[2, 2]`` or ``[batch, 2, 2]``;
            unit 1/time.

    Raises:
        InputError: if ``a`` is not 2 x 2.

    Source:
        Hirsch, Smale & Devaney, Differential Equations, Dynamical Systems, and an Introduction to
        Chaos (2013), chapter 3; exact solution ``expm(A t) y0``.

    Example:
        >>> spiral()(0.0, torch.tensor([2.0, 0.0]))
        tensor([-0.2000,  2.0000])
    """
    if not isinstance(a, Tensor):
        rows = tuple(tuple(row) for row in a)
        if [len(row) for row in rows] != [2, 2]:
            raise InputError(f"constant 'a' of spiral must be a 2 x 2 matrix, got {a!r}")
        a = ((rows[0][0], rows[0][1]), (rows[1][0], rows[1][1]))
    elif a.shape[-2:] != (2, 2):
        raise InputError(f"constant 'a' of spiral must be a 2 x 2 matrix, got {list(a.shape)}")
    return System(
        name="spiral",
        state_names=("x", "y"),
        constants={"a": a},
        y0=(2.0, 0.0),
        span=(0.0, 25.0),
        description="A linear system in the plane whose solutions wind into the origin.",
        reference="Hirsch, Smale & Devaney, Differential Equations, Dynamical Systems, and an "
        "Introduction to Chaos (2013)",
        derivative=_spiral,
        solution=_spiral_solution,
    )


def _lorenz(t: Tensor, state: State, sigma: Constant, rho: Constant, beta: Constant) -> State:
    x, y, z = state
    return sigma * (y - x), x * (rho - z) - y, x * y - beta * z


@register
def lorenz(sigma: Constant = 10.0, rho: Constant = 28.0, beta: Constant = 8.0 / 3.0) -> System:
    """Lorenz's convection model, chaotic at the default constants.

    ``x' = sigma (y - x)``, ``y' = x (rho - z) - y``, ``z' = x y - beta z``

    Args:
        sigma: Prandtl number.
        rho: Rayleigh number over its critical value.
        beta: geometric factor.

    Source:
        Lorenz, Deterministic nonperiodic flow, J. Atmos. Sci. 20 (1963), equations 25-27.

    Example:
        >>> lorenz()(0.0, torch.tensor([1.0, 1.0, 1.0]))
        tensor([ 0.0000, 26.0000, -1.6667])
    """
    return System(
        name="lorenz",
        state_names=("x", "y", "z"),
        constants={"sigma": sigma, "rho": rho, "beta": beta},
        y0=(1.0, 1.0, 1.0),
        span=(0.0, 20.0),
        description="Convection in a fluid layer heated from below: the butterfly attractor.",
        reference="Lorenz, Deterministic nonperiodic flow, J. Atmos. Sci. 20 (1963)",
        derivative=_lorenz,
    )


def _lotka_volterra(
    t: Tensor, state: State, alpha: Constant, beta: Constant, delta: Constant, gamma: Constant
) -> State:
    prey, predator = state
    meetings = prey * predator
    return alpha * prey - beta * meetings, delta * meetings - gamma * predator


def _lotka_volterra_invariant(
    state: State, alpha: Constant, beta: Constant, delta: Constant, gamma: Constant
) -> Tensor:
    prey, predator = state
    return delta * prey - gamma * prey.log() + beta * predator - alpha * predator.log()


@register
def lotka_volterra(
    alpha: Constant = 1.5, beta: Constant = 1.0, delta: Constant = 1.0, gamma: Constant = 3.0
) -> System:
    """Predator and prey, on closed orbits around ``(gamma / delta, alpha / beta)``.

    ``prey' = alpha prey - beta prey predator``,
    ``predator' = delta prey predator - gamma predator``; conserved for positive states is
    ``delta prey - gamma log(prey) + beta predator - alpha log(predator)``.

    Args:
        alpha: growth rate of the prey, 1/time.
        beta: prey eaten per predator and prey, 1/time.
        delta: predators born per predator and prey, 1/time.
        gamma: death rate of the predators, 1/time.

    Source:
        Lotka, Elements of Physical Biology (1925); Volterra, Fluctuations in the abundance of a
        species considered mathematically, Nature 118 (1926).

    Example:
        >>> lotka_volterra()(0.0, torch.tensor([3.0, 1.5]))
        tensor([0., 0.])
    """
    return System(
        name="lotka_volterra",
        state_names=("prey", "predator"),
        constants={"alpha": alpha, "beta": beta, "delta": delta, "gamma": gamma},
        y0=(1.0, 1.0),
        span=(0.0, 10.0),
        description="Two species, one eating the other, rising and falling in turn for ever.",
        reference="Lotka, Elements of Physical Biology (1925); Volterra, Nature 118 (1926)",
        derivative=_lotka_volterra,
        conserved={"log-population balance": _lotka_volterra_invariant},
    )


def _pendulum(
    t: Tensor, state: State, gravity: Constant, length: Constant, damping: Constant
) -> State:
    angle, velocity = state
    return velocity, -gravity / length * angle.sin() - damping * velocity


def _pendulum_energy(
    state: State, gravity: Constant, length: Constant, damping: Constant
) -> Tensor:
    angle, velocity = state
    return 0.5 * (length * velocity) ** 2 + gravity * length * (1 - angle.cos())


@register
def pendulum(gravity: Constant = 9.81, length: Constant = 1.0, damping: Constant = 0.0) -> System:
    """Rigid pendulum swinging in a plane; without damping its energy is conserved.

    ``angle' = velocity``, ``velocity' = -gravity / length sin(angle) - damping velocity``; the
    energy per mass is ``(length velocity)^2 / 2 + gravity length (1 - cos(angle))``.

    Args:
        gravity: acceleration of gravity, m/s^2.
        length: from pivot to bob, m.
        damping: friction rate, 1/s. Only the number 0 leaves an invariant: a tensor may come to
            hold another value.

    Source:
        Strogatz, Nonlinear Dynamics and Chaos (2015), section 6.7.

    Example:
        >>> pendulum(gravity=10.0, length=2.0)(0.0, torch.tensor([torch.pi / 2, 1.0]))
        tensor([ 1., -5.])
    """
    undamped = not isinstance(damping, Tensor) and damping == 0
    return System(
        name="pendulum",
        state_names=("angle", "velocity"),
        constants={"gravity": gravity, "length": length, "damping": damping},
        y0=(1.5, 0.0),
        span=(0.0, 10.0),
        description="A rigid pendulum under gravity, swinging or turning over.",
        reference="Strogatz, Nonlinear Dynamics and Chaos (2015), section 6.7",
        derivative=_pendulum,
        conserved={"energy": _pendulum_energy} if undamped else {},
    )


def _van_der_pol(t: Tensor, state: State, mu: Constant) -> State:
    x, v = state
    return v, mu * (1 - x * x) * v - x


@register
def van_der_pol(mu: Constant = 1.0) -> System:
    """Van der Pol's oscillator: every solution ends on one limit cycle; stiff for large ``mu``.

    ``x' = v``, ``v' = mu (1 - x^2) v - x``. Its period grows as ``(3 - 2 log 2) mu``. The other
    usual form, ``z' = ((1 - x^2) z - x) / epsilon`` with ``x' = z``, is this one at
    ``epsilon = 1 / mu^2``, in the time ``t / mu`` and with ``z = mu v``: VDPOL at epsilon = 1e-6
    and t = 2 is ``mu = 1e3`` at t = 2000.

    Args:
        mu: strength of the nonlinear damping, dimensionless.

    Source:
        van der Pol, On relaxation-oscillations, Philosophical Magazine 2 (1926); VDPOL in Mazzia
        & Magherini, Test Set for Initial Value Problem Solvers (2008).

    Example:
        >>> van_der_pol(mu=5.0)(0.0, torch.tensor([2.0, 1.0]))
        tensor([  1., -17.])
    """
    return System(
        name="van_der_pol",
        state_names=("x", "v"),
        constants={"mu": mu},
        y0=(2.0, 0.0),
        span=(0.0, 20.0),
        description="A self-exciting electrical oscillator with a single limit cycle.",
        reference="van der Pol, On relaxation-oscillations, Philosophical Magazine 2 (1926)",
        derivative=_van_der_pol,
    )


def _rigid_body(t: Tensor, state: State, a1: Constant, a2: Constant, a3: Constant) -> State:
    x, y, z = state
    return a1 * y * z, a2 * x * z, a3 * x * y


def _first_quadric(state: State, a1: Constant, a2: Constant, a3: Constant) -> Tensor:
    return a2 * state[0] * state[0] - a1 * state[1] * state[1]


def _second_quadric(state: State, a1: Constant, a2: Constant, a3: Constant) -> Tensor:
    return a3 * state[1] * state[1] - a2 * state[2] * state[2]


@register
def rigid_body(a1: Constant = 1.0, a2: Constant = -1.0, a3: Constant = -0.51) -> System:
    """Euler's equations of a body that turns freely about its centre of mass.

    ``x' = a1 y z``, ``y' = a2 z x``, ``z' = a3 x y``; conserved are ``a2 x^2 - a1 y^2`` and
    ``a3 y^2 - a2 z^2``, which fix energy and angular momentum. From the default start the
    solution at the default constants is ``(sn(t), cn(t), dn(t))``, Jacobi's elliptic functions of
    parameter ``m = 0.51``. For moments of inertia ``I`` and the angular velocity as the state,
    ``a1 = (I2 - I3) / I1``, and so on around.

    Args:
        a1: coefficient of the first component, 1/time for a dimensionless state.
        a2: of the second.
        a3: of the third.

    Source:
        Krogh's problem, B5 in Hull, Enright, Fellen & Sedgwick, Comparing numerical methods for
        ordinary differential equations, SIAM J. Numer. Anal. 9 (1972).

    Example:
        >>> rigid_body()(0.0, torch.tensor([1.0, 2.0, 3.0]))
        tensor([ 6.0000, -3.0000, -1.0200])
    """
    return System(
        name="rigid_body",
        state_names=("x", "y", "z"),
        constants={"a1": a1, "a2": a2, "a3": a3},
        y0=(0.0, 1.0, 1.0),
        span=(0.0, 20.0),
        description="A free body tumbling about its centre of mass.",
        reference="Hull, Enright, Fellen & Sedgwick, SIAM J. Numer. Anal. 9 (1972), problem B5",
        derivative=_rigid_body,
        conserved={"first quadric": _first_quadric, "second quadric": _second_quadric},
    )
