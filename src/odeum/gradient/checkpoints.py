"""A tape of few states: those between are found again from the nearest one kept before them.

Owns which states are kept, and taking steps again bit for bit; what is done with a step then is
the sweep's business. Of every try only what is no state is kept: times, sizes, who accepted it.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from odeum.eager.completion import put
from odeum.eager.field import RowField
from odeum.eager.records import Record
from odeum.eager.stepper import Memory, Step, Stepper
from odeum.gradient.tape import Entry
from odeum.types import Tensor


@dataclass(frozen=True)
class Stand:
    """Where the rows of a batch stand between two tries.

    Attributes:
        y: their states, [batch, dim].
        k: their derivatives, [batch, dim].
        memory: what the stepper of the last try carries on, of each row that tried.
        rows: those rows; None before the first try.
        stepper: that stepper; None before the first try.
    """

    y: Tensor
    k: Tensor
    memory: Memory = ()
    rows: Tensor | None = None
    stepper: Stepper | None = None

    def enter(self, record: Record) -> tuple[Tensor, Tensor, Memory]:
        """States, derivatives and memory of the rows of the next try."""
        rows, last = record.rows, self.rows
        whole = len(rows) == len(self.y)
        y, k = (self.y, self.k) if whole else (self.y[rows], self.k[rows])
        if self.stepper is not record.stepper or last is None:
            return y, k, ()
        if len(last) == len(rows):
            return y, k, self.memory
        at = torch.searchsorted(last, rows)
        return y, k, tuple(x[at] for x in self.memory)

    def leave(self, record: Record, step: Step, k0: Tensor, k1: Tensor) -> "Stand":
        """Where they stand after it.

        Args:
            record: the try.
            step: its step.
            k0: derivatives at its start, [rows, dim].
            k1: those at its end, [rows, dim].
        """
        y1 = step.y1
        if record.accept is not None:
            y1 = torch.where(record.accept, y1, step.y)
            k1 = torch.where(record.accept, k1, k0)
        y, k = put(self.y, record.rows, y1), put(self.k, record.rows, k1)
        return Stand(y, k, step.memory, record.rows, record.stepper)


@dataclass(frozen=True)
class _Kept:
    """A state kept: the number of the try it is before, and how long it is worth keeping."""

    position: int
    level: float
    stand: Stand


class Slots:
    """Room for few states of a sequence whose length is not known beforehand.

    With ``k`` slots for ``n`` steps, none is taken again more than ``r`` times, where ``r`` is the
    smallest number with ``binomial(k + r, r) >= n``: 3 or 4 times for 16 slots and 1000 steps.

    Args:
        n_slots: how many, >= 1.

    Attributes:
        n_retaken: steps taken again so far.

    Source:
        Wang, Moin & Iaccarino, Minimal repetition dynamic checkpointing algorithm for unsteady
        adjoint calculation, SIAM J. Sci. Comput. 31 (2009), on the way forward; Griewank &
        Walther, Algorithm 799: revolve, ACM Trans. Math. Softw. 26 (2000), on the way back.
    """

    def __init__(self, n_slots: int) -> None:
        self.n_retaken = 0
        self._n_slots = n_slots
        self._kept: list[_Kept] = []

    def __len__(self) -> int:
        """States kept now."""
        return len(self._kept)

    def offer(self, position: int, stand: Stand) -> None:
        """Keeps the state before the next try, in the place of another where there is no room."""
        level: float = 0 if self._kept else math.inf
        if len(self._kept) == self._n_slots:
            if self._n_slots == 1:
                return
            i = self._dispensable()
            is_last = i == len(self._kept) - 1
            given_up = self._kept.pop(i)
            level = given_up.level + 1 if is_last else 0
        self._kept.append(_Kept(position, level, stand))

    def _dispensable(self) -> int:
        """The last state kept that a later one of a higher level stands in for, or the last."""
        highest = -1.0
        for i in reversed(range(1, len(self._kept))):
            if self._kept[i].level < highest:
                return i
            highest = max(highest, self._kept[i].level)
        return len(self._kept) - 1

    def recall(self, position: int, advance: Callable[[Stand, int], Stand]) -> Stand:
        """The state before a try; none before a later one will be asked for in this pass.

        Args:
            position: the number of the try.
            advance: takes one try again: the state before it and its number lead to that after.
        """
        while self._kept[-1].position > position:
            self._kept.pop()
        while True:
            start = self._kept[-1]
            if start.position == position:
                return start.stand
            free = self._n_slots - len(self._kept)
            target = position
            if free:
                target = start.position + stride(position - start.position + 1, free + 1)
            stand = start.stand
            for i in range(start.position, target):
                stand = advance(stand, i)
                self.n_retaken += 1
            if not free:
                return stand
            self._kept.append(_Kept(target, 0, stand))


def stride(n_steps: int, n_slots: int) -> int:
    """How many steps to take before the next state is kept, so that fewest are taken again.

    Args:
        n_steps: steps to be pulled back, >= 2.
        n_slots: slots, that of the state at their start among them, >= 2.

    Source:
        Griewank & Walther, Algorithm 799: revolve (2000), section 2.

    Example:
        >>> stride(10, 3)  # the three last from one state, the ones before from another
        4
    """
    repetitions = 1
    while math.comb(n_slots + repetitions, n_slots) < n_steps:
        repetitions += 1
    return min(
        math.comb(n_slots + repetitions - 1, n_slots),
        n_steps - math.comb(n_slots + repetitions - 2, n_slots - 1),
    )


@dataclass(frozen=True)
class _Try:
    """What is kept of every try.

    Attributes:
        record: of it, but for states and derivatives.
        at: positions of the rows whose derivative at the end was evaluated; None for all.
        accepted: whether any row accepted it.
    """

    record: Record
    at: Tensor | None
    accepted: bool


class Checkpointed:
    """The steps of a solve of which few states are kept; see :class:`~odeum.gradient.tape.Steps`.

    Args:
        n_checkpoints: at most so many are kept, >= 1.
    """

    def __init__(self, n_checkpoints: int) -> None:
        self.slots = Slots(n_checkpoints)
        self._tries: list[_Try] = []

    def add(self, tried: _Try, before: Stand) -> None:
        """Takes down a try, and the state before it as far as there is room."""
        self.slots.offer(len(self._tries), before)
        self._tries.append(tried)

    def records(self) -> list[Record]:
        """The steps that rows accepted, without states, in the order they were taken."""
        return [tried.record.accepted() for tried in self._tries if tried.accepted]

    def backwards(self, field: RowField, n_evaluations: Tensor) -> Iterator[Entry]:
        """The steps that rows accepted, the last one first, their states found again."""
        again = _Again(self._tries, field, n_evaluations)
        for i in reversed(range(len(self._tries))):
            if not self._tries[i].accepted:
                continue
            record = self._tries[i].record
            stand = self.slots.recall(i, again.advance)
            y, _, _ = stand.enter(record)
            ks = again.step(stand, record).ks if record.stepper.implicit else []
            yield Entry(replace(record, y=y, ks=ks).accepted(), None)


class CheckpointTape:
    """Takes steps and remembers few of their states; see :class:`~odeum.eager.records.Recorder`.

    Args:
        n_checkpoints: at most so many are kept, >= 1.
        y0: initial states, [batch, dim].
        k0: derivatives there, [batch, dim].

    Attributes:
        steps: what is kept.
    """

    def __init__(self, n_checkpoints: int, y0: Tensor, k0: Tensor) -> None:
        self.steps = Checkpointed(n_checkpoints)
        self._stand = Stand(y0, k0)
        # Of the last try:
        self._step: Step | None = None
        self._k0 = k0
        self._field_rows: Tensor | None = None
        self._end: tuple[Tensor | None, Tensor] | None = None

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
        self._end, self._field_rows, self._k0 = None, field.rows, k0
        self._step = stepper.step(field, t, h, y, k0, memory)
        return self._step

    def end_derivative(self, field: RowField, t1: Tensor, y1: Tensor) -> Tensor:
        """``f(t1, y1)`` at the end of the last step, in all its rows or some of them."""
        assert self._step is not None
        k1 = field(t1.to(y1.dtype), y1)
        at = None
        if len(y1) < len(self._step.y):
            at = field.rows
            assert at is not None
            if self._field_rows is not None:
                at = torch.isin(self._field_rows, at).nonzero().squeeze(-1)
        self._end = at, k1
        return k1

    def add(self, record: Record) -> None:
        """Takes down what became of the last step."""
        step, self._step = self._step, None
        assert step is not None
        accepted = record.accept is None or bool(record.accept.any())
        if not accepted and not record.stepper.implicit:
            return
        at, k1 = self._end or (record.rows[:0], record.y[:0])
        nowhere = record.y.new_empty(len(record.rows), 0)
        tried = _Try(replace(record, y=nowhere, ks=[]), at, accepted=accepted)
        self.steps.add(tried, self._stand)
        self._stand = self._stand.leave(record, step, self._k0, _end(step, record, at, k1))


class _Again:
    """Takes tries again, with the same operations on the same rows."""

    def __init__(self, tries: list[_Try], field: RowField, n_evaluations: Tensor) -> None:
        self._tries = tries
        self._n_evaluations = n_evaluations
        self._whole = field
        self._rows: Tensor | None = None
        self._field = field

    def _select(self, rows: Tensor) -> RowField:
        if rows is not self._rows:
            self._rows, self._field = rows, self._whole.select(rows)
        return self._field

    def step(self, stand: Stand, record: Record) -> Step:
        """One try's step."""
        y, k0, memory = stand.enter(record)
        field = self._select(record.rows)
        with torch.no_grad():
            step = record.stepper.step(field, record.t, record.h, y, k0, memory)
        self._n_evaluations[record.rows] += record.stepper.n_evaluations
        if step.work is not None:
            self._n_evaluations[record.rows] += step.work.n_evaluations
        return step

    def advance(self, stand: Stand, i: int) -> Stand:
        """From before one try to after it."""
        record, at = self._tries[i].record, self._tries[i].at
        step = self.step(stand, record)
        _, k0, _ = stand.enter(record)
        k1 = step.y1[:0]
        if record.stepper.end_stage is None and (at is None or len(at)):
            field = self._select(record.rows)
            t1, y1, rows = record.t1, step.y1, record.rows
            if at is not None:
                field, t1, y1, rows = field.part(at), t1[at], y1[at], rows[at]
            with torch.no_grad():
                k1 = field(t1.to(y1.dtype), y1)
            self._n_evaluations[rows] += 1
        return stand.leave(record, step, k0, _end(step, record, at, k1))


def _end(step: Step, record: Record, at: Tensor | None, k1: Tensor) -> Tensor:
    """The derivatives at the end of a step, [rows, dim], evaluated in the rows ``at``."""
    if record.stepper.end_stage is not None:
        return step.ks[record.stepper.end_stage]
    return k1 if at is None else put(torch.zeros_like(step.y), at, k1)
