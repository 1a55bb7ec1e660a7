"""The methods whose steps follow a tolerance: odeum's loop, led as torchdiffeq leads its own.

The span is solved in legs. A leg ends at a time that a step is to land on, where the field may
jump: each leg sees its own side of the jump. In search of an event legs grow until it has come.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from odeum.compat.torchdiffeq.call import Call
from odeum.compat.torchdiffeq.control import controlled
from odeum.compat.torchdiffeq.errors import ArgumentError, StepError
from odeum.compat.torchdiffeq.grid import EventFunction, perturbed
from odeum.compat.torchdiffeq.options import AdaptiveOptions, read
from odeum.compat.torchdiffeq.watching import EndsAtEvent, GoesOn, TellsCallbacks
from odeum.eager.explicit import stepper
from odeum.eager.failures import solve_error
from odeum.eager.ledger import Ledger
from odeum.eager.loop import Loop
from odeum.eager.options import MAX_STEPS
from odeum.eager.outputs import Interpolant, Outputs
from odeum.eager.records import Failure, Limits, Observers, State, Watch
from odeum.eager.times import Times
from odeum.errors import InputError
from odeum.tableaus import EXPLICIT
from odeum.types import Tensor

GROWTH = 4.0
"""By how much a leg in search of an event is longer than all before."""


def states(call: Call) -> Tensor:
    """The states at the output times, [time, dim].

    Raises:
        SolveError: where a step fails.
    """
    solver = _Solver(call, keep=False)
    solver.run(_legs(solver.t, _breaks(solver)), ())
    return solver.outputs.ys().squeeze(1)


def states_until_event(call: Call, event: EventFunction) -> tuple[Tensor, Tensor]:
    """The time of an event, [], and the states at the start and there, [2, dim].

    Raises:
        SolveError: where a step fails, or the event has not come when steps are used up.
    """
    solver = _Solver(call, keep=False)
    watch = EndsAtEvent(event, call.smallest_atol)
    solver.run(_longer_and_longer(solver.t, _breaks(solver)), (watch,))
    found = solver.marked[-1]
    return found.t[0], torch.stack([call.y0, found.y[0]])


def dense(call: Call) -> Callable[[Tensor], Any]:
    """The state as a function of a time, [], or of several, [k]."""
    solver = _Solver(call, keep=True)
    solver.run(_legs(solver.t, _breaks(solver)), ())
    direction = torch.sign(solver.t[-1:] - solver.t[:1]).detach().reshape(1, 1)
    interpolant = Interpolant(solver.outputs.segments(), direction, call.y0.unsqueeze(0))
    low, high = sorted((float(solver.t[0].detach()), float(solver.t[-1].detach())))

    def evaluate(t: Tensor) -> Any:
        t = torch.as_tensor(t, dtype=solver.t.dtype, device=solver.t.device)
        if not bool(((t >= low) & (t <= high)).all()):
            raise ArgumentError(
                f"the solution is known from t = {low:g} to {high:g}, and was asked for at "
                f"{t.detach().tolist()}"
            )
        flat = interpolant(t.reshape(-1, 1)).squeeze(1)
        return call.layout.unflatten(flat.reshape(*t.shape, -1))

    return evaluate


class _Solver:
    """A call on its way through its legs.

    Args:
        call: the call.
        keep: whether every step is kept, for evaluation at any time.

    Attributes:
        options: of the call.
        t: the output times, in the dtype that times have.
        outputs: what fills in the states there.
        marked: the states at events.
    """

    def __init__(self, call: Call, *, keep: bool) -> None:
        self.options = options = read(AdaptiveOptions, call.options)
        dtype = torch.promote_types(options.dtype, call.y0.dtype)
        self.t = call.t.to(dtype)
        self.outputs = Outputs(Times(self.t, 1), call.y0.unsqueeze(0), keep=keep)
        self.marked: list[Any] = []
        self._call = call
        self._field = call.row_field()
        self._stepper = stepper(EXPLICIT[call.method.tableau], call.y0.dtype, call.y0.device)
        self._control = controlled(call, options, self._stepper)
        self._ledger = Ledger(1, call.y0.device, implicit=False, n_evaluations=1)
        n_steps = MAX_STEPS if options.max_num_steps is None else int(options.max_num_steps)
        self._limits = Limits(max_steps=n_steps * (len(call.t) - 1))

    def run(self, legs: Iterator[Tensor], watches: tuple[Watch, ...]) -> None:
        """Solves leg after leg until an event or the last of them.

        Args:
            legs: the times between them, and the last, [] each, the first where the solve starts.
            watches: look at every step.
        """
        t, y, h = next(legs).reshape(1, 1), self._call.y0.unsqueeze(0), None
        goes_on = GoesOn()
        recorder = TellsCallbacks(self._call) if self._call.callbacks else None
        for end in legs:
            field = self._field
            if self.options.jump_t is not None:
                field = self._call.row_field(perturbed(self._call, t.squeeze(), end))
            start = State(
                torch.zeros(1, dtype=torch.int64, device=y.device), t, y, field(t.to(y.dtype), y), h
            )
            loop = Loop(
                self._stepper,
                self._control,
                field,
                start,
                Times(self._outputs_before(t.reshape(()), end), 1, end=end.reshape(1, 1)),
                self.outputs,
                self._ledger,
                self._limits,
                Observers(recorder, (*watches, goes_on), on_failure=_raise),
            )
            loop.run()
            self.marked += loop.marked
            if not loop.handed_over:
                return
            (state,) = loop.handed_over
            t, y, h = state.t, state.y, state.h

    def _outputs_before(self, t: Tensor, end: Tensor) -> Tensor:
        """Output times, [time]; those of a leg itself where it reaches beyond all of them."""
        beyond = (end - self.t[-1]) * (self.t[-1] - self.t[0]) > 0
        return torch.stack([t, end]) if bool(beyond) else self.t


def _raise(failure: Failure) -> None:
    message = str(solve_error(failure, 1))
    raise StepError(
        message.replace("step=odeum.StepOptions(max_steps=...)", 'options={"max_num_steps": ...}')
    )


def _breaks(solver: _Solver) -> Tensor:
    """Times to land on, in no order, [breaks].

    Raises:
        InputError: where one is given twice.
    """
    given = [x for x in (solver.options.step_t, solver.options.jump_t) if x is not None]
    breaks = torch.cat([solver.t.new_empty(0), *(torch.as_tensor(x).to(solver.t) for x in given)])
    if len(breaks.unique()) < len(breaks):
        raise InputError("step_t and jump_t name a time twice: give every time once")
    return breaks.detach()


def _legs(t: Tensor, breaks: Tensor) -> Iterator[Tensor]:
    """The ends of the legs from the first to the last of the output times."""
    start, end = t[0].detach(), t[-1].detach()
    inside = breaks[(breaks - start) * (end - breaks) > 0]
    yield t[0]
    yield from inside.sort(descending=bool(end < start)).values
    yield t[-1]


def _longer_and_longer(t: Tensor, breaks: Tensor) -> Iterator[Tensor]:
    """The ends of legs without end."""
    yield t[0]
    start, span = t[0].detach(), (t[1] - t[0]).detach()
    while math.isfinite(float(start + span)):
        yield from list(_legs(torch.stack([start, start + span]), breaks))[1:]
        start, span = start + span, GROWTH * span
    raise StepError(f"no event came up to t = {float(start):g}: does event_fn change its sign?")
