"""Methods that step on a grid: one step an interval, outputs interpolated between its points.

Knows grids, interpolation and the search for an event on it; what makes a step is handed in.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch

from odeum.compat.torchdiffeq.call import Call, FlatField
from odeum.compat.torchdiffeq.errors import ArgumentError
from odeum.compat.torchdiffeq.options import GridOptions
from odeum.eager.explicit import stepper
from odeum.errors import SolveError
from odeum.tableaus import EXPLICIT
from odeum.types import Tensor

GridStep = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(t0 [], t1 [], y0 [dim]) -> (y1 [dim], f(t0, y0) [dim])``."""

EventFunction = Callable[[Tensor, Tensor], Tensor]
"""``(t [], y [dim]) -> []``, which changes its sign at an event."""

MAX_EVENT_STEPS = 20_000


def runge_kutta(call: Call, options: GridOptions) -> GridStep:
    """The step of an explicit Runge-Kutta method."""
    made = stepper(EXPLICIT[call.method.tableau], call.y0.dtype, call.y0.device)
    field = call.row_field()

    def step(t0: Tensor, t1: Tensor, y0: Tensor) -> tuple[Tensor, Tensor]:
        inside = call.row_field(perturbed(call, t0, t1)) if options.perturb else field
        t, h, y = t0.reshape(1, 1), (t1 - t0).reshape(1, 1), y0.unsqueeze(0)
        k0 = inside(t.to(y.dtype), y)
        return made.step(inside, t, h, y, k0).y1.squeeze(0), k0.squeeze(0)

    return step


def perturbed(call: Call, t0: Tensor, t1: Tensor) -> FlatField:
    """The field of a step from ``t0`` to ``t1``, evaluated strictly between the two.

    Where the field jumps at a point of the grid, each step then sees its own side of the jump.
    """
    t0, t1 = (t.detach().to(call.y0.dtype) for t in (t0, t1))
    lowest, highest = sorted((torch.nextafter(t0, t1), torch.nextafter(t1, t0)))

    def field(t: Tensor, y: Tensor) -> Tensor:
        nudge = t.detach().clamp(lowest, highest) - t.detach()
        return call.field(t + nudge, y)

    return field


def integrate(call: Call, options: GridOptions, step: GridStep) -> Tensor:
    """The states at the output times, [time, dim].

    Raises:
        InputError: where the grid does not begin and end with the output times.
    """
    grid = _grid(call, options)
    direction = call.direction
    # Compared as numbers: a tensor's comparison costs as much as a stage.
    points, wanted = ((direction * x.detach()).tolist() for x in (grid, call.t))
    states, y = [call.y0], call.y0
    for i, (t0, t1) in enumerate(pairwise(grid)):
        call.tell("callback_step", t0, y, t1 - t0)
        y1, f0 = step(t0, t1, y)
        f1 = None
        while len(states) < len(wanted) and points[i + 1] >= wanted[len(states)]:
            time = wanted[len(states)]
            if time == points[i + 1]:
                states.append(y1)
                continue
            if options.interp == "cubic" and f1 is None:
                f1 = call.field(t1.to(y1.dtype), y1)
            states.append(between(t0, t1, y, y1, f0, f1, call.t[len(states)]))
        y = y1
    return torch.stack(states)


def between(
    t0: Tensor, t1: Tensor, y0: Tensor, y1: Tensor, f0: Tensor, f1: Tensor | None, t: Tensor
) -> Tensor:
    """The state at ``t`` on the line through the ends of a step, or on the cubic given ``f1``."""
    h = t1 - t0
    theta = (t - t0) / h
    if f1 is None:
        return torch.lerp(y0, y1, theta.to(y0.dtype))
    theta, h, rest = (x.to(y0.dtype) for x in (theta, h, 1 - theta))
    at_ends = (1 + 2 * theta) * rest**2 * y0 + theta**2 * (3 - 2 * theta) * y1
    return at_ends + h * theta * rest * (rest * f0 - theta * f1)


def _grid(call: Call, options: GridOptions) -> Tensor:
    t = call.t
    if options.grid_constructor is not None:
        grid = options.grid_constructor(*_as_the_user_sees(call), t)
    elif options.step_size is not None:
        grid = _evenly(t, options.step_size, call.direction)
    else:
        return t
    if not bool((grid[0] == t[0]) & (grid[-1] == t[-1])):
        raise ArgumentError(
            f"grid_constructor gave a grid from {float(grid[0]):g} to {float(grid[-1]):g}: it must "
            f"begin and end with the output times, {float(t[0]):g} and {float(t[-1]):g}"
        )
    return grid


def _evenly(t: Tensor, step_size: float | Tensor, direction: int) -> Tensor:
    span = (t[-1] - t[0]).detach().abs()
    n_points = int(torch.ceil(span / step_size + 1))
    inner = torch.arange(n_points - 1, dtype=t.dtype, device=t.device)
    return torch.cat([inner * (direction * step_size) + t[0], t[-1:]])


def _as_the_user_sees(call: Call) -> tuple[Callable[..., Tensor], Tensor]:
    """Field and initial state; those of a tuple flat, as torchdiffeq hands them on."""
    if call.layout.is_tuple:
        return call.field, call.y0

    def func(t: Tensor, y: Tensor) -> Tensor:
        return call.layout.unflatten(call.field(t, call.layout.flatten(y)))  # type: ignore[return-value]

    return func, call.layout.unflatten(call.y0)  # type: ignore[return-value]


def integrate_until_event(
    call: Call, options: GridOptions, step: GridStep, event: EventFunction
) -> tuple[Tensor, Tensor]:
    """The time of an event, [], and the states at the start and there, [2, dim].

    Raises:
        InputError: without a step size.
        SolveError: where the event has not come after 20 000 steps.
    """
    if options.step_size is None:
        raise ArgumentError(
            f"method {call.method.name!r} looks for an event step by step: "
            'pass its size, options={"step_size": ...}'
        )
    t0, y0 = call.t[0].to(call.y0.dtype), call.y0
    sign0 = torch.sign(event(t0, y0))
    for _ in range(MAX_EVENT_STEPS):
        t1 = t0 + call.direction * options.step_size
        y1, f0 = step(t0, t1, y0)
        if bool(torch.sign(event(t1, y1)) != sign0):
            f1 = call.field(t1, y1) if options.interp == "cubic" else None
            inside = partial(between, t0, t1, y0, y1, f0, f1)
            time = bisect(partial(_along, event, inside), t0, t1, call.smallest_atol)
            return time, torch.stack([call.y0, inside(time)])
        t0, y0 = t1, y1
    raise SolveError(
        f"no event came within {MAX_EVENT_STEPS} steps of {float(options.step_size):g}, up to "
        f"t = {float(t0):g}: take larger steps, or look whether event_fn changes its sign"
    )


def _along(event: EventFunction, state: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    return event(t, state(t))


@torch.no_grad()
def bisect(event: Callable[[Tensor], Tensor], t0: Tensor, t1: Tensor, atol: float) -> Tensor:
    """Where a function of time, [], that changes its sign between two times does so.

    Example:
        >>> bisect(lambda t: t - 0.3, torch.tensor(0.0), torch.tensor(1.0), 1e-2)
        tensor(0.3008)
    """
    sign0 = torch.sign(event(t0))
    finest = max(atol, float(torch.finfo(t0.dtype).eps))
    for _ in range(max(0, math.ceil(math.log2(max(1.0, float((t1 - t0).abs()) / finest))))):
        middle = (t0 + t1) / 2
        if bool(torch.sign(event(middle)) == sign0):
            t0 = middle
        else:
            t1 = middle
    return (t0 + t1) / 2
