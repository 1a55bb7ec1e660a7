"""The way of a reversible solve, and the way back with the gradient of its steps.

Forwards the times of the steps are kept, and states where the two solutions were joined and at
the end. Backwards each step is undone and pulled back at once: the evaluations that undo it are
those that autograd records. Rounding grows on the way; the states kept take it out, and tell when
it grew too far. Knows the halves of a step, and no tableau.
"""

import math
from dataclasses import dataclass, replace
from typing import cast

import torch

from odeum.eager.field import RowField
from odeum.eager.outputs import Segments
from odeum.eager.problem import Problem
from odeum.eager.records import Record
from odeum.eager.reversible import Pair, ReversibleStepper
from odeum.eager.stepper import Memory, Step, Stepper
from odeum.errors import SolveError
from odeum.gradient.totals import LeafGradients, TimeGradients
from odeum.solution import Stats
from odeum.types import Tensor


@dataclass(frozen=True)
class Joint:
    """Where the two solutions of some rows were joined.

    Attributes:
        rows: which rows, [rows].
        y: the state, which both are from there on, [rows, dim].
        z: the second solution until then, [rows, dim].
    """

    rows: Tensor
    y: Tensor
    z: Tensor


class Trail:
    """Takes steps and remembers the way; see :class:`~odeum.eager.records.Recorder`.

    Args:
        y0: initial states, [batch, dim].

    Attributes:
        way: the accepted steps in the order they were taken, without their states, with where
            the solutions were joined after each; None where in no row.
        y: states where rows have arrived, [batch, dim].
        z: what the second solution goes on from there.
    """

    def __init__(self, y0: Tensor) -> None:
        self.way: list[tuple[Record, Joint | None]] = []
        self.y = y0.clone()
        self.z = y0.clone()
        self._tried: Step | None = None

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
        self._tried = stepper.step(field, t, h, y, k0, memory)
        return self._tried

    def end_derivative(self, field: RowField, t1: Tensor, y1: Tensor) -> Tensor:
        """Never asked for: it is one of a step's derivatives."""
        raise AssertionError("a reversible step has the derivative at its end")

    def add(self, record: Record) -> None:
        """Takes down what became of the last step."""
        tried, self._tried = self._tried, None
        assert tried is not None
        pair = Pair(*tried.memory)
        joined = pair.age == 0
        if record.accept is not None:
            joined = joined & record.accept
        joint = None
        at = joined.squeeze(-1).nonzero().squeeze(-1)
        if len(at):
            joint = Joint(record.rows[at], tried.y1[at], pair.z1[at])
        y1, z = tried.y1, pair.z
        if record.accept is not None:
            at = record.accept.squeeze(-1).nonzero().squeeze(-1)
            y1, z = y1[at], z[at]
        record = replace(record, y=record.y[:, :0].clone()).accepted()
        if len(record.rows):
            self.way.append((record, joint))
            self.y[record.rows], self.z[record.rows] = y1, z


@dataclass(frozen=True)
class _Seen:
    """Outputs and marks inside some steps.

    Attributes:
        step: the position of each one's step among them, [seen].
        index: the index of its output time, -1 for a mark, [seen].
        t: its time, [seen].
        g: the cotangent of its state, [seen, dim].
    """

    step: Tensor
    index: Tensor
    t: Tensor
    g: Tensor

    def select(self, at: Tensor) -> "_Seen":
        """Some of them."""
        return _Seen(self.step[at], self.index[at], self.t[at], self.g[at])

    def among(self, record: Record, asked: Tensor) -> "tuple[Record, _Seen]":
        """The steps of some rows, [batch], and what is seen in those."""
        chosen = asked[record.rows]
        if bool(chosen.all()):
            return record, self
        at = chosen.nonzero().squeeze(-1)
        rows, t, h, t1 = (x[at] for x in (record.rows, record.t, record.h, record.t1))
        stops = None if record.stops is None else record.stops[at]
        seen = self.select(chosen[self.step].nonzero().squeeze(-1))
        seen = replace(seen, step=(chosen.cumsum(0) - 1)[seen.step])
        return replace(record, rows=rows, t=t, h=h, t1=t1, stops=stops, marks=None), seen


class WayBack:
    """The backward pass of one solve.

    Args:
        problem: what was solved.
        trail: the way it went.
        leaves: tensors that want gradients and that the field uses.
        wants_times: whether the output times, or the times where rows start, want a gradient.

    Attributes:
        of_leaves: gradients of ``leaves``.
        of_times: gradients of the output times, and of the times where rows start.
    """

    def __init__(
        self, problem: Problem, trail: Trail, leaves: list[Tensor], wants_times: bool
    ) -> None:
        self._problem = problem
        self._times = problem.times()
        self._trail = trail
        self.of_leaves = LeafGradients(leaves)
        self.of_times = TimeGradients(self._times, wanted=wants_times)
        # Of every row where it now is, and the cotangents of that.
        self._y, self._z = trail.y.clone(), trail.z.clone()
        self._g_y, self._g_z = torch.zeros_like(self._y), torch.zeros_like(self._z)
        self._g_t = problem.ts.new_zeros(len(self._y), 1)
        # The largest number of each row's states on the way back from where it was last known.
        self._size = torch.zeros_like(self._y[:, 0])
        self._n_steps = torch.zeros(len(self._y), dtype=torch.int64, device=self._y.device)
        self._n_evaluations = torch.zeros_like(self._n_steps)

    def run(self, g_ys: Tensor | None, g_marked: Tensor | None) -> Tensor:
        """Goes back through all steps; the gradient of the initial states, [batch, dim]."""
        asked = self._asked(g_ys, g_marked)
        n_marks = 0 if g_marked is None else len(g_marked)
        for record, joint in reversed(self._trail.way):
            if joint is not None:
                self._separate(joint, asked)
            g_here = None
            if g_marked is not None and record.marks is not None:
                g_here = g_marked[n_marks - len(record.marks.t) : n_marks]
                n_marks -= len(record.marks.t)
            self._pull_back(*self._seen(record, g_ys, g_here).among(record, asked))
        rows = asked.nonzero().squeeze(-1)
        self._check(rows, self._problem.y0[rows])
        g_y0 = self._g_y + self._g_z
        self.of_times.arrive(self._g_t.squeeze(-1))
        if g_ys is None or not self._times.starts_at_output:
            return g_y0
        return g_y0 + g_ys[0]

    def _asked(self, g_ys: Tensor | None, g_marked: Tensor | None) -> Tensor:
        """Rows of whose states something is asked, [batch]: no others need be gone back through."""
        asked = torch.zeros(len(self._y), dtype=torch.bool, device=self._y.device)
        if g_ys is not None:
            asked |= (g_ys != 0).any(-1).any(0)
        if g_marked is not None:
            records = (record for record, _ in self._trail.way if record.marks is not None)
            rows = [r.rows[r.marks.position] for r in records if r.marks is not None]
            if rows:
                asked[torch.cat(rows)[(g_marked != 0).any(-1)]] = True
        return asked

    def stats(self) -> Stats:
        """The work done, per row."""
        return Stats(self._n_evaluations, self._n_steps, torch.zeros_like(self._n_steps))

    def _seen(self, record: Record, g_ys: Tensor | None, g_marked: Tensor | None) -> _Seen:
        rows = record.rows
        parts = []
        if g_ys is not None:
            step, index = self._times.hits(rows, record.t, record.t1)
            times = self._times.at(index, rows[step]).detach()
            parts.append(_Seen(step, index, times, g_ys[index, rows[step]]))
        if g_marked is not None and record.marks is not None:
            marks = record.marks
            no_index = torch.full_like(marks.position, -1)
            parts.append(_Seen(marks.position, no_index, marks.t, g_marked))
        if not parts:
            return _Seen(rows[:0], rows[:0], record.t[:0, 0], self._y[:0])
        return _Seen(
            *(torch.cat([getattr(p, name) for p in parts]) for name in ("step", "index", "t", "g"))
        )

    def _pull_back(self, record: Record, seen: _Seen) -> None:
        """Takes one step back, in the rows that accepted it, with its cotangents.

        Of ``z1 = z + y1 - F_-h(y1)`` first, for that gives ``z``; then of
        ``y1 = F_h(z) + lambda (y - z)``.
        """
        rows = record.rows
        if not len(rows):
            return
        stepper = cast(ReversibleStepper, record.stepper)
        field = self._problem.field.select(rows)
        theta = (seen.t - record.t[seen.step].squeeze(-1)) / record.h[seen.step].squeeze(-1)
        y1, z1, g_y1, g_z = (x[rows] for x in (self._y, self._z, self._g_y, self._g_z))
        at_end = seen.select((theta == 1).nonzero().squeeze(-1))
        g_y1.index_add_(0, at_end.step, at_end.g)
        times = [record.t, record.h]
        size = self._problem.field.state(y1).abs().amax(-1)
        self._size[rows] = torch.maximum(self._size[rows], size)

        with torch.enable_grad():
            t, h = (x.detach().requires_grad_(self.of_times.wanted) for x in times)
            y1 = y1.requires_grad_()
            back = stepper.back(field, t, h, y1)
        g_back, *g_times = self.of_leaves.pull([back.y1], [-g_z], [y1, t, h])
        g_y1 = g_y1 + g_z + g_back
        z = stepper.z_before(y1, z1, back).detach().requires_grad_()
        del back  # and what autograd keeps of it

        inside = seen.select((theta != 1).nonzero().squeeze(-1))
        with torch.enable_grad():
            t, h = (x.detach().requires_grad_(self.of_times.wanted) for x in times)
            forth = stepper.forth(field, t, h, z, with_end=len(inside.step) > 0)
            y = stepper.y_before(y1, z, forth).detach().requires_grad_()
        n_evaluations = len(forth.ks) + stepper.n_evaluations - stepper.n_stages
        outputs, g_outputs, inputs = [forth.y1], [g_y1], [z, t, h]
        if len(inside.step):
            t_seen = inside.t.detach().requires_grad_(self.of_times.wanted)
            with torch.enable_grad():
                segments = self._segments(field, record, t, h, y, z, forth)
                outputs.append(segments.evaluate(inside.step, t_seen))
            g_outputs.append(inside.g)
            inputs += [y, t_seen]
            n_evaluations += stepper.n_extra
        g_z_forth, g_t, g_h, *g_inside = self.of_leaves.pull(outputs, g_outputs, inputs)
        coupled = stepper.coupling * g_y1
        g_y, g_z = coupled, g_z + g_z_forth - coupled
        if g_inside:
            g_y = g_y + g_inside[0]
            at = (inside.index >= 0).nonzero().squeeze(-1)
            where = record.rows[inside.step[at]]
            self.of_times.add(inside.index[at], where, g_inside[1][at])
        g_t, g_h = g_t + g_times[0], g_h + g_times[1]
        self._g_t[rows] = self.of_times.pull_step(record, g_t, g_h, self._g_t[rows])
        self._y[rows], self._z[rows] = y.detach(), z.detach()
        self._g_y[rows], self._g_z[rows] = g_y, g_z
        self._n_steps[rows] += 1
        self._n_evaluations[rows] += n_evaluations

    def _segments(
        self,
        field: RowField,
        record: Record,
        t: Tensor,
        h: Tensor,
        y: Tensor,
        z: Tensor,
        forth: Step,
    ) -> Segments:
        """The steps with what their dense output weighs, recorded by autograd."""
        stepper = cast(ReversibleStepper, record.stepper)
        ks = [stepper.slope(h, y, z), *forth.ks]
        ks += stepper.extra_derivatives(field, t, h, y, ks)
        return Segments(stepper.dense, record.rows, t, record.t1, h, y, torch.stack(ks))

    def _separate(self, joint: Joint, asked: Tensor) -> None:
        """Goes back to before two solutions were joined, from the states kept of them."""
        at = asked[joint.rows].nonzero().squeeze(-1)
        rows, y, z = (x[at] for x in (joint.rows, joint.y, joint.z))
        self._check(rows, y)
        self._y[rows], self._z[rows] = y, z
        self._g_y[rows] += self._g_z[rows]
        self._g_z[rows] = 0.0

    def _check(self, rows: Tensor, y: Tensor) -> None:
        """Raises where the solutions gone back to are not the state that both started from.

        Nothing depends on integrals along the way: they may drift.
        """
        allowed = math.sqrt(torch.finfo(y.dtype).eps)
        field = self._problem.field
        drifts = [field.state(x[rows] - y).abs().amax(-1) for x in (self._y, self._z)]
        size = torch.maximum(self._size[rows], field.state(y).abs().amax(-1))
        drift = torch.maximum(*drifts)
        lost = ~(drift <= allowed * size)
        if bool(lost.any()):
            i = int(lost.nonzero()[0])
            row = field.user_row(int(rows[i]))
            raise SolveError(
                f"going back through the steps of row {row}, rounding grew to "
                f"{float(drift[i] / size[i]):.1g} of the state, where a gradient allows "
                f"{allowed:.1g}: pass a smaller odeum.gradient.Reversible(interval=...), which "
                'keeps more states, or gradient="discrete"'
            )
        self._size[rows] = 0.0
