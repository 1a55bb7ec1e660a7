"""What the loop is told and what it tells: where rows start, what ends them, who looks on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from odeum.eager.field import RowField
from odeum.eager.outputs import Segments
from odeum.eager.stepper import Memory, Step, Stepper
from odeum.solution import Status
from odeum.types import Tensor

END = -1
"""In place of an event's number: the row arrived at its end."""

NOT_CUT = -1
"""In place of an output's index: the step was not cut to land."""

CUT_ELSEWHERE = -2
"""In place of an output's index: the step was cut to land on an end that is no output."""


@dataclass(frozen=True)
class State:
    """Where rows stand.

    Attributes:
        rows: which rows of the batch, ascending, [rows].
        t: their times, [rows, 1].
        y: their states, [rows, dim].
        k: their derivatives, [rows, dim].
        h: the steps they try next, [rows, 1]; for the step control to choose where None.
    """

    rows: Tensor
    t: Tensor
    y: Tensor
    k: Tensor
    h: Tensor | None = None

    @staticmethod
    def merged(parts: "list[State]") -> "State":
        """All rows of several, with the steps they try next."""
        rows = torch.cat([part.rows for part in parts])
        order = rows.argsort()
        t, y, k, h = (
            torch.cat([getattr(part, name) for part in parts])[order]
            for name in ("t", "y", "k", "h")
        )
        return State(rows[order], t, y, k, h)


@dataclass(frozen=True)
class Limits:
    """What ends a row's solve early.

    Attributes:
        max_steps: tried steps after which a row stops; None for no limit.
        h_min: a row whose step must shrink below this stops.
    """

    max_steps: int | None = None
    h_min: float = 0.0


@dataclass(frozen=True)
class Marks:
    """Times inside accepted steps whose states are wanted besides the outputs.

    Attributes:
        position: of each one's step among those of one try, [marks].
        t: the times, [marks].
        event: the number of the event that happens there, or ``END``, [marks].
    """

    position: Tensor
    t: Tensor
    event: Tensor

    @staticmethod
    def concatenate(parts: "list[Marks]") -> "Marks":
        """All of them."""
        return Marks(
            torch.cat([part.position for part in parts]),
            torch.cat([part.t for part in parts]),
            torch.cat([part.event for part in parts]),
        )


@dataclass(frozen=True)
class Marked:
    """States at marks, in the order they were met.

    Attributes:
        rows: the row of each, [marks].
        t: times, [marks].
        event: the number of the event, or ``END``, [marks].
        y: states, [marks, dim].
        slope: ``dy/dt`` of the dense output there, which knows of no gradient, [marks, dim].
    """

    rows: Tensor
    t: Tensor
    event: Tensor
    y: Tensor
    slope: Tensor

    @staticmethod
    def concatenate(parts: "list[Marked]", times: Tensor, states: Tensor) -> "Marked":
        """All of them; with ``times`` and ``states`` of the right kinds where there are none."""
        if not parts:
            none = torch.empty(0, dtype=torch.int64, device=states.device)
            nowhere = states.detach()[:0]
            return Marked(none, times.detach().new_empty(0), none, nowhere, nowhere)
        rows, t, event, y, slope = (
            torch.cat([getattr(part, name) for part in parts])
            for name in ("rows", "t", "event", "y", "slope")
        )
        return Marked(rows, t, event, y, slope)


@dataclass(frozen=True)
class Record:
    """One tried step of all running rows: what the exact gradient needs to take it again.

    Attributes:
        stepper: what took it.
        rows: the running rows, ascending, [steps].
        accept: which of them accepted it, [steps, 1]; None where all did.
        t: where the steps start, [steps, 1].
        h: their signed sizes, [steps, 1].
        t1: where they end, [steps, 1]; ``t`` where a row did not accept it, and before ``t + h``
            where an event ended the row.
        y: states at their starts, [steps, dim].
        ks: the derivatives found, [steps, dim] each, where the method is implicit; else empty.
        stops: index of the output time each was cut to land on, [steps], or ``NOT_CUT`` or
            ``CUT_ELSEWHERE``; None where none was. An event may end a row before it lands: the
            step has its size from the cut nevertheless.
        marks: times inside that are wanted besides the outputs; None where there are none.
        finite: whether all derivatives were finite.
    """

    stepper: Stepper
    rows: Tensor
    accept: Tensor | None
    t: Tensor
    h: Tensor
    t1: Tensor
    y: Tensor
    ks: list[Tensor]
    stops: Tensor | None
    marks: Marks | None
    finite: bool

    def accepted(self) -> "Record":
        """The same of the rows that accepted the step alone."""
        if self.accept is None:
            return self
        accept = self.accept.squeeze(-1)
        at = accept.nonzero().squeeze(-1)
        rows, t, h, t1, y = (x[at] for x in (self.rows, self.t, self.h, self.t1, self.y))
        stops = None if self.stops is None else self.stops[at]
        marks = self.marks
        if marks is not None:
            marks = Marks((accept.cumsum(0) - 1)[marks.position], marks.t, marks.event)
        ks = [k[at] for k in self.ks]
        return Record(self.stepper, rows, None, t, h, t1, y, ks, stops, marks, finite=True)


class Recorder(Protocol):
    """Takes steps so that they can be pulled back, and remembers those that rows accept."""

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
        ...

    def end_derivative(self, field: RowField, t1: Tensor, y1: Tensor) -> Tensor:
        """``f(t1, y1)`` at the end of the last step."""
        ...

    def add(self, record: Record) -> None:
        """Takes down what became of the last step."""
        ...


@dataclass(frozen=True)
class Sighting:
    """What a watch found in one try.

    Attributes:
        t1: where the steps end now, [steps, 1].
        status: a Status for rows that end there, ``HANDED_OVER`` for those that another loop goes
            on with, ``RUNNING`` for the others, [steps].
        marks: times whose states are wanted; None where there are none.
    """

    t1: Tensor
    status: Tensor
    marks: Marks | None


class Watch(Protocol):
    """Looks at the steps that rows accept.

    Attributes:
        looks_inside: whether it needs the dense output of every step.
    """

    looks_inside: bool

    def look(
        self, field: RowField, step: Step, segments: Segments, y1: Tensor, status: Tensor
    ) -> Sighting:
        """What happened in one try.

        Args:
            field: the field on the rows that tried.
            step: the try.
            segments: its steps; those that were rejected end where they start.
            y1: the states at their ends, [steps, dim].
            status: how rows end as far as known, [steps].
        """
        ...


@dataclass(frozen=True)
class Failure:
    """Where a row failed, with the step size it would have tried next, state and derivative.

    ``implicit`` tells whether its method was one for stiff problems.
    """

    row: int
    status: Status
    t: float
    h: float
    n_tried: int
    y: Tensor
    k: Tensor
    implicit: bool = False


@dataclass(frozen=True)
class Observers:
    """Who is told of a solve as it goes.

    Attributes:
        recorder: takes the steps so that they can be pulled back.
        watches: look at accepted steps and may end rows inside them.
        marks_end: whether the states at which rows arrive are wanted as marks.
        on_failure: told of the first row that fails; may raise.
        on_progress: told rows and times of what is still running, now and then.
    """

    recorder: Recorder | None = None
    watches: tuple[Watch, ...] = ()
    marks_end: bool = False
    on_failure: Callable[[Failure], None] | None = None
    on_progress: Callable[[Tensor, Tensor], None] | None = None
