"""Which family of methods solves a call; what ``odeint`` and ``odeint_adjoint`` both stand on."""

import torch

from odeum.compat.torchdiffeq import adaptive, grid
from odeum.compat.torchdiffeq.adams import adams
from odeum.compat.torchdiffeq.call import Call
from odeum.compat.torchdiffeq.grid import EventFunction, GridStep
from odeum.compat.torchdiffeq.implicit import implicit
from odeum.compat.torchdiffeq.options import AdamsOptions, GridOptions, read
from odeum.compat.torchdiffeq.scipy import scipy_states
from odeum.errors import InputError
from odeum.types import Tensor


def states(call: Call) -> Tensor:
    """The states at the output times, [time, dim]."""
    if len(call.t) == 1:
        return torch.stack([call.y0])
    if call.method.family == "adaptive":
        return adaptive.states(call)
    if call.method.family == "scipy":
        return scipy_states(call)
    options = read(GridOptions, call.options)
    return grid.integrate(call, options, _step(call, options))


def states_until_event(call: Call, event: EventFunction) -> tuple[Tensor, Tensor]:
    """The time of an event, [], and the states at the start and there, [2, dim].

    No gradient reaches the time, and the last state is that at a constant time.
    """
    if bool(event(call.t[0].to(call.y0.dtype), call.y0) == 0):
        return call.t[0].detach(), torch.stack([call.y0, call.y0])
    if call.method.family == "adaptive":
        return adaptive.states_until_event(call, event)
    if call.method.family == "scipy":
        raise InputError("scipy_solver looks for no events: choose another method")
    options = read(GridOptions, call.options)
    return grid.integrate_until_event(call, options, _step(call, options), event)


def _step(call: Call, options: GridOptions) -> GridStep:
    if call.method.family == "adams":
        return adams(call, options, read(AdamsOptions, call.options))
    if call.method.family == "implicit":
        return implicit(call)
    return grid.runge_kutta(call, options)
