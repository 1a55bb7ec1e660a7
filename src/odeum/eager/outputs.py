"""From steps to the states at the output times, and to the state at any time.

Steps are kept, with their derivatives, until enough have come to evaluate many outputs at once.
"""

from dataclasses import dataclass

import torch

from odeum.eager.explicit import Stepper, interpolate
from odeum.eager.times import Times
from odeum.types import Tensor

FLUSH_BYTES = 16 * 2**20
"""Derivatives kept before the outputs inside their steps are evaluated."""


@dataclass(frozen=True)
class Segments:
    """Accepted steps with what their interpolant needs.

    Attributes:
        rows: the row of each step, [steps].
        t: where they start, [steps, 1].
        t1: where they end, [steps, 1].
        h: their signed sizes, [steps, 1].
        y: states at their starts, [steps, dim].
        ks: derivatives, [derivatives, steps, dim].
    """

    rows: Tensor
    t: Tensor
    t1: Tensor
    h: Tensor
    y: Tensor
    ks: Tensor

    def select(self, steps: Tensor) -> "Segments":
        """Some of the steps."""
        rows, t, t1, h, y = (
            x.index_select(0, steps) for x in (self.rows, self.t, self.t1, self.h, self.y)
        )
        return Segments(rows, t, t1, h, y, self.ks.index_select(1, steps))

    @staticmethod
    def concatenate(parts: "list[Segments]") -> "Segments":
        """All steps as one, in the order given."""
        if len(parts) == 1:
            return parts[0]
        rows, t, t1, h, y = (
            torch.cat([getattr(part, name) for part in parts])
            for name in ("rows", "t", "t1", "h", "y")
        )
        return Segments(rows, t, t1, h, y, torch.cat([part.ks for part in parts], 1))

    def evaluate(self, stepper: Stepper, step: Tensor, t: Tensor) -> Tensor:
        """States at times ``t`` [k], each inside the step at position ``step`` [k]."""
        h = self.h.index_select(0, step)
        theta = (t - self.t.index_select(0, step).squeeze(-1)) / h.squeeze(-1)
        y = self.y.index_select(0, step)
        return interpolate(stepper, theta, h.to(y.dtype), y, self.ks.index_select(1, step))


class Outputs:
    """States at the output times, filled in as the steps come.

    Args:
        times: the output times.
        stepper: the method.
        y0: initial states, [batch, dim].
        keep: whether to keep all steps, for evaluation at any time.
    """

    def __init__(self, times: Times, stepper: Stepper, y0: Tensor, *, keep: bool) -> None:
        self.times = times
        self.stepper = stepper
        self.keep = keep
        self.kept: list[Segments] = []
        self._waiting: list[Segments] = []
        self._bytes = 0
        self._n_rows = len(y0)
        # Flat over (time, row): NaN where a row never arrives.
        self._ys = y0.new_full((times.n_times * len(y0), y0.shape[1]), torch.nan)
        self._ys.narrow(0, 0, len(y0)).copy_(y0)

    def add(self, segments: Segments) -> None:
        """Takes accepted steps; of each row in the order of time."""
        self._waiting.append(segments)
        self._bytes += segments.ks.numel() * segments.ks.element_size()
        if self._bytes > FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        segments = Segments.concatenate(self._waiting)
        self._waiting, self._bytes = [], 0
        if self.keep:
            self.kept.append(segments)
        step, index = self.times.hits(segments.rows, segments.t, segments.t1)
        if len(step):
            rows = segments.rows.index_select(0, step)
            states = segments.evaluate(self.stepper, step, self.times.at(index, rows))
            self._ys.index_copy_(0, index * self._n_rows + rows, states)

    def ys(self) -> Tensor:
        """[time, batch, dim]."""
        self._flush()
        return self._ys.view(self.times.n_times, self._n_rows, -1)


class Interpolant:
    """The state of every row at any time of its solve.

    Args:
        stepper: the method.
        segments: all accepted steps.
        times: the output times, for each row's direction.
    """

    def __init__(self, stepper: Stepper, segments: Segments, times: Times) -> None:
        self._stepper = stepper
        self._n_rows = len(times.start)
        # Row by row, within each in the order of the steps.
        order = torch.argsort(segments.rows, stable=True)
        n_steps = torch.bincount(segments.rows, minlength=self._n_rows)
        first = n_steps.cumsum(0) - n_steps
        within = torch.arange(len(order), device=order.device) - first[segments.rows[order]]
        width = int(n_steps.max())
        self._direction = times.direction
        self._segments = segments
        ends = (segments.t1.detach() * times.direction[segments.rows]).squeeze(-1)
        self._ends = ends.new_full((self._n_rows, width), torch.inf)
        self._ends[segments.rows[order], within] = ends[order]
        self._steps = order.new_zeros(self._n_rows, width)
        self._steps[segments.rows[order], within] = order
        last = (n_steps - 1).clamp(min=0).unsqueeze(-1)
        self._begin = (times.start.detach() * times.direction).squeeze(-1)
        self._end = torch.where(
            n_steps > 0, self._ends.gather(1, last).squeeze(-1), self._begin - 1
        )

    def __call__(self, t: Tensor) -> Tensor:
        """[k, batch, dim] at times [k, batch]; NaN outside the span a row was solved over."""
        ascending = (t.detach() * self._direction.squeeze(-1)).t().contiguous()
        position = torch.searchsorted(self._ends, ascending).clamp_(max=self._ends.shape[1] - 1)
        inside = (ascending >= self._begin[:, None]) & (ascending <= self._end[:, None])
        step = self._steps.gather(1, position).t()
        states = self._segments.evaluate(self._stepper, step.reshape(-1), t.reshape(-1))
        outside = ~inside.t().reshape(-1, 1)
        return states.masked_fill(outside, torch.nan).view(*t.shape, -1)
