"""What a forward pass keeps for its backward sweep.

Of each step ``(t, h, y)``: enough to take it again. While there is room, also autograd's record
of it, so that small problems need not take their steps twice.
"""

from dataclasses import dataclass

import torch

from odeum.eager.explicit import Step, Stepper, Weights
from odeum.eager.field import RowField
from odeum.eager.records import Record
from odeum.tableaus import RKTableau
from odeum.types import Tensor

ROOM_BYTES = 128 * 2**20
"""Memory for autograd's records of steps; steps beyond it are taken again when pulled back."""


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


class Tape:
    """A stepper that remembers its steps.

    Args:
        stepper: the one that makes them.
        bytes_per_row: what autograd stores for one row's evaluation of the field.
        wants_times: whether gradients of times are asked for.

    Attributes:
        entries: the steps that rows accepted, in the order they were taken.
    """

    def __init__(self, stepper: Stepper, bytes_per_row: float, *, wants_times: bool) -> None:
        self.stepper = stepper
        self.entries: list[Entry] = []
        self._wants_times = wants_times
        self._bytes_per_row = bytes_per_row * stepper.tableau.n_stages
        self._room = float(ROOM_BYTES)
        self._recorded: Recorded | None = None

    @property
    def tableau(self) -> RKTableau:
        """The method."""
        return self.stepper.tableau

    @property
    def fsal(self) -> bool:
        """Whether the last stage of a step is the first of the next."""
        return self.stepper.fsal

    @property
    def extra_stages(self) -> list[Weights]:
        """The extra stages of the dense output."""
        return self.stepper.extra_stages

    def step(self, field: RowField, t: Tensor, h: Tensor, y: Tensor, k0: Tensor) -> Step:
        """Tries one step."""
        self._room -= self._bytes_per_row * len(y)
        if self._room < 0:
            return self.stepper.step(field, t, h, y, k0)
        with torch.enable_grad():
            inputs = [x.detach().requires_grad_(self._wants_times) for x in (t, h)]
            inputs += [x.detach().requires_grad_() for x in (y, k0)]
            step = self.stepper.step(field, *inputs)
        self._recorded = Recorded(step, inputs[3], step.ks[-1] if self.fsal else None)
        # The loop runs where autograd does not record: what it makes of these has no history.
        return Step(t, h, y, step.y1, step.ks)

    def end_derivative(self, field: RowField, t1: Tensor, y1: Tensor) -> Tensor:
        """``f(t1, y1)`` at the end of the last step; recorded where it is for all its rows."""
        if self._recorded is None or len(y1) < len(self._recorded.step.y):
            return self.stepper.end_derivative(field, t1, y1)
        step = self._recorded.step
        with torch.enable_grad():
            k1 = self.stepper.end_derivative(field, step.t + step.h, step.y1)
        self._recorded = Recorded(step, self._recorded.k0, k1)
        return k1

    def extra_derivatives(
        self, field: RowField, t: Tensor, h: Tensor, y: Tensor, ks: list[Tensor]
    ) -> list[Tensor]:
        """The extra stages of the dense output; they are not recorded."""
        return self.stepper.extra_derivatives(field, t, h, y, ks)

    def add(self, record: Record) -> None:
        """Takes down what became of the last step."""
        recorded, self._recorded = self._recorded, None
        if recorded is not None and not record.finite:
            # Zeros pulled back through a rejected row's infinities would become NaN.
            recorded = None
        if recorded is None:
            record = record.accepted()
        if len(record.rows):
            self.entries.append(Entry(record, recorded))
