"""What a forward pass keeps for its backward sweep.

Of each step ``(t, h, y)``: enough to take it again. While there is room, also autograd's record
of it, so that small problems need not take their steps twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from odeum.eager.field import RowField
from odeum.eager.records import Record
from odeum.eager.stepper import Memory, Step, Stepper
from odeum.gradient.inputs import Isolated, n_operations, stored_bytes
from odeum.types import Tensor

ROOM_BYTES = 128 * 2**20
"""Memory for autograd's records of steps; steps beyond it are taken again when pulled back."""

OPERATION_BYTES = 1300
"""What the record of an operation takes besides the numbers it stores, as measured: of small
states nearly everything."""

OPERATIONS_OF_A_STAGE = 4
"""That a step does itself for each evaluation of the field."""


@dataclass(frozen=True)
class Recorded:
    """A step recorded by autograd, from inputs that have no history.

    Attributes:
        step: the step; its ``t``, ``h`` and ``y`` are the inputs.
        k0: the input derivative at its start; None where it was evaluated from ``y``.
        k1: ``f(t1, y1)``, where it was evaluated.
    """

    step: Step
    k0: Tensor | None
    k1: Tensor | None


@dataclass(frozen=True)
class Entry:
    """A step of some rows on the tape, with autograd's record where there was room for it."""

    record: Record
    recorded: Recorded | None


class Steps(Protocol):
    """The steps of a solve, for its backward sweep."""

    def records(self) -> list[Record]:
        """Those that rows accepted, in the order they were taken; maybe without their states."""
        ...

    def backwards(self, field: RowField, n_evaluations: Tensor) -> Iterator[Entry]:
        """The same with their states, the last one first.

        Args:
            field: the field on the whole batch.
            n_evaluations: evaluations of each row, [batch], to which those are added that it
                takes to find states again.
        """
        ...


class Entries:
    """Steps that are all kept; see :class:`Steps`."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Takes down the next one."""
        self._entries.append(entry)

    def records(self) -> list[Record]:
        """All of them, in the order they were taken."""
        return [entry.record for entry in self._entries]

    def backwards(self, field: RowField, n_evaluations: Tensor) -> Iterator[Entry]:
        """All of them, the last one first."""
        return reversed(self._entries)


class Tape:
    """Takes steps and remembers those that rows accept; see :class:`Recorder`.

    Args:
        cut: what is solved, with the evaluation it starts from.

    Attributes:
        steps: those that rows accepted.
        start: that evaluation, where there is room for it.
    """

    def __init__(self, cut: Isolated) -> None:
        assert cut.start is not None
        self.steps = Entries()
        self._wants_times = cut.wants_times
        n_bytes = stored_bytes(cut.start.k, cut.leaves)
        self.start = cut.start if n_bytes <= ROOM_BYTES else None
        # Its value is kept besides: the stages of a step, of which the sums of them are made.
        n_rows = max(len(cut.k0), 1)
        self._bytes_per_row = (n_bytes + cut.k0.nbytes) / n_rows
        n_recorded = n_operations(cut.start.k) + OPERATIONS_OF_A_STAGE
        self._bytes_per_evaluation = OPERATION_BYTES * n_recorded
        self._room = float(ROOM_BYTES)
        self._recorded: Recorded | None = None

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
        n_bytes = self._bytes_per_evaluation + self._bytes_per_row * len(y)
        self._room -= n_bytes * (stepper.n_evaluations + 1)
        if stepper.implicit or self._room < 0:
            return stepper.step(field, t, h, y, k0, memory)
        with torch.enable_grad():
            inputs = [x.detach().requires_grad_(self._wants_times) for x in (t, h)]
            inputs += [x.detach().requires_grad_() for x in (y, k0)]
            t_leaf, h_leaf, y_leaf, k_leaf = inputs
            step = stepper.step(field, t_leaf, h_leaf, y_leaf, k_leaf, memory)
        end = None if stepper.end_stage is None else step.ks[stepper.end_stage]
        self._recorded = Recorded(step, k_leaf, end)
        # The loop runs where autograd does not record: what it makes of these has no history.
        return replace(step, t=t, h=h, y=y)

    def end_derivative(self, field: RowField, t1: Tensor, y1: Tensor) -> Tensor:
        """``f(t1, y1)`` at the end of the last step; recorded where it is for all its rows."""
        if self._recorded is None or len(y1) < len(self._recorded.step.y):
            return field(t1.to(y1.dtype), y1)
        step = self._recorded.step
        with torch.enable_grad():
            k1 = field((step.t + step.h).to(y1.dtype), step.y1)
        self._recorded = Recorded(step, self._recorded.k0, k1)
        return k1

    def add(self, record: Record) -> None:
        """Takes down what became of the last step."""
        recorded, self._recorded = self._recorded, None
        if recorded is not None and not record.finite:
            # Zeros pulled back through a rejected row's infinities would become NaN.
            recorded = None
        if recorded is None:
            record = record.accepted()
        if len(record.rows):
            self.steps.add(Entry(record, recorded))
