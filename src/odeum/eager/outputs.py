"""From steps to the states at the output times, and to the state at any time.

Steps are kept, with their derivatives, until enough have come to evaluate many outputs at once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from odeum.eager.dense import Interpolation
from odeum.eager.recording import carries_tangents
from odeum.eager.times import Times
from odeum.types import Tensor

FLUSH_BYTES = 16 * 2**20
"""Steps kept before the outputs inside them are evaluated."""


@dataclass(frozen=True)
class Segments:
    """Accepted steps with what their interpolant needs.

    Attributes:
        dense: the continuous extension of the method that took them.
        rows: the row of each step, [steps].
        t: where they start, [steps, 1].
        t1: where they end, [steps, 1].
        h: their signed sizes, [steps, 1].
        y: states at their starts, [steps, dim].
        ks: derivatives, [derivatives, steps, dim].
    """

    dense: Interpolation
    rows: Tensor
    t: Tensor
    t1: Tensor
    h: Tensor
    y: Tensor
    ks: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in the order of the attributes."""
        return (self.rows, self.t, self.t1, self.h, self.y, self.ks)

    def select(self, steps: Tensor) -> "Segments":
        """Some of the steps."""
        rows, t, t1, h, y = (
            x.index_select(0, steps) for x in (self.rows, self.t, self.t1, self.h, self.y)
        )
        return Segments(self.dense, rows, t, t1, h, y, self.ks.index_select(1, steps))

    @staticmethod
    def concatenate(parts: "list[Segments]") -> "Segments":
        """All steps of one method as one, in the order given."""
        if len(parts) == 1:
            return parts[0]
        rows, t, t1, h, y = (
            torch.cat([getattr(part, name) for part in parts])
            for name in ("rows", "t", "t1", "h", "y")
        )
        ks = torch.cat([part.ks for part in parts], 1)
        return Segments(parts[0].dense, rows, t, t1, h, y, ks)

    @staticmethod
    def by_method(parts: "list[Segments]") -> "list[Segments]":
        """One for each method that took any of the steps, in the order given."""
        methods: dict[int, list[Segments]] = {}
        for part in parts:
            methods.setdefault(id(part.dense), []).append(part)
        return [Segments.concatenate(same) for same in methods.values()]

    def evaluate(self, step: Tensor, t: Tensor) -> Tensor:
        """States at times ``t`` [k], each inside the step at position ``step`` [k]."""
        h = self.h.index_select(0, step)
        theta = (t - self.t.index_select(0, step).squeeze(-1)) / h.squeeze(-1)
        y = self.y.index_select(0, step)
        return self.dense(theta, h.to(y.dtype), y, self.ks.index_select(1, step))

    def slope(self, step: Tensor, t: Tensor) -> Tensor:
        """The interpolant's ``dy/dt`` at times ``t`` [k], each inside the step ``step`` [k]."""
        start, h = (x.index_select(0, step).squeeze(-1) for x in (self.t, self.h))
        ks = self.ks.index_select(1, step).unbind(0)
        return self.dense.derivative((t - start) / h, ks)


class Outputs:
    """States at the output times, filled in as the steps come.

    Args:
        times: the output times.
        y0: initial states, [batch, dim].
        keep: whether all steps are wanted, for evaluation at any time.
        on_steps: takes them, some at a time; kept where None.
    """

    def __init__(
        self,
        times: Times,
        y0: Tensor,
        *,
        keep: bool,
        on_steps: Callable[[Segments], None] | None = None,
    ) -> None:
        self.times = times
        self.keep = keep
        self._kept: list[Segments] = []
        self._take = on_steps or self._kept.append
        self._waiting: list[Segments] = []
        self._bytes = 0
        self._n_rows = len(y0)
        # Flat over (time, row): NaN where a row never arrives.
        self._ys = y0.new_full((times.n_times * len(y0), y0.shape[1]), torch.nan)
        if times.starts_at_output:
            self._ys.narrow(0, 0, len(y0)).copy_(y0)

    def add(self, segments: Segments) -> None:
        """Takes accepted steps; of each row in the order of time."""
        self._waiting.append(segments)
        self._bytes += sum(x.nbytes for x in segments.tensors)
        if self._bytes > FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        for segments in Segments.by_method(waiting):
            if self.keep:
                self._take(segments)
            step, index = self.times.hits(segments.rows, segments.t, segments.t1)
            if len(step):
                rows = segments.rows.index_select(0, step)
                states = segments.evaluate(step, self.times.at(index, rows))
                places = index * self._n_rows + rows
                if carries_tangents():  # which torch does not batch in place
                    self._ys = self._ys.index_copy(0, places, states)
                else:
                    self._ys.index_copy_(0, places, states)

    def segments(self) -> list[Segments]:
        """All steps, where they are kept; those of each method together."""
        self._flush()
        return Segments.by_method(self._kept)

    def ys(self) -> Tensor:
        """[time, batch, dim]."""
        self._flush()
        return self._ys.view(self.times.n_times, self._n_rows, self._ys.shape[1])


class Interpolant:
    """The state of every row at any time of its solve.

    Args:
        segments: all accepted steps, those of each method together; of each row in the order of
            time.
        direction: +1 or -1 per row, [batch, 1].
        like: states, [batch, dim].
    """

    def __init__(self, segments: list[Segments], direction: Tensor, like: Tensor) -> None:
        self._nowhere = torch.full_like(like, torch.nan)
        self._parts = [_Searchable(part, direction) for part in segments]

    def __call__(self, t: Tensor) -> Tensor:
        """[k, batch, dim] at times [k, batch]; NaN outside the span a row was solved over."""
        states = self._nowhere.expand(len(t), -1, -1)
        for part in self._parts:
            found = part(t)
            states = torch.where(states.isnan(), found, states)
        return states


class _Searchable:
    """Steps of one method, whose states are found by time."""

    def __init__(self, segments: Segments, direction: Tensor) -> None:
        self._segments = segments
        self._direction = direction
        self._index = StepIndex(segments.rows, segments.t1, direction)

    def __call__(self, t: Tensor) -> Tensor:
        segments, direction = self._segments, self._direction
        rows = torch.arange(len(direction), device=t.device)
        step = self._index(rows, t.t())
        ascending = t.detach().t() * direction
        begins, ends = (
            (x.detach() * direction[segments.rows]).squeeze(-1)[step]
            for x in (segments.t, segments.t1)
        )
        # A row has gaps where another method took its steps, or none of this one.
        inside = (ascending >= begins) & (ascending <= ends)
        inside &= segments.rows[step] == rows.unsqueeze(-1)
        states = segments.evaluate(step.t().reshape(-1), t.reshape(-1))
        return states.masked_fill(~inside.t().reshape(-1, 1), torch.nan).view(*t.shape, -1)


class StepIndex:
    """Finds steps by the times inside them.

    Args:
        rows: the row of each step, [steps].
        t1: where each ends, [steps, 1].
        direction: +1 or -1 per row, [batch, 1].

    Example:
        >>> ends = torch.tensor([[1.0], [2.0]])
        >>> index = StepIndex(torch.tensor([0, 0]), ends, torch.ones(1, 1))
        >>> index(torch.tensor([0]), torch.tensor([[0.5, 1.0, 1.5]]))
        tensor([[0, 0, 1]])
    """

    def __init__(self, rows: Tensor, t1: Tensor, direction: Tensor) -> None:
        self._direction = direction
        ends = (t1.detach() * direction[rows]).squeeze(-1)
        # Row by row, within each in the order of time.
        by_time = ends.argsort(stable=True)
        order = by_time[rows[by_time].argsort(stable=True)]
        n_steps = torch.bincount(rows, minlength=len(direction))
        first = n_steps.cumsum(0) - n_steps
        within = torch.arange(len(order), device=order.device) - first[rows[order]]
        self._last = (n_steps - 1).clamp(min=0).unsqueeze(-1)
        self._ends = ends.new_full((len(direction), int(n_steps.max())), torch.inf)
        self._ends[rows[order], within] = ends[order]
        self._steps = order.new_zeros(self._ends.shape)
        self._steps[rows[order], within] = order

    def __call__(self, rows: Tensor, t: Tensor) -> Tensor:
        """Positions of the steps of rows [n] that times [n, k] lie in, [n, k].

        Of the first or the last step for times outside; of any where a row took none.
        """
        ascending = (t.detach() * self._direction[rows]).to(self._ends.dtype).contiguous()
        position = torch.searchsorted(self._ends[rows], ascending)
        return self._steps[rows.unsqueeze(-1), torch.minimum(position, self._last[rows])]
