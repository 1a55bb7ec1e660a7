"""Who looks on while the loop steps: the search for an event, the user's callbacks."""

from functools import partial

import torch

from odeum.compat.torchdiffeq.call import Call
from odeum.compat.torchdiffeq.grid import EventFunction, bisect
from odeum.eager.field import RowField
from odeum.eager.ledger import HANDED_OVER
from odeum.eager.outputs import Segments
from odeum.eager.records import Marks, Record, Sighting
from odeum.eager.stepper import Memory, Step, Stepper
from odeum.solution import Status
from odeum.types import Tensor


class EndsAtEvent:
    """Ends the one row of a solve inside the step in which a function stops being positive.

    Args:
        event: the function.
        atol: how closely its zero is found, in units of time.
    """

    looks_inside = True

    def __init__(self, event: EventFunction, atol: float) -> None:
        self._event = event
        self._atol = atol

    def look(
        self, field: RowField, step: Step, segments: Segments, y1: Tensor, status: Tensor
    ) -> Sighting:
        """Looks at the end of the step, and for the zero inside it."""
        t, t1 = step.t.detach().squeeze(), segments.t1.detach().squeeze()
        with torch.no_grad():
            goes_on = bool(t1 == t) or bool(self._event(t1.to(y1.dtype), y1.squeeze(0)) > 0)
        if goes_on:
            return Sighting(segments.t1, status, None)
        time = bisect(partial(self._along, segments), t, t1, self._atol).reshape(1)
        first = torch.zeros(1, dtype=torch.int64, device=time.device)
        ended = torch.full_like(status, Status.EVENT)
        return Sighting(time.unsqueeze(-1), ended, Marks(first, time, first))

    def _along(self, segments: Segments, t: Tensor) -> Tensor:
        y = segments.evaluate(torch.zeros(1, dtype=torch.int64, device=t.device), t.reshape(1))
        return self._event(t.to(y.dtype), y.squeeze(0))


class GoesOn:
    """Hands a row that has come to the end of its leg on to the next."""

    looks_inside = False

    def look(
        self, field: RowField, step: Step, segments: Segments, y1: Tensor, status: Tensor
    ) -> Sighting:
        """Where the row has arrived."""
        arrived = status == Status.SUCCESS
        return Sighting(segments.t1, status.masked_fill(arrived, HANDED_OVER), None)


class TellsCallbacks:
    """Takes steps as they are, and tells the user's callbacks of them.

    Args:
        call: whose callbacks.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    def step(
        self,
        stepper: Stepper,
        field: RowField,
        t: Tensor,
        h: Tensor,
        y: Tensor,
        k0: Tensor,
        memory: Memory,
    ) -> Step:
        """Tries one step."""
        self._call.tell("callback_step", t.squeeze(), y.squeeze(0), h.squeeze())
        return stepper.step(field, t, h, y, k0, memory)

    def end_derivative(self, field: RowField, t1: Tensor, y1: Tensor) -> Tensor:
        """``f(t1, y1)``."""
        return field(t1.to(y1.dtype), y1)

    def add(self, record: Record) -> None:
        """Whether the last step stands."""
        stands = record.accept is None or bool(record.accept)
        name = "callback_accept_step" if stands else "callback_reject_step"
        self._call.tell(name, record.t.squeeze(), record.y.squeeze(0), record.h.squeeze())
