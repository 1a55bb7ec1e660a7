"""A solve in phases, cut where events make rows jump and at known discontinuities in time.

Each phase is a solve of its own, by any gradient; what leads from one to the next (event times,
jumps) is differentiated here, by the implicit function theorem.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch

from odeum.eager.event import Event, EventWatch, event_speed, event_values, jumped_states
from odeum.eager.field import RowField
from odeum.eager.outputs import Segments
from odeum.eager.problem import Outcome, Problem
from odeum.eager.recording import is_recorded, is_transformed
from odeum.eager.records import END, Failure, Marked
from odeum.eager.times import spacing
from odeum.errors import InputError
from odeum.solution import Stats, Status
from odeum.types import Tensor

MARGIN = 4
"""Roundings of the time at a break at which the field is not asked for."""

QUICK = 1000
"""Spacings of the time within which a row jumps again that hardly gets on."""

PATIENCE = 32
"""Quick jumps, one after the other, that show that there is no end of them."""


@dataclass(frozen=True)
class Firings:
    """What happened of one event, in the order of time in each row.

    Attributes:
        rows: the row of each firing, [firings].
        t: when, [firings].
        y: the state then, before any jump, [firings, dim].
    """

    rows: Tensor
    t: Tensor
    y: Tensor


@dataclass(frozen=True)
class _Front:
    """Rows that go on, where they stand.

    Attributes:
        rows: which rows of the batch, [rows].
        t: their times, [rows, 1].
        y: their states, [rows, dim].
        fired: events that have just made them jump, [rows, events].
        passed: those of them that they go on past, in the direction they came, [rows, events].
    """

    rows: Tensor
    t: Tensor
    y: Tensor
    fired: Tensor
    passed: Tensor


def solve_in_phases(
    problem: Problem,
    gradient: Callable[[Problem], Outcome],
    events: Sequence[Event],
    breaks: Tensor,
) -> tuple[Outcome, list[Firings]]:
    """Solves a problem from one interruption to the next.

    Args:
        problem: the whole of it.
        gradient: solves one phase.
        events: what to look for.
        breaks: times at which the field is discontinuous, ascending, [breaks].

    Returns:
        The outcome of the whole, and for each event what happened of it.
    """
    return _Phases(problem, gradient, events, breaks).run()


class _Phases:
    def __init__(
        self,
        problem: Problem,
        gradient: Callable[[Problem], Outcome],
        events: Sequence[Event],
        breaks: Tensor,
    ) -> None:
        self._problem = problem
        self._gradient = gradient
        self._events = events
        self._times = times = problem.times()
        self._breaks = breaks.to(problem.ts)
        n_rows = len(problem.y0)
        counts = torch.zeros(n_rows, dtype=torch.int64, device=problem.y0.device)
        self._status = counts.clone()
        self._stats: Stats | None = None
        self._n_tried = counts.clone()
        self._n_quick = counts.clone()
        self._segments: list[Segments] = []
        self._firings: list[list[Firings]] = [[] for _ in events]
        # States at output times, flat over (time, row).
        self._places = [torch.arange(n_rows, device=counts.device)]
        self._states = [problem.y0]
        none = torch.zeros(n_rows, len(events), dtype=torch.bool, device=counts.device)
        self._front = _Front(self._places[0], times.start, problem.y0, none, none)

    def run(self) -> tuple[Outcome, list[Firings]]:
        first = True
        while len(self._front.rows):
            self._solve_phase(first)
            first = False
        n_times, (n_rows, dim) = self._times.n_times, self._problem.y0.shape
        ys = self._problem.y0.new_full((n_times * n_rows, dim), torch.nan)
        ys = ys.index_copy(0, torch.cat(self._places), torch.cat(self._states))
        assert self._stats is not None
        outcome = Outcome(
            ys.view(n_times, n_rows, dim),
            self._status,
            self._stats,
            Segments.by_method(self._segments),
            Marked.concatenate([], self._problem.ts, self._problem.y0),
        )
        return outcome, [self._all_firings(parts) for parts in self._firings]

    def _all_firings(self, parts: list[Firings]) -> Firings:
        if not parts:
            y0 = self._problem.y0
            return Firings(self._status[:0], self._times.start[:0, 0], y0[:0])
        return Firings(
            *(torch.cat([getattr(p, name) for p in parts]) for name in ("rows", "t", "y"))
        )

    def _solve_phase(self, first: bool) -> None:
        front = self._front
        end, ends_at_break = self._next_stop(front)
        phase = self._phase(front, end, ends_at_break, first)
        outcome = self._gradient(phase)
        self._count(front.rows, outcome.stats)
        for segments in outcome.segments:
            self._segments.append(replace(segments, rows=front.rows[segments.rows]))
        marked = self._differentiable(phase.field, outcome.marked)
        self._collect_outputs(front, end, outcome)
        for number, firings in enumerate(self._firings):
            at = (marked.event == number).nonzero().squeeze(-1)
            firings.append(Firings(front.rows[marked.rows[at]], marked.t[at], marked.y[at]))
        self._front = self._advance(front, phase.field, outcome.status, marked, ends_at_break)
        self._stop_endless(front)

    def _next_stop(self, front: _Front) -> tuple[Tensor, Tensor]:
        """Where rows end in this phase, [rows, 1], and whether that is at a break, [rows, 1]."""
        end = self._times.end[front.rows]
        if not len(self._breaks):
            return end, torch.zeros_like(end, dtype=torch.bool)
        direction = self._times.direction[front.rows]
        ascending = self._breaks * direction
        ahead = (ascending > (front.t * direction).detach()) & (
            ascending < (end * direction).detach()
        )
        nearest = torch.where(ahead, ascending, torch.inf).amin(1, keepdim=True)
        at_break = nearest.isfinite()
        return torch.where(at_break, nearest * direction, end), at_break

    def _phase(self, front: _Front, end: Tensor, ends_at_break: Tensor, first: bool) -> Problem:
        problem, rows = self._problem, front.rows
        whole = len(rows) == len(problem.y0)
        field = problem.field if whole else problem.field.narrowed(rows)
        if len(self._breaks):
            field = field.within(*self._window(front, end))
        watches = problem.watches
        if self._events:
            watches += (self._watch(front, field),)
        return replace(
            problem,
            field=field,
            y0=front.y,
            ts=problem.ts if whole or not self._times.per_row else problem.ts[:, rows],
            start=None if first else front.t,
            end=end,
            n_tried=self._n_tried[rows],
            watches=watches,
            marks_end=True,
            on_failure=_mapped_failure(rows, problem.on_failure),
            on_progress=_mapped_progress(rows, problem.on_progress),
            on_backward=self._mapped_work(rows),
        )

    def _watch(self, front: _Front, field: RowField) -> EventWatch:
        return EventWatch(self._events, field, front.t, front.y, front.fired, front.passed)

    def _window(self, front: _Front, end: Tensor) -> tuple[Tensor, Tensor]:
        """Times the field may see, [batch, 1] each: on this side of breaks, not at them."""
        like = self._problem.y0
        start, end = front.t.detach(), end.detach()
        near = _beside(start, end, like.dtype)
        far = _beside(end, start, like.dtype)
        near_bounds, far_bounds = ((x == self._breaks).any(1, keepdim=True) for x in (start, end))
        increasing = start < end
        low = torch.where(increasing, near, far)
        high = torch.where(increasing, far, near)
        low_bounds = torch.where(increasing, near_bounds, far_bounds)
        high_bounds = torch.where(increasing, far_bounds, near_bounds)
        window = like.new_empty(2, len(like), 1)
        window[0, front.rows] = torch.where(low_bounds, low, -torch.inf)
        window[1, front.rows] = torch.where(high_bounds, high, torch.inf)
        return window[0], window[1]

    def _count(self, rows: Tensor, stats: Stats) -> None:
        self._n_tried[rows] += stats.n_accepted + stats.n_rejected
        scattered = stats.scattered(rows, len(self._n_tried))
        self._stats = scattered if self._stats is None else self._stats.plus(scattered)

    def _differentiable(self, field: RowField, marked: Marked) -> Marked:
        """Marks whose times and states depend on everything that the events depend on."""
        if not is_recorded() or not self._events or not len(marked.rows):
            return marked
        t, y = marked.t, marked.y
        for number, event in enumerate(self._events):
            chosen = (marked.event == number).nonzero().squeeze(-1)
            for at in field.calls(chosen):
                part = field.part(marked.rows[at])
                found = marked.t[at], marked.y[at], marked.slope[at]
                t_event, y_event = _moved(event, part, *found)
                t, y = t.index_copy(0, at, t_event), y.index_copy(0, at, y_event)
        return replace(marked, t=t, y=y)

    def _collect_outputs(self, front: _Front, end: Tensor, outcome: Outcome) -> None:
        """Takes the states at the output times that lie in this phase."""
        end = end.detach().clone()
        interrupts = torch.tensor([event.interrupts for event in self._events] + [False])
        marked = outcome.marked
        at = interrupts.to(marked.event.device)[marked.event].nonzero().squeeze(-1)
        end[marked.rows[at]] = marked.t[at].unsqueeze(-1)
        position, index = self._times.hits(front.rows, front.t, end)
        self._places.append(index * len(self._status) + front.rows[position])
        self._states.append(outcome.ys[index, position])

    def _advance(
        self,
        front: _Front,
        field: RowField,
        status: Tensor,
        marked: Marked,
        ends_at_break: Tensor,
    ) -> _Front:
        """Rows that go on after a phase, and where from."""
        t, y = front.t, front.y
        arrived = marked.rows[marked.event == END]
        goes_on = torch.zeros_like(status, dtype=torch.bool)
        goes_on[arrived] = ends_at_break[arrived].squeeze(-1)
        stopped = torch.zeros_like(goes_on)
        fired, passed = torch.zeros_like(front.fired), torch.zeros_like(front.passed)
        for number in (END, *range(len(self._events))):
            at = (marked.event == number).nonzero().squeeze(-1)
            if number != END and not self._events[number].interrupts:
                continue
            rows = marked.rows[at]
            t = t.index_copy(0, rows, marked.t[at].unsqueeze(-1).to(t.dtype))
            y = y.index_copy(0, rows, marked.y[at])
        for number, event in enumerate(self._events):
            rows = marked.rows[marked.event == number]
            if event.stops:
                stopped[rows] = True
            elif event.jump is not None and len(rows):
                part = field.part(rows)
                after = jumped_states(event, part, t[rows], y[rows])
                passed[rows, number] = _passes(event, part, t[rows].squeeze(-1), y[rows], after)
                fired[rows, number] = True
                y = y.index_copy(0, rows, after)
                goes_on[rows] = True
        goes_on &= ~stopped & (status <= int(Status.EVENT))
        there = (t == self._times.end[front.rows]).squeeze(-1)
        jumped_at_end = goes_on & there
        self._status[front.rows] = status.masked_fill(jumped_at_end, int(Status.SUCCESS))
        at = (goes_on & ~there).nonzero().squeeze(-1)
        return _Front(front.rows[at], t[at], y[at], fired[at], passed[at])

    def _stop_endless(self, before: _Front) -> None:
        """Lets rows go that jump for ever without getting on, as a ball that comes to rest."""
        front = self._front
        last = torch.empty_like(self._times.start)
        last[before.rows] = before.t.detach()
        t, last = front.t.detach(), last[front.rows]
        near = spacing(t, self._times.end[front.rows])
        quick = ((t - last).abs() <= QUICK * near).squeeze(-1) & front.fired.any(-1)
        self._n_quick[front.rows] = torch.where(quick, self._n_quick[front.rows] + 1, 0)
        endless = self._n_quick[front.rows] >= PATIENCE
        if not bool(endless.any()):
            return
        self._status[front.rows[endless]] = int(Status.ZENO)
        if self._problem.on_failure is not None:
            self._problem.on_failure(self._failure(int(endless.nonzero()[0])))
        left = (~endless).nonzero().squeeze(-1)
        self._front = _Front(*(getattr(front, field.name)[left] for field in fields(front)))

    def _failure(self, i: int) -> Failure:
        """Of the row at a position of the front."""
        row, t, y = (
            x[i : i + 1].detach() for x in (self._front.rows, self._front.t, self._front.y)
        )
        with torch.no_grad():
            k = self._problem.field.select(row)(t.to(y.dtype), y)
        n_tried = int(self._n_tried[row])
        y, k = (self._problem.field.state(x[0]) for x in (y, k))
        return Failure(int(row), Status.ZENO, float(t), 0.0, n_tried, y, k)

    def _mapped_work(self, rows: Tensor) -> Callable[[Stats], None] | None:
        on_backward, n_rows = self._problem.on_backward, len(self._n_tried)
        if on_backward is None:
            return None
        return lambda work: on_backward(work.scattered(rows, n_rows))


def _moved(
    event: Event, field: RowField, t: Tensor, y: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    """Time and state of events, as functions of the state at the time ``t`` where they were found.

    ``g(t, y(t)) = 0`` gives ``dt = -dg / (dg/dt + dg/dy . dy/dt)``, where ``y(t)`` is the dense
    output that it was found on; where an event's function is tangent to zero, its time has no
    derivative and is taken as fixed.
    """
    t = t.detach()
    speed = event_speed(event, field, t, y, slope)
    value = event_values(event, field, t.unsqueeze(-1), y).to(t.dtype)
    inverse = torch.where(speed != 0, 1 / speed, 0.0)
    shift = -(value - value.detach()) * inverse
    if shift.requires_grad and not is_transformed():
        shift.register_hook(_refuse_second_derivatives)
    return t + shift, y + slope * shift.unsqueeze(-1).to(y.dtype)


def _refuse_second_derivatives(gradient: Tensor) -> None:
    """What :func:`_moved` makes of an event's time is right to first order."""
    if torch.is_grad_enabled():
        raise InputError(
            "a solve has no second derivatives through the times of its events: differentiate "
            "without create_graph, or cut the solve with breaks at times that are known"
        )


def _passes(event: Event, field: RowField, t: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Whether rows that jump go on in the direction in which they met an event, [rows]."""
    if not event.direction:
        return torch.zeros_like(t, dtype=torch.bool)
    speeds = []
    for y in (before.detach(), after.detach()):
        with torch.no_grad():
            slope = field(t.unsqueeze(-1).to(y.dtype), y)
        speeds.append(event_speed(event, field, t, y, slope))
    return (torch.stack(speeds) * event.direction > 0).all(0)


def _beside(t: Tensor, other: Tensor, dtype: torch.dtype) -> Tensor:
    """A few roundings from ``t`` towards another time: breaks and the field's own round apart."""
    t, other = t.to(dtype), other.to(dtype)
    margin = MARGIN * torch.finfo(dtype).eps * t.abs()
    return torch.nextafter(t + torch.where(other > t, margin, -margin), other)


def _mapped_failure(
    rows: Tensor, on_failure: Callable[[Failure], None] | None
) -> Callable[[Failure], None] | None:
    if on_failure is None:
        return None
    return lambda failure: on_failure(replace(failure, row=int(rows[failure.row])))


def _mapped_progress(
    rows: Tensor, on_progress: Callable[[Tensor, Tensor], None] | None
) -> Callable[[Tensor, Tensor], None] | None:
    if on_progress is None:
        return None
    return lambda running, t: on_progress(rows[running], t)
