"""``odeint`` and ``odeint_dense``."""

from collections.abc import Callable
from typing import Any

import torch

from odeum.compat.torchdiffeq import adaptive
from odeum.compat.torchdiffeq.call import Func, prepare
from odeum.compat.torchdiffeq.layout import State
from odeum.compat.torchdiffeq.options import Options
from odeum.compat.torchdiffeq.signs import EventFn, check_event, first_of
from odeum.compat.torchdiffeq.solve import states, states_until_event
from odeum.errors import InputError
from odeum.types import Tensor


def odeint(
    func: Func,
    y0: State,
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Options | None = None,
    event_fn: EventFn | None = None,
) -> Any:
    """Solves ``dy/dt = func(t, y)`` from ``y0`` at ``t[0]``, differentiable through its steps.

    Args:
        func: ``func(t, y)``, with ``t`` 0-dimensional; may carry ``callback_step``,
            ``callback_accept_step`` and ``callback_reject_step``, called with ``(t, y, dt)``.
        y0: a tensor of any shape, real or complex, or a tuple of tensors.
        t: output times, [time], strictly increasing or decreasing.
        rtol: relative tolerance: a number, a tensor like ``y0``, or for a tuple one for each.
        atol: absolute tolerance, likewise.
        method: a name; "dopri5" where None.
        options: of the method; see ``odeum.compat.torchdiffeq.options``. Unread ones are warned
            of. ``norm`` makes a number of a state of scaled errors.
        event_fn: ``event_fn(t, y)``; the solve ends where the first of its elements is zero. Of
            ``t``, which holds two times, only the first and the direction are read then.

    Returns:
        The states at ``t``, each tensor [time, *shape]; with ``event_fn`` the time of the event
        and the states at ``t[0]`` and there. The time has no gradient: see ``odeint_event``.

    Raises:
        InputError: for an argument that cannot be used.
        SolveError: where a step fails.

    Example:
        >>> odeint(lambda t, y: -y, torch.ones(()), torch.linspace(0, 1, 3))
        tensor([1.0000, 0.6065, 0.3679])
    """
    if event_fn is not None:
        check_event(event_fn, t)
    call = prepare(func, y0, t, rtol, atol, method, options)
    if event_fn is None:
        return call.layout.unflatten(states(call))
    event = first_of(event_fn, call.layout, call.t[0], call.y0)
    event_t, ys = states_until_event(call, event)
    return event_t.to(call.t), call.layout.unflatten(ys)


def odeint_dense(
    func: Func,
    y0: State,
    t0: Tensor,
    t1: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Options | None = None,
) -> Callable[[Tensor], Any]:
    """Solves from ``t0`` to ``t1`` and returns the solution as a function of time.

    Args:
        func: as for :func:`odeint`.
        y0: likewise.
        t0: where ``y0`` holds, 0-dimensional.
        t1: where to end, 0-dimensional.
        rtol: as for :func:`odeint`.
        atol: likewise.
        method: any adaptive one; torchdiffeq knows dopri5 alone here.
        options: as for :func:`odeint`.

    Returns:
        A function of a time, [], or of times, [k], between the two: the state, with a leading
        axis ``k`` for several.

    Raises:
        InputError: for an argument that cannot be used, and for a time that is not between.
        SolveError: where a step fails.

    Example:
        >>> y = odeint_dense(lambda t, y: -y, torch.ones(()), torch.tensor(0.0), torch.tensor(1.0))
        >>> y(torch.tensor(0.5))
        tensor(0.6065)
    """
    t = torch.stack([torch.as_tensor(x).reshape(()) for x in (t0, t1)])
    call = prepare(func, y0, t, rtol, atol, method, options)
    if call.method.family != "adaptive":
        raise InputError(
            f"method {call.method.name!r} has no dense output here: choose one whose steps follow "
            "a tolerance, such as dopri5"
        )
    return adaptive.dense(call)
