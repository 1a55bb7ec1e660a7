"""The steps of a solve once more, all in one autograd graph: what second derivatives come from.

Owns how the outputs of a solve follow from its inputs over steps that are known; the first
derivative has a way of its own (sweep.py), which needs no such graph.
"""

from collections.abc import Sequence

import torch

from odeum.eager.outputs import Segments
from odeum.eager.problem import Problem
from odeum.eager.records import NOT_CUT, Marks, Record
from odeum.eager.stepper import Step
from odeum.types import Tensor


class Retrace:
    """A solve over steps taken before, recorded by autograd.

    Step sizes count as constants, but for steps cut to land on an output time.

    Args:
        problem: what was solved, with inputs that want gradients.
        records: its accepted steps with their states, in the order they were taken.

    Attributes:
        segments: the steps as dense output keeps them.
        marked: states at marks, in the order they were met, [marks, dim].
        ys: states at the output times, [time, batch, dim].
    """

    def __init__(self, problem: Problem, records: Sequence[Record]) -> None:
        self._problem = problem
        self._times = times = problem.times()
        n_rows, dim = problem.y0.shape
        self._t, self._y = times.start, problem.y0
        self._places = [
            torch.arange(n_rows if times.starts_at_output else 0, device=self._y.device)
        ]
        self._states = [self._y[: len(self._places[0])]]
        self._marked = [self._y[:0]]
        parts: list[Segments] = []
        for record in records:
            self._take(record, parts)
        self.segments = Segments.by_method(parts)
        self.marked = torch.cat(self._marked)
        ys = self._y.new_full((times.n_times * n_rows, dim), torch.nan)
        ys = ys.index_copy(0, torch.cat(self._places), torch.cat(self._states))
        self.ys = ys.view(times.n_times, n_rows, dim)

    def _take(self, record: Record, parts: list[Segments]) -> None:
        """Takes one step, and what is asked of it."""
        rows = record.rows
        t, y = self._t[rows], self._y[rows]
        h, t1 = self._sizes(record, t)
        step_of, index = self._times.hits(rows, record.t, record.t1)
        asked = self._problem.dense or record.marks is not None or len(index) > 0
        step = self._step(record, t, h, y, with_end=asked)
        if asked:
            part = self._segments(record, step)
            if self._problem.dense:
                parts.append(part)
            states = part.evaluate(step_of, self._times.at(index, rows[step_of]))
            self._places.append(index * len(self._y) + rows[step_of])
            self._states.append(states)
            marks = record.marks or Marks(rows[:0], record.t[:0, 0], rows[:0])
            self._marked.append(part.evaluate(marks.position, marks.t))
        self._t = self._t.index_copy(0, rows, t1)
        self._y = self._y.index_copy(0, rows, step.y1)

    def _sizes(self, record: Record, t: Tensor) -> tuple[Tensor, Tensor]:
        """The sizes of steps from ``t``, and where they end."""
        if record.stops is None:
            return record.h, t + record.h
        landed = (record.stops != NOT_CUT).unsqueeze(-1)
        outputs = self._times.at(record.stops.clamp(min=0), record.rows).unsqueeze(-1)
        stop = torch.where((record.stops >= 0).unsqueeze(-1), outputs, record.t + record.h)
        return torch.where(landed, stop - t, record.h), torch.where(landed, stop, t + record.h)

    def _step(self, record: Record, t: Tensor, h: Tensor, y: Tensor, *, with_end: bool) -> Step:
        stepper, field = record.stepper, self._problem.field.select(record.rows)
        k0 = field(t.to(y.dtype), y)
        return stepper.record(field, t, h, y, k0, record.ks, with_end=with_end)

    def _segments(self, record: Record, step: Step) -> Segments:
        """The step with all that its dense output weighs."""
        stepper, field = record.stepper, self._problem.field.select(record.rows)
        if stepper.end_stage is None:
            k1 = field((step.t + step.h).to(step.y.dtype), step.y1)
        else:
            k1 = step.ks[stepper.end_stage]
        ks = stepper.derivatives(step.ks, k1)
        ks = ks + stepper.extra_derivatives(field, step.t, step.h, step.y, ks)
        return Segments(
            stepper.dense, record.rows, step.t, record.t1, step.h, step.y, torch.stack(ks)
        )
