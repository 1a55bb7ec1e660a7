"""Several event functions as one: positive at the start, its zero the first of all their zeros."""

from collections.abc import Callable
from typing import Any

import torch

from odeum.compat.torchdiffeq.grid import EventFunction
from odeum.compat.torchdiffeq.layout import Layout
from odeum.errors import InputError
from odeum.types import Tensor

EventFn = Callable[[Tensor, Any], Tensor]


def check_event(event_fn: EventFn, t: Tensor) -> None:
    """Raises InputError where a call with an event cannot be meant."""
    if not callable(event_fn):
        raise InputError(f"event_fn is a {type(event_fn).__name__}: give a function of (t, y)")
    if len(t) != 2:
        raise InputError(
            f"t holds {len(t)} times: with event_fn give two, the start and any time on the side "
            "to look for the event"
        )


def first_of(event_fn: EventFn, layout: Layout, t0: Tensor, y0: Tensor) -> EventFunction:
    """The smallest element of ``event_fn``, each with the sign that makes it positive at the start.

    Args:
        event_fn: the user's, of any shape.
        layout: of the state.
        t0: the start, [].
        y0: the state there, [dim].

    Returns:
        A function of time, [], and state, [dim], with values [].
    """
    with torch.no_grad():
        signs = torch.sign(event_fn(t0, layout.unflatten(y0)))

    def first(t: Tensor, y: Tensor) -> Tensor:
        return (event_fn(t, layout.unflatten(y)) * signs).min()

    return first
