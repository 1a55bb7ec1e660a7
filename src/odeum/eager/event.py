"""Events: where a function of time and state changes sign, found per row inside accepted steps."""

import inspect
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from odeum.eager.field import RowField
from odeum.eager.outputs import Segments
from odeum.eager.recording import is_transformed, unrecorded
from odeum.eager.records import Marks, Sighting
from odeum.eager.stepper import Step
from odeum.errors import InputError
from odeum.solution import Status
from odeum.types import PyTree, Tensor

SAMPLES = (0.25, 0.5, 0.75, 1.0)
"""Fractions of a step between which a change of sign is noticed."""

SAMPLES_ON_SURFACE = tuple(4.0**-k for k in range(12, 1, -1)) + SAMPLES
"""The same for a first step from where an event is: it may come again very soon."""

MAX_ITERATIONS = 100
"""Bisections that no bracket of floating-point numbers outlasts."""


@dataclass(frozen=True)
class Event:
    """Something that happens where ``fn`` is zero; each row finds its own times.

    Attributes:
        fn: ``fn(t, y)`` or ``fn(t, y, args)``, called as the field is, returning one number per
            row: [batch], or [batch, 1]; a single one for a [dim] state or joint coupling.
        terminal: whether the row stops there. By default it does, unless it jumps.
        direction: +1 for crossings from below, -1 for those from above, 0 for both.
        jump: ``jump(t, y)`` or ``jump(t, y, args)``, the state to go on from; None to go on from
            the state as it is.

    Raises:
        InputError: for an event that both stops and jumps, or a direction that is none.

    Example:
        A ball falls, and bounces up at half its speed.

        >>> import odeum
        >>> def falling(t, y):
        ...     return torch.stack([y[:, 1], torch.full_like(y[:, 1], -9.81)], -1)
        >>> bounce = odeum.Event(
        ...     lambda t, y: y[:, 0],
        ...     direction=-1,
        ...     jump=lambda t, y: torch.stack([torch.zeros_like(y[:, 0]), -0.5 * y[:, 1]], -1),
        ... )
        >>> y0, ts = torch.tensor([[1.0, 0.0]]), torch.tensor([0.0, 1.2])
        >>> sol = odeum.solve(falling, y0, ts, events=bounce)
        >>> sol.events[0].times[:, 0]
        tensor([0.4515, 0.9030, 1.1288])
    """

    fn: Callable[..., Tensor]
    terminal: bool | None = None
    direction: int = 0
    jump: Callable[..., PyTree] | None = None

    def __post_init__(self) -> None:
        if self.direction not in (-1, 0, 1):
            raise InputError(
                f"Event(direction={self.direction}): give +1 for crossings from below, -1 for "
                "those from above, 0 for both"
            )
        if self.terminal and self.jump is not None:
            raise InputError(
                "Event(terminal=True, jump=...): a row that stops has nothing to go on from; give "
                "one or the other"
            )

    def call(self, name: str, inputs: tuple[Any, ...]) -> Any:
        """``fn`` or ``jump`` on ``(t, y)`` or ``(t, y, args)``, as many as it takes.

        Where there are no ``args``, a third argument that has a default keeps it.
        """
        t, y, args = inputs if len(inputs) == 3 else (*inputs, None)
        takes_two, takes_three = self._takes[name]
        if takes_three and (args is not None or not takes_two):
            return getattr(self, name)(t, y, args)
        return getattr(self, name)(t, y)

    @cached_property
    def _takes(self) -> dict[str, tuple[bool, bool]]:
        functions = {"fn": self.fn, "jump": self.jump}
        return {name: (_binds(f, 2), _binds(f, 3)) for name, f in functions.items()}

    @property
    def stops(self) -> bool:
        """Whether rows stop there."""
        return self.jump is None if self.terminal is None else self.terminal

    @property
    def interrupts(self) -> bool:
        """Whether steps end there."""
        return self.stops or self.jump is not None


def _binds(function: Callable[..., Any] | None, n: int) -> bool:
    """Whether a function takes ``n`` positional arguments; two, where it does not say."""
    try:
        inspect.signature(function).bind(*range(n))  # type: ignore[arg-type]
    except TypeError:
        return False
    except ValueError:  # a builtin
        return n == 2
    return True


def _inputs(field: RowField, t: Tensor, y: Tensor) -> tuple[Any, ...]:
    """What a field is called with, but at times that only the field must not see, too."""
    unbounded = copy(field)
    unbounded.window = None
    return unbounded.inputs(t.to(y.dtype), y)


def event_values(event: Event, field: RowField, t: Tensor, y: Tensor) -> Tensor:
    """``fn`` on the rows of a field, [rows].

    Args:
        event: the event.
        field: the field on these rows.
        t: times, [rows, 1].
        y: states, [rows, dim].
    """
    values = event.call("fn", _inputs(field, t, y))
    if not isinstance(values, torch.Tensor) or values.numel() != len(y):
        given = list(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        raise InputError(
            f"an event's function returned {given} for {len(y)} "
            f"{'row' if len(y) == 1 else 'rows'}: return one number per row, as y[:, 0]"
        )
    return values.reshape(len(y))


def event_speed(event: Event, field: RowField, t: Tensor, y: Tensor, slope: Tensor) -> Tensor:
    """How fast ``fn`` changes along a solution: ``dg/dt + dg/dy . slope``, [rows].

    Args:
        event: the event.
        field: the field on these rows.
        t: times, [rows].
        y: states, [rows, dim].
        slope: ``dy/dt`` there, [rows, dim].
    """
    if is_transformed():
        pull = torch.func.vjp(
            lambda t, y: event_values(event, field, t.unsqueeze(-1), y).sum(),
            t.detach().clone(),
            y.detach(),
        )[1]
        by_t, by_y = pull(slope.new_ones(()))
        return by_t + (by_y * slope).sum(-1).to(t.dtype)
    with torch.enable_grad():
        t_leaf, y_leaf = (x.detach().clone().requires_grad_() for x in (t, y))
        value = event_values(event, field, t_leaf.unsqueeze(-1), y_leaf).sum()
    if not value.requires_grad:
        return torch.zeros_like(t)
    by_t, by_y = torch.autograd.grad(
        value, [t_leaf, y_leaf], allow_unused=True, materialize_grads=True
    )
    return by_t + (by_y * slope).sum(-1).to(t.dtype)


def jumped_states(event: Event, field: RowField, t: Tensor, y: Tensor) -> Tensor:
    """The states that rows go on from, [rows, dim]."""
    assert event.jump is not None
    inputs = _inputs(field, t, y)
    after = event.call("jump", inputs)
    after = field.flattened(after, inputs[1], "an event's jump")
    return after if field.integrals is None else torch.cat([after, y[:, field.dim :]], -1)


class EventWatch:
    """Finds events in the steps that rows accept, and ends rows where they stop or jump.

    Args:
        events: what to look for.
        field: the field on the whole batch.
        t: where rows start, [batch, 1].
        y: their states, [batch, dim].
        fired: rows that start where an event has just made them jump, [batch, events].
        passed: those of them that go on in the direction in which they met it, [batch, events].
    """

    looks_inside = True

    def __init__(
        self,
        events: Sequence[Event],
        field: RowField,
        t: Tensor,
        y: Tensor,
        fired: Tensor,
        passed: Tensor,
    ) -> None:
        self._events = events
        self._directions = torch.tensor([event.direction for event in events], device=y.device)
        self._interrupts = torch.tensor([event.interrupts for event in events], device=y.device)
        with unrecorded():
            values = torch.stack([event_values(event, field, t, y) for event in events], -1)
        # On the surface it has just left, an event's value is zero, not what rounding makes of it.
        self._values = values.masked_fill(fired, 0.0)
        self._must_return = fired & ~passed
        # From a surface a row may come back to it very soon.
        self._starts_on = (self._values == 0).any(-1)

    def look(
        self, field: RowField, step: Step, segments: Segments, y1: Tensor, status: Tensor
    ) -> Sighting:
        """Events in one try."""
        with unrecorded():
            accepted = (segments.t1 != step.t).squeeze(-1)
            fresh = accepted & self._starts_on[segments.rows]
            t1, status = segments.t1.detach().clone(), status.clone()
            forward = step.h.squeeze(-1) > 0
            marks = []
            for positions, samples in (
                ((accepted & ~fresh).nonzero().squeeze(-1), SAMPLES),
                (fresh.nonzero().squeeze(-1), SAMPLES_ON_SURFACE),
            ):
                if len(positions):
                    found = self._scan(field, segments, y1, positions, samples, status)
                    marks.append(_ended(found, self._interrupts, forward, t1, status))
            self._starts_on[segments.rows[fresh]] = False
        marks = [part for part in marks if len(part.t)]
        # Where no event ends a row, its time goes on as autograd knows it.
        t1 = torch.where(t1 == segments.t1, segments.t1, t1)
        return Sighting(t1, status, Marks.concatenate(marks) if marks else None)

    def _scan(
        self,
        field: RowField,
        segments: Segments,
        y1: Tensor,
        positions: Tensor,
        samples: Sequence[float],
        status: Tensor,
    ) -> Marks:
        """All events inside some of the steps."""
        rows = segments.rows[positions]
        t, t1 = segments.t[positions].squeeze(-1), segments.t1[positions].squeeze(-1)
        part = field.part(positions) if len(positions) < len(segments.rows) else field
        before, values = t, self._values[rows]
        marks = []
        for i, sample in enumerate(samples):
            after = t1 if sample == 1 else t + sample * (t1 - t)
            y = y1[positions] if sample == 1 else segments.evaluate(positions, after)
            new = torch.stack(
                [event_values(event, part, after.unsqueeze(-1), y) for event in self._events], -1
            )
            if i == 0:
                self._refuse_to_stick(positions, rows, new, status)
            crossed = ((values < 0) & (new >= 0) & (self._directions >= 0)) | (
                (values > 0) & (new <= 0) & (self._directions <= 0)
            )
            where, event = crossed.nonzero().unbind(-1)
            if len(where):
                ends = (before[where], after[where])
                signs = (values[where, event], new[where, event])
                at = positions[where]
                times = self._locate(field, segments, at, event, ends, signs)
                marks.append(Marks(at, times, event))
            before, values = after, new
        self._values[rows] = values
        return Marks.concatenate(marks) if marks else Marks(positions[:0], t[:0], positions[:0])

    def _refuse_to_stick(
        self, positions: Tensor, rows: Tensor, values: Tensor, status: Tensor
    ) -> None:
        """A jump that does not lead away from where its event is would be taken for ever."""
        stuck = (self._directions != 0) & (values.sign() == self._directions)
        stuck &= self._must_return[rows]
        self._must_return[rows] = False
        status[positions[stuck.any(-1)]] = int(Status.ZENO)

    def _locate(
        self,
        field: RowField,
        segments: Segments,
        positions: Tensor,
        events: Tensor,
        ends: tuple[Tensor, Tensor],
        values: tuple[Tensor, Tensor],
    ) -> Tensor:
        """The times of events, [k], each inside a bracket where its function changes sign."""
        times = torch.empty_like(ends[0])
        for number, event in enumerate(self._events):
            of_event = (events == number).nonzero().squeeze(-1)
            for chosen in field.calls(of_event):
                at = positions[chosen]
                part = field.part(at)

                def value(
                    t: Tensor, event: Event = event, part: RowField = part, at: Tensor = at
                ) -> Tensor:
                    return event_values(event, part, t.unsqueeze(-1), segments.evaluate(at, t))

                brackets = [x[chosen] for x in (*ends, *values)]
                times[chosen] = find_roots(value, *brackets)
        return times


def _ended(
    found: Marks, interrupting: Tensor, forward: Tensor, t1: Tensor, status: Tensor
) -> Marks:
    """Ends rows at the first event that interrupts them, and forgets what comes after it."""
    if not len(found.t):
        return found
    ascending = torch.where(forward[found.position], found.t, -found.t)
    interrupts = interrupting[found.event]
    first = ascending.new_full((len(t1),), torch.inf)
    first.scatter_reduce_(0, found.position[interrupts], ascending[interrupts], "amin")
    ended = first.isfinite()
    t1[ended] = torch.where(forward, first, -first)[ended].unsqueeze(-1)
    status[ended & (status <= int(Status.EVENT))] = int(Status.EVENT)
    kept = ascending <= first[found.position]
    return Marks(found.position[kept], found.t[kept], found.event[kept])


def find_roots(
    function: Callable[[Tensor], Tensor], a: Tensor, b: Tensor, fa: Tensor, fb: Tensor
) -> Tensor:
    """Zeros of a function, each inside a bracket, to the precision of the numbers.

    Args:
        function: of [k] numbers, each its own.
        a: one end of each bracket, [k].
        b: the other, [k].
        fa: the function at ``a``, [k].
        fb: the function at ``b``, of the other sign or zero, [k].

    Source:
        Chandrupatla, A new hybrid quadratic/bisection algorithm for finding the zero of a
        nonlinear function, Advances in Engineering Software 28 (1997).

    Example:
        >>> a, b = torch.zeros(1, dtype=torch.float64), 2 * torch.ones(1, dtype=torch.float64)
        >>> find_roots(lambda x: x**2 - 2, a, b, a**2 - 2, b**2 - 2)
        tensor([1.4142], dtype=torch.float64)
    """
    eps = torch.finfo(a.dtype).eps
    floor = eps * (b - a).abs()
    # a is the newest estimate, [a, b] the bracket, c the end it has last dropped.
    a, b, fa, fb = b, a, fb, fa
    best, fraction = b, torch.full_like(a, 0.5)
    # What is found stays: a root must not depend on how long others take.
    found = torch.zeros_like(a, dtype=torch.bool)
    for _ in range(MAX_ITERATIONS):
        x = a + fraction * (b - a)
        fx = function(x)
        same = fx.sign() == fa.sign()
        c, fc = torch.where(same, a, b), torch.where(same, fa, fb)
        b, fb = torch.where(same, b, a), torch.where(same, fb, fa)
        a, fa = x, fx
        best = torch.where(found, best, torch.where(fa.abs() < fb.abs(), a, b))
        limit = (2 * eps * best.abs() + floor) / (b - a).abs()
        found = found | (limit > 0.5) | (fa == 0) | (fb == 0)
        if bool(found.all()):
            break
        xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
        quadratic = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
        step = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        fraction = torch.where(quadratic & step.isfinite(), step, 0.5)
        limit = limit.clamp(max=0.5).nan_to_num(0.5)
        fraction = torch.minimum(torch.maximum(fraction, limit), 1 - limit)
    return best
