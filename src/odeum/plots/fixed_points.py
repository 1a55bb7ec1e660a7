"""Fixed points of a field frozen at one time: found by Newton's method, classified by eigenvalues.

A point y* with f(t, y*) = 0 is named after its linearisation J = df/dy (Strogatz, Nonlinear
Dynamics and Chaos, ch. 6). Draws nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from odeum.plots.plane import Field, Limits, Plane, make_plane

KINDS = (
    "stable node",
    "stable focus",
    "unstable node",
    "unstable focus",
    "saddle",
    "centre",
    "degenerate",
)

_N_STARTS = 16
_N_ITERATIONS = 60
_MOST_DEGENERATE = 4


@dataclass(frozen=True)
class FixedPoint:
    """A state where the field vanishes.

    Attributes:
        y: the state, [dim].
        kind: one of ``stable node``, ``stable focus``, ``unstable node``, ``unstable focus``,
            ``saddle``, ``centre`` (of the linearisation) or ``degenerate`` (the linearisation does
            not decide).
        eigenvalues: of the Jacobian there, complex [dim], in units of 1/time.
    """

    y: torch.Tensor
    kind: str
    eigenvalues: torch.Tensor


def find_fixed_points(
    field: Field,
    xlim: Limits,
    ylim: Limits,
    *,
    at_t: float = 0.0,
    dims: tuple[int, int] = (0, 1),
    base: Sequence[float] | torch.Tensor | None = None,
) -> list[FixedPoint]:
    """The fixed points inside a window, by damped Newton iteration from a grid over it.

    With more than two components the search is in the whole state space, and only points that lie
    on the window (their other components equal to ``base``) count. A continuum of fixed points,
    told by more than four degenerate ones, is not listed.

    Args:
        field: called as ``field(t, y)`` with t [n, 1] and y [n, dim]; differentiable in y, its
            rows independent.
        xlim: limits of component ``dims[0]``.
        ylim: limits of component ``dims[1]``.
        at_t: the time at which the field is frozen.
        dims: the two components the window shows.
        base: [dim] the state the window passes through; None for a field of two components.

    Returns:
        The points, sorted by their first component, then the second.

    Raises:
        InputError: wrong limits or components, or a field that returns another shape.

    Source:
        Strogatz, Nonlinear Dynamics and Chaos (1994), ch. 6; Nocedal & Wright, Numerical
        Optimization (2006), 11.2 for the damping.

    Example:
        >>> def damped_pendulum(t, y):
        ...     angle, speed = y.unbind(-1)
        ...     return torch.stack([speed, -angle.sin() - 0.2 * speed], -1)
        >>> for point in find_fixed_points(damped_pendulum, (3, 7), (-2, 2)):
        ...     print(f"{point.y[0]:.3f}", point.kind)
        3.142 saddle
        6.283 stable focus
    """
    return fixed_points_in(make_plane(field, xlim, ylim, dims=dims, base=base, at_t=at_t))


def fixed_points_in(plane: Plane) -> list[FixedPoint]:
    """As :func:`find_fixed_points`, for a window already made."""
    states = plane.points(_N_STARTS)
    spans = _spans(plane, states)
    found = _newton(plane, states, spans)
    found = _distinct(_inside(plane, found, spans), spans)
    if not len(found):
        return []
    values = torch.linalg.eigvals(_jacobians(plane, found)).cpu()
    points = [FixedPoint(y, classify(row), row) for y, row in zip(found.cpu(), values, strict=True)]
    if sum(point.kind == "degenerate" for point in points) > _MOST_DEGENERATE:
        points = [point for point in points if point.kind != "degenerate"]
    return sorted(points, key=lambda point: [float(point.y[i]) for i in plane.dims])


def classify(eigenvalues: torch.Tensor) -> str:
    """The name of a fixed point with these eigenvalues.

    Real parts within the square root of machine epsilon of zero, relative to the largest
    eigenvalue, count as zero: as a centre where they belong to a complex pair, as degenerate
    elsewhere.

    Args:
        eigenvalues: complex [dim], in units of 1/time.

    Returns:
        One of the kinds that :class:`FixedPoint` lists.

    Example:
        >>> classify(torch.tensor([-1 + 2j, -1 - 2j])), classify(torch.tensor([-1 + 0j, 2 + 0j]))
        ('stable focus', 'saddle')
    """
    real, imaginary, size = eigenvalues.real, eigenvalues.imag, eigenvalues.abs()
    tolerance = torch.finfo(real.dtype).eps ** 0.5 * size.max()
    turns = imaginary.abs() > tolerance
    flat = real.abs() <= tolerance
    if (flat & ~turns).any():
        return "degenerate"
    if flat.any():
        return "centre" if flat.all() else "degenerate"
    if (real > 0).any() and (real < 0).any():
        return "saddle"
    shape = "focus" if turns.any() else "node"
    return f"{'stable' if real[0] < 0 else 'unstable'} {shape}"


def _spans(plane: Plane, states: torch.Tensor) -> torch.Tensor:
    """The window's sizes, [dim]: what counts as far for a component; their mean for the others."""
    sizes = [plane.xlim[1] - plane.xlim[0], plane.ylim[1] - plane.ylim[0]]
    spans = states.new_full((states.shape[1],), sum(sizes) / 2)
    spans[list(plane.dims)] = states.new_tensor(sizes)
    return spans


def _jacobians(plane: Plane, states: torch.Tensor) -> torch.Tensor:
    """df/dy at each of ``states`` [n, dim], as [n, dim, dim]; independent rows may be summed.

    Plain autograd rather than torch.func, which refuses older custom autograd functions.
    """
    with torch.enable_grad():
        y = states.detach().requires_grad_()
        rates = plane.field(plane.time(y), y).sum(0)
        if not rates.requires_grad:
            return y.new_zeros(len(y), len(rates), len(rates))
        gradients = [
            torch.autograd.grad(rate, y, retain_graph=True, materialize_grads=True)[0]
            for rate in rates
        ]
    return torch.stack(gradients, 1)


def _newton(plane: Plane, states: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
    """Damped Newton from every row of ``states``; returns the rows that converged.

    Steps are measured in ``spans``, at most half a window each, and halved until the rate falls.
    """
    precision = torch.finfo(states.dtype).eps
    rates = plane.rate(states)
    fastest = rates.norm(dim=-1).nan_to_num(0.0, 0.0).max()
    damping = states.new_ones(len(states), 1)
    size = states.new_full((len(states),), torch.inf)
    for _ in range(_N_ITERATIONS):
        healthy = rates.isfinite().all(-1)
        states, rates, damping = states[healthy], rates[healthy], damping[healthy]
        if not len(states):
            break
        jacobians = _jacobians(plane, states)
        healthy = jacobians.isfinite().all(-1).all(-1)
        states, rates, damping = states[healthy], rates[healthy], damping[healthy]
        # In units of the window: the pseudo-inverse then treats its two directions alike.
        inverse = torch.linalg.pinv(jacobians[healthy] * spans)
        step = -(inverse @ rates[..., None])[..., 0]
        size = step.norm(dim=-1)
        if (size <= 64 * precision).all():
            break
        step = step * (0.5 / size.clamp(min=0.5))[:, None]
        proposed = states + damping * step * spans
        proposed_rates = plane.rate(proposed)
        better = (proposed_rates.norm(dim=-1) < rates.norm(dim=-1))[:, None]
        states = torch.where(better, proposed, states)
        rates = torch.where(better, proposed_rates, rates)
        damping = torch.where(better, (2 * damping).clamp(max=1.0), 0.5 * damping)
    if not len(states):
        return states
    # A short step alone would also be taken where the Jacobian vanishes and the field does not.
    still = rates.norm(dim=-1) <= precision**0.5 * fastest
    return states[still & (size <= precision**0.5)]


def _inside(plane: Plane, states: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
    """The rows on the window, its border included."""
    slack = 1e-3 * spans
    low, high = plane.base - slack, plane.base + slack
    for i, limits in zip(plane.dims, (plane.xlim, plane.ylim), strict=True):
        low[i], high[i] = limits[0] - 1e-6 * spans[i], limits[1] + 1e-6 * spans[i]
    return states[((states >= low) & (states <= high)).all(-1)]


def _distinct(states: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
    """One row for each cluster closer than a thousandth of the window."""
    kept: list[torch.Tensor] = []
    for state in states:
        if all(((state - other) / spans).abs().max() > 1e-3 for other in kept):
            kept.append(state)
    return torch.stack(kept) if kept else states[:0]
