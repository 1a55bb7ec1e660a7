"""What a step needs beyond its stages: the derivative at its end, and its dense output.

Evaluated in the rows that want it alone.
"""

from collections.abc import Callable

import torch

from odeum.eager.field import RowField
from odeum.eager.ledger import Ledger
from odeum.eager.outputs import Segments
from odeum.eager.records import Recorder
from odeum.eager.stepper import Step, Stepper
from odeum.eager.times import Times
from odeum.types import Tensor


class Completion:
    """Completes the steps of one loop.

    Args:
        stepper: the method.
        times: the output times.
        ledger: told of evaluations that only some rows have.
        recorder: evaluates the derivatives at ends, where there is one.
        everywhere: whether the dense output of every step is wanted, or only of those that have
            an output inside.

    Attributes:
        n_evaluations: evaluations that every running row has had.
    """

    def __init__(
        self,
        stepper: Stepper,
        times: Times,
        ledger: Ledger,
        recorder: Recorder | None,
        *,
        everywhere: bool,
    ) -> None:
        self.n_evaluations = 0
        self._stepper = stepper
        self._times = times
        self._ledger = ledger
        self._recorder = recorder
        self._everywhere = everywhere

    def end_derivative(
        self, field: RowField, rows: Tensor, step: Step, t1: Tensor, finished: Tensor | None
    ) -> Tensor:
        """``f(t1, y1)``, [rows, dim], in rows that moved and go on or interpolate.

        Args:
            field: the field on the running rows.
            rows: which rows of the batch those are, [rows].
            step: their step.
            t1: where it ends, [rows, 1].
            finished: rows that do not go on, [rows]; None where all go on.
        """
        if self._stepper.end_stage is not None:
            return step.ks[self._stepper.end_stage]
        if finished is None:
            self.n_evaluations += 1
            return self._evaluate_end(field, t1, step.y1)
        wanted = (t1 != step.t).squeeze(-1) & (~finished | self._wants_inside(rows, step.t, t1))
        return self._where(
            wanted,
            field,
            rows,
            step,
            lambda part, at: [self._evaluate_end(part, t1[at], step.y1[at])],
        )[0]

    def _evaluate_end(self, field: RowField, t1: Tensor, y1: Tensor) -> Tensor:
        if self._recorder is None:
            return field(t1.to(y1.dtype), y1)
        return self._recorder.end_derivative(field, t1, y1)

    def segments(
        self, field: RowField, rows: Tensor, step: Step, t1: Tensor, k1: Tensor
    ) -> Segments:
        """The steps with what their dense output needs; see :meth:`end_derivative`."""
        derivatives = self._stepper.derivatives(step.ks, k1)
        if self._stepper.n_extra:
            wanted = self._wants_inside(rows, step.t, t1) & (t1 != step.t).squeeze(-1)
            derivatives = derivatives + self._where(
                wanted,
                field,
                rows,
                step,
                lambda part, at: self._stepper.extra_derivatives(
                    part, step.t[at], step.h[at], step.y[at], [k[at] for k in derivatives]
                ),
                n_values=self._stepper.n_extra,
            )
        ks = torch.stack(derivatives)
        return Segments(self._stepper.dense, rows, step.t, t1, step.h, step.y, ks)

    def _wants_inside(self, rows: Tensor, t: Tensor, t1: Tensor) -> Tensor:
        """Which rows have states asked for strictly inside a step, [rows]."""
        if self._everywhere:
            return torch.ones_like(rows, dtype=torch.bool)
        return self._times.has_interior(rows, t, t1)

    def _where(
        self,
        wanted: Tensor,
        field: RowField,
        rows: Tensor,
        step: Step,
        evaluate: Callable[[RowField, Tensor], list[Tensor]],
        n_values: int = 1,
    ) -> list[Tensor]:
        """Derivatives in the rows that want them, zero in the others, each [rows, dim]."""
        at = wanted.nonzero().squeeze(-1)
        if not len(at):
            return [torch.zeros_like(step.y)] * n_values
        self._ledger.stats.n_evaluations[rows[at]] += n_values
        part = field if len(at) == len(rows) else field.part(at)
        return [put(torch.zeros_like(step.y), at, value) for value in evaluate(part, at)]


def put(old: Tensor, index: Tensor, new: Tensor) -> Tensor:
    """``old`` with the rows at ``index`` replaced."""
    return new if len(index) == len(old) else old.index_copy(0, index, new)
