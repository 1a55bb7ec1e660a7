"""``odeint_event``: an event's time and state, both differentiable."""

from collections.abc import Callable
from typing import Any

import torch

from odeum.compat.torchdiffeq.call import Func
from odeum.compat.torchdiffeq.layout import State, layout_of
from odeum.compat.torchdiffeq.odeint import odeint
from odeum.compat.torchdiffeq.signs import EventFn
from odeum.types import Tensor


def odeint_event(
    func: Func,
    y0: State,
    t0: Tensor,
    *,
    event_fn: EventFn,
    reverse_time: bool = False,
    odeint_interface: Callable[..., Any] = odeint,
    **kwargs: Any,
) -> tuple[Tensor, Any]:
    """Solves from ``t0`` until an event; gradients flow through its time.

    With ``c(t, y) = 0`` at the event, the implicit function theorem gives the time's gradient
    ``-dc / (c_t + c_y f)``, to the state, and to whatever ``event_fn`` reads.

    Args:
        func: as for :func:`odeint`.
        y0: likewise.
        t0: where ``y0`` holds, 0-dimensional or [1].
        event_fn: ``event_fn(t, y)``, of any shape: the event is the first zero of an element.
        reverse_time: whether to look back in time.
        odeint_interface: what solves, called as ``odeint(func, y0, t, event_fn=..., **kwargs)``,
            such as ``odeint_adjoint``.
        **kwargs: handed to it.

    Returns:
        The time of the event, [], and the states at ``t0`` and there, each tensor [2, *shape].

    Raises:
        InputError: for an argument that cannot be used.
        SolveError: where a step fails or no event comes.

    Source:
        Chen, Amos & Nickel, Learning Neural Event Functions for Ordinary Differential Equations
        (2021).

    Example:
        >>> fall = odeint_event(
        ...     lambda t, y: torch.stack([y[1], torch.tensor(-9.8)]),
        ...     torch.tensor([4.9, 0.0]), torch.tensor(0.0), event_fn=lambda t, y: y[0], atol=1e-8)
        >>> round(float(fall[0]), 4)
        1.0
    """
    t0 = t0.reshape(-1)
    t = torch.cat([t0, t0.detach() + (-1.0 if reverse_time else 1.0)])
    event_t, solution = odeint_interface(func, y0, t, event_fn=event_fn, **kwargs)
    layout = layout_of(y0)
    trajectory = torch.stack([layout.flatten(_at(solution, i)) for i in (0, -1)])
    start, y = trajectory[0], trajectory[-1]
    event_t = event_t.detach().to(y.dtype)
    with torch.no_grad():
        slope = layout.flatten_derivative(func(event_t, layout.unflatten(y)))
        fired = _which_fired(event_fn, t[0], layout.unflatten(start), event_t, layout.unflatten(y))

    def change(t: Tensor, y: Tensor) -> Tensor:
        return event_fn(t, layout.unflatten(y)).reshape(-1)[fired]

    with torch.enable_grad():
        inputs = event_t.clone().requires_grad_(), y.detach().requires_grad_()
        c_t, c_y = torch.autograd.grad(
            change(*inputs), inputs, allow_unused=True, materialize_grads=True
        )
    rate = c_t + c_y @ slope
    crossing = change(event_t, y)
    # Values stay as they were found; only gradients are added.
    event_t = event_t - (crossing - crossing.detach()) / rate
    y = y + slope * (event_t - event_t.detach())
    return event_t.to(t.dtype), layout.unflatten(torch.stack([start, y]))


def _at(solution: Any, i: int) -> Any:
    return tuple(x[i] for x in solution) if isinstance(solution, tuple) else solution[i]


def _which_fired(event_fn: EventFn, t0: Tensor, start: Any, t: Tensor, y: Any) -> int:
    """The element of the event function that is the event."""
    signs = torch.sign(event_fn(t0, start))
    return int(torch.argmin(event_fn(t, y) * signs))
