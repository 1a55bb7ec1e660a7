"""Trajectories sampled from a system: noisy, at irregular times, with holes; the same for one seed.

Owns the random choices. The solving is `odeum.solve`'s, the systems are `odeum.systems`'.
"""

from collections.abc import Sequence
from typing import Any

import torch

from odeum.api import solve
from odeum.datasets.trajectories import Trajectories, Trajectory
from odeum.errors import InputError
from odeum.systems import System
from odeum.types import Field, Tensor


def sample(
    system: System | Field,
    y0: Tensor | Sequence[float] | None = None,
    ts: Tensor | Sequence[float] | None = None,
    *,
    n_trajectories: int = 1,
    n_times: int = 100,
    noise: float | Sequence[float] = 0.0,
    irregular: bool = False,
    missing: float = 0.0,
    spread: float = 0.2,
    seed: int = 0,
    args: Any = None,
    method: str = "dopri5",
    rtol: float = 1e-8,
    atol: float = 1e-8,
) -> Trajectories:
    """Solve a system from one or several starts and observe it imperfectly.

    Draws from a generator of its own, in a fixed order: the same arguments give the same data, and
    starts, times, noise and holes do not change when one of the others is turned on.

    Args:
        system: what to observe, a `System` or any field of float64 states ``[batch, dim]``.
        y0: where to start, ``[dim]``, or one start per trajectory, ``[n_trajectories, dim]``; the
            system's default if None.
        ts: times, ``[time]``, strictly increasing, ``y0`` holding at the first; ``n_times`` evenly
            spaced over the system's default span if None.
        n_trajectories: how many, unless ``y0`` has one start for each.
        n_times: how many times, where ``ts`` is None.
        noise: standard deviation of the Gaussian noise added to every cell, in units of the
            state; one number or one per component.
        irregular: whether every trajectory has times of its own, drawn uniformly between the
            first and the last, which it keeps.
        missing: probability, in [0, 1), of a cell being empty; the first row is always complete.
        spread: how far the starts lie from ``y0`` where one serves several trajectories: each
            component uniform within this fraction of its size (of the largest component where it
            is 0). The first trajectory starts at ``y0`` itself.
        seed: of the generator.
        args: handed to the field unchanged.
        method: of `odeum.solve`.
        rtol: relative tolerance of the solve.
        atol: absolute tolerance of the solve, in units of the state.

    Returns:
        The trajectories, named "1", "2", ... in the group column "trajectory"; a single one bears
        the name of its system.

    Raises:
        InputError: if ``y0`` or ``ts`` is missing for a field that is no `System`, shapes do not
            fit, times do not increase, or a number is outside its range.
        SolveError: if a trajectory cannot be solved.

    Example:
        >>> from odeum.systems import spiral
        >>> data = sample(spiral(), n_trajectories=3, n_times=50, noise=0.02, missing=0.1, seed=1)
        >>> len(data), data.state_names, len(data.trajectories[0])
        (3, ('x', 'y'), 50)
    """
    for name, value in (("missing", missing), ("spread", spread)):
        if not 0 <= value < 1:
            raise InputError(f"{name} must be at least 0 and less than 1, got {value}")
    if n_trajectories < 1:
        raise InputError(f"n_trajectories must be at least 1, got {n_trajectories}")
    generator = torch.Generator().manual_seed(seed)
    starts = _starts(system, y0, n_trajectories, spread, generator)
    batch, dim = starts.shape
    times = _times(system, ts, n_times, batch, irregular, generator)
    deviation = torch.as_tensor(noise, dtype=torch.float64)
    if deviation.shape not in ((), (dim,)) or not (deviation >= 0).all():
        raise InputError(
            f"noise must be one number >= 0 or one for each of {dim} states, got {noise}"
        )

    with torch.no_grad():
        ys = solve(
            system,
            starts,
            times if irregular else times[:, 0],
            args=args,
            method=method,
            rtol=rtol,
            atol=atol,
            gradient="none",
        ).ys
    ys = ys + deviation * torch.randn(ys.shape, generator=generator, dtype=torch.float64)
    holes = torch.rand(ys.shape, generator=generator, dtype=torch.float64) < missing
    holes[0] = False
    ys = ys.masked_fill(holes, float("nan"))

    if isinstance(system, System):
        name, state_names = system.name, system.state_names
    else:
        name, state_names = "sample", tuple(f"y{i}" for i in range(dim))
    names = [str(i + 1) for i in range(batch)] if batch > 1 else [name]
    trajectories = tuple(
        Trajectory(names[i], times[:, i].clone(), ys[:, i].clone()) for i in range(batch)
    )
    return Trajectories(trajectories, "t", state_names, "trajectory" if batch > 1 else None, name)


def _starts(
    system: System | Field,
    y0: Tensor | Sequence[float] | None,
    n_trajectories: int,
    spread: float,
    generator: torch.Generator,
) -> Tensor:
    """The initial states, [batch, dim]."""
    if y0 is None:
        if not isinstance(system, System):
            raise InputError("a field that is no System has no default y0: give y0 [dim]")
        y0 = system.y0
    centre = torch.as_tensor(y0, dtype=torch.float64)
    if centre.ndim == 2 and n_trajectories in (1, len(centre)):
        return centre
    if centre.ndim != 1:
        raise InputError(
            f"y0 must be [dim], or [n_trajectories, dim] with n_trajectories = {n_trajectories}; "
            f"got shape {list(centre.shape)}"
        )
    size = torch.where(centre == 0, centre.abs().max(), centre.abs())
    shape = (n_trajectories, len(centre))
    offsets = 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
    offsets[0] = 0
    return centre + spread * size * offsets


def _times(
    system: System | Field,
    ts: Tensor | Sequence[float] | None,
    n_times: int,
    batch: int,
    irregular: bool,
    generator: torch.Generator,
) -> Tensor:
    """The times of every trajectory, [time, batch]."""
    if ts is None:
        if not isinstance(system, System):
            raise InputError("a field that is no System has no default span: give ts [time]")
        if n_times < 2:
            raise InputError(f"n_times must be at least 2, got {n_times}")
        ts = torch.linspace(*system.span, n_times, dtype=torch.float64)
    shared = torch.as_tensor(ts, dtype=torch.float64)
    if shared.ndim != 1 or len(shared) < 2 or not (shared.diff() > 0).all():
        raise InputError(
            f"ts must be [time], at least 2 strictly increasing times; got {shared.tolist()}"
        )
    times = shared[:, None].repeat(1, batch)
    # Drawn even when unused, so that the noise drawn after them stays the same.
    drawn = torch.rand((len(shared) - 2, batch), generator=generator, dtype=torch.float64)
    if irregular:
        times[1:-1] = shared[0] + (shared[-1] - shared[0]) * drawn.sort(dim=0).values
    return times
