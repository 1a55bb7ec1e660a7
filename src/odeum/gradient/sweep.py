"""The backward sweep over accepted steps: each is taken again where it must be, and pulled back.

A step maps ``(t, h, y, k0)`` to ``y1`` and the derivatives its interpolant weighs. Cotangents of
those are pulled back through it by autograd, one step at a time, the last step first. Step
sizes count as constants, but for steps cut to land on an output time.
"""

from dataclasses import dataclass

import torch

from odeum.eager.field import RowField
from odeum.eager.problem import Problem
from odeum.eager.recording import first_derivative
from odeum.eager.records import Record
from odeum.gradient.inputs import Start
from odeum.gradient.tape import Entry, Recorded, Steps
from odeum.gradient.totals import LeafGradients, TimeGradients
from odeum.solution import Stats
from odeum.types import Tensor


@dataclass(frozen=True)
class Asked:
    """What the outputs inside some steps ask of them.

    Attributes:
        step: position of each output's step among them, [outputs].
        index: index of its output time, [outputs]; -1 for a mark.
        theta: its fraction of the step, [outputs].
        g: its cotangent, [outputs, dim].
        powers: ``theta, theta^2, ...`` in float64, [outputs, powers].
    """

    step: Tensor
    index: Tensor
    theta: Tensor
    g: Tensor
    powers: Tensor

    @property
    def inside(self) -> bool:
        """Whether any lies strictly inside its step."""
        return bool((self.theta != 1).any())


@dataclass
class Cotangents:
    """Cotangents of steps' inputs and derivatives, but for what comes through ``y1``.

    Attributes:
        t: of where they start, [steps, 1].
        h: of their sizes, [steps, 1].
        y: of the states at their starts, [steps, dim].
        ks: of the derivatives, [steps, derivatives, dim]; None where nothing is asked of them.
    """

    t: Tensor
    h: Tensor
    y: Tensor
    ks: Tensor | None


class Sweep:
    """The backward sweep of one solve.

    Args:
        problem: what was solved.
        steps: its steps.
        leaves: tensors that want gradients and that the field uses.
        start: the evaluation that the solve began with, where it was kept.
        wants_times: whether the output times, or the times where rows start, want a gradient.

    Attributes:
        of_leaves: gradients of ``leaves``.
        of_times: gradients of the output times, and of the times where rows start.
    """

    def __init__(
        self,
        problem: Problem,
        steps: Steps,
        leaves: list[Tensor],
        start: Start | None,
        *,
        wants_times: bool,
    ) -> None:
        self._problem = problem
        self._start = start
        self._times = problem.times()
        self._steps = steps
        self.of_leaves = LeafGradients(leaves)
        self.of_times = TimeGradients(self._times, wanted=wants_times)
        # Cotangents of every row's current state, derivative there, and time.
        self._g_y = torch.zeros_like(problem.y0)
        self._g_k = torch.zeros_like(problem.y0)
        self._g_t = problem.ts.new_zeros(len(problem.y0), 1)
        rows = torch.arange(len(problem.y0), device=problem.y0.device)
        self._n_steps = torch.zeros_like(rows)
        self._n_evaluations = torch.zeros_like(rows)

    def run(
        self,
        g_ys: Tensor | None,
        g_marked: Tensor | None,
        g_dense: dict[int, tuple[Tensor | None, ...]],
    ) -> Tensor:
        """Pulls all steps back.

        Args:
            g_ys: cotangents of the states at the output times, [time, batch, dim].
            g_marked: cotangents of the states at marks, [marks, dim].
            g_dense: cotangents of a dense solve's segments ``(rows, t, t1, h, y, ks)``, of the
                steps of each method, by the identity of its interpolation.

        Returns:
            The gradient of the initial states, [batch, dim].
        """
        positions = dict.fromkeys(g_dense, 0)
        records = self._steps.records()
        if g_dense:
            for record in records:
                positions[id(record.stepper.dense)] += _n_accepted(record)
        asked = self._asked(records, g_ys, g_marked)
        entries = self._steps.backwards(self._problem.field, self._n_evaluations)
        for entry, wanted in zip(entries, reversed(asked), strict=True):
            cotangents = self._blank(entry.record)
            if g_dense:
                dense = id(entry.record.stepper.dense)
                positions[dense] -= _n_accepted(entry.record)
                self._add_dense(entry.record, positions[dense], g_dense[dense], cotangents)
            self._pull_entry(entry, wanted, cotangents)
        if records:
            self._pull_start()
        if g_ys is None or not self._times.starts_at_output:
            return self._g_y
        return self._g_y + g_ys[0]

    def stats(self) -> Stats:
        """The work done, per row."""
        return Stats(self._n_evaluations, self._n_steps, torch.zeros_like(self._n_steps))

    def _asked(
        self, records: list[Record], g_ys: Tensor | None, g_marked: Tensor | None
    ) -> list[Asked | None]:
        """The outputs and marks inside each record's steps; None where there are none."""
        if not records:
            return []
        rows, t, t1, h = (
            torch.cat([getattr(record, name) for record in records])
            for name in ("rows", "t", "t1", "h")
        )
        sizes = torch.tensor([len(record.rows) for record in records], device=rows.device)
        firsts = sizes.cumsum(0) - sizes
        found = []
        if g_ys is not None:
            step, index = self._times.hits(rows, t, t1)
            outputs = self._times.at(index, rows[step]).detach()
            found.append((step, index, outputs, g_ys[index, rows[step]]))
        marks = [(i, record.marks) for i, record in enumerate(records) if record.marks is not None]
        if g_marked is not None and marks:
            step = torch.cat([firsts[i] + mark.position for i, mark in marks])
            times = torch.cat([mark.t for _, mark in marks])
            found.append((step, torch.full_like(step, -1), times, g_marked))
        if not found:
            return [None] * len(records)
        step, index, times, g = (torch.cat(parts) for parts in zip(*found, strict=True))
        order = step.argsort(stable=True)
        step, index, times, g = (x[order] for x in (step, index, times, g))
        theta = (times - t[step].squeeze(-1)) / h[step].squeeze(-1)
        entry = torch.searchsorted(firsts, step, right=True) - 1
        n_outputs = torch.bincount(entry, minlength=len(records)).tolist()
        n_powers = max(record.stepper.dense.polynomials.shape[1] for record in records)
        powers = theta.double().unsqueeze(-1).expand(-1, n_powers).cumprod(-1)
        split = (x.split(n_outputs) for x in (step - firsts[entry], index, theta, g, powers))
        return [Asked(*part) if len(part[0]) else None for part in zip(*split, strict=True)]

    def _blank(self, record: Record) -> Cotangents:
        zeros = torch.zeros_like(record.t)
        return Cotangents(zeros, zeros.clone(), torch.zeros_like(record.y), None)

    def _zero_derivatives(self, record: Record) -> Tensor:
        n_derivatives = len(record.stepper.dense.polynomials)
        return record.y.new_zeros(len(record.y), n_derivatives, record.y.shape[1])

    def _add_dense(
        self,
        record: Record,
        first: int,
        g_dense: tuple[Tensor | None, ...],
        cotangents: Cotangents,
    ) -> None:
        """Adds what is asked of the segments of a dense solve, from the ``first`` on."""
        at = slice(first, first + _n_accepted(record))
        steps = slice(None) if record.accept is None else record.accept.squeeze(-1)
        _, g_t, _, g_h, g_y, g_ks = g_dense
        for total, part in ((cotangents.t, g_t), (cotangents.h, g_h), (cotangents.y, g_y)):
            if part is not None:
                total[steps] += part[at]
        if g_ks is not None:
            cotangents.ks = self._zero_derivatives(record)
            cotangents.ks[steps] += g_ks[:, at].transpose(0, 1)

    def _pull_entry(self, entry: Entry, asked: Asked | None, cotangents: Cotangents) -> None:
        """Pulls one step back, in the rows that accepted it."""
        record, rows, stepper = entry.record, entry.record.rows, entry.record.stepper
        inside = cotangents.ks is not None or (asked is not None and asked.inside)
        g_y1, g_k1, g_t1 = (g[rows] for g in (self._g_y, self._g_k, self._g_t))
        if record.accept is not None:
            g_y1, g_k1, g_t1 = (g.masked_fill(~record.accept, 0) for g in (g_y1, g_k1, g_t1))
        field = self._problem.field.select(rows)
        with_end = inside or bool(g_k1.any())
        recorded = entry.recorded or self._take_again(field, record, with_end=with_end)
        step, k1, ks = recorded.step, recorded.k1, recorded.step.ks
        with torch.enable_grad():
            if with_end and k1 is None:
                k1 = field((step.t + step.h).to(step.y.dtype), step.y1)
                self._n_evaluations[rows] += 1
            if inside:
                ks = stepper.derivatives(step.ks, k1)
                ks = ks + stepper.extra_derivatives(field, step.t, step.h, step.y, ks)
                self._n_evaluations[rows] += stepper.n_extra
        if asked is not None:
            self._add_outputs(asked, record, ks, cotangents)

        outputs = [step.y1]
        g_outputs = [g_y1]
        if cotangents.ks is not None:
            outputs += ks
            g_outputs += cotangents.ks.unbind(1)[: len(ks)]
        if with_end and k1 is not None:
            outputs.append(k1)
            g_outputs.append(g_k1)
        inputs = [step.y] if recorded.k0 is None else [step.y, recorded.k0]
        if self.of_times.wanted:
            inputs += [step.t, step.h]
        g_y, *g_others = self.of_leaves.pull(outputs, g_outputs, inputs)
        g_k0 = torch.zeros_like(g_y) if recorded.k0 is None else g_others.pop(0)
        if g_others:
            cotangents.t += g_others[0]
            cotangents.h += g_others[1]
        g_t = self.of_times.pull_step(record, cotangents.t, cotangents.h, g_t1)
        self._move(record, g_y + cotangents.y, g_k0, g_t)

    def _take_again(self, field: RowField, record: Record, *, with_end: bool) -> Recorded:
        """The step recorded by autograd, with a last stage that is ``f(t1, y1)`` or without."""
        wanted = self.of_times.wanted
        with torch.enable_grad(), first_derivative():
            t, h = (x.detach().requires_grad_(wanted) for x in (record.t, record.h))
            y = record.y.detach().requires_grad_()
            k0 = field(t.to(y.dtype), y)
            step = record.stepper.record(field, t, h, y, k0, record.ks, with_end=with_end)
        self._n_evaluations[record.rows] += len(step.ks)
        end = record.stepper.end_stage
        return Recorded(step, None, step.ks[end] if with_end and end is not None else None)

    def _add_outputs(
        self, asked: Asked, record: Record, ks: list[Tensor], cotangents: Cotangents
    ) -> None:
        """Adds what the outputs inside the steps ask, through the interpolant.

        Of the derivatives they ask ``sum_p polynomials[j, p] sum_outputs theta^p h g``: the inner
        sum is over many outputs, the outer one over few powers.
        """
        h = record.h.to(record.y.dtype)[asked.step]
        cotangents.y.index_add_(0, asked.step, asked.g)
        dense = record.stepper.dense
        polynomials = dense.polynomials
        moments = polynomials.new_zeros(len(record.y), polynomials.shape[1], record.y.shape[1])
        terms = asked.powers[:, : polynomials.shape[1]].unsqueeze(-1) * (h * asked.g).unsqueeze(1)
        moments.flatten(1).index_add_(0, asked.step, terms.flatten(1))
        g_ks = (polynomials @ moments).to(record.y.dtype)
        cotangents.ks = g_ks if cotangents.ks is None else cotangents.ks + g_ks
        if not self.of_times.wanted:
            return
        # y(theta) = y + h sum_j b_j(theta) k_j with theta = (output - t) / h
        n = len(ks)
        weights = dense.weights(asked.theta).t().unsqueeze(-1)
        slopes = dense.slopes(asked.theta)
        at_outputs = torch.stack(ks, 1)[asked.step]
        change = (weights[:, :n] * at_outputs).sum(1)
        slope = (slopes[:n].t().unsqueeze(-1) * at_outputs).sum(1)
        g_h, g_output = (
            (asked.g * x).sum(-1, keepdim=True).to(record.t.dtype) for x in (change, slope)
        )
        theta = asked.theta.unsqueeze(-1)
        cotangents.h.index_add_(0, asked.step, g_h - g_output * theta)
        cotangents.t.index_add_(0, asked.step, -g_output)
        at = (asked.index >= 0).nonzero().squeeze(-1)
        rows = record.rows[asked.step[at]]
        self.of_times.add(asked.index[at], rows, g_output[at].squeeze(-1))

    def _move(self, record: Record, g_y: Tensor, g_k: Tensor, g_t: Tensor) -> None:
        """Makes the start of a step where its rows now are."""
        rows = record.rows
        self._n_steps[rows] += 1 if record.accept is None else record.accept.squeeze(-1)
        for total, g in ((self._g_y, g_y), (self._g_k, g_k), (self._g_t, g_t)):
            if record.accept is None:
                total[rows] = g
            else:
                total[rows] = torch.where(record.accept, g, total[rows])

    def _pull_start(self) -> None:
        """Pulls back the derivative at the initial state, and the initial time."""
        rows = (self._n_steps > 0).nonzero().squeeze(-1)
        if bool(self._g_k.any()):
            start = self._start
            # Zeros pulled back through a failed row's infinities would become NaN.
            if start is None or not bool(start.k.isfinite().all()):
                start = self._start_again(rows)
            everywhere = len(start.k) == len(self._g_k)
            g_k = self._g_k if everywhere else self._g_k[rows]
            inputs = [start.y, start.t] if self.of_times.wanted else [start.y]
            g_y, *g_t = self.of_leaves.pull([start.k], [g_k], inputs)
            at = slice(None) if everywhere else rows
            self._g_y[at] += g_y
            if g_t:
                self._g_t[at] += g_t[0]
        self.of_times.arrive(self._g_t.squeeze(-1))

    def _start_again(self, rows: Tensor) -> Start:
        with torch.enable_grad():
            t = self._times.start[rows].detach().requires_grad_(self.of_times.wanted)
            y = self._problem.y0[rows].detach().requires_grad_()
            k = self._problem.field.select(rows)(t.to(y.dtype), y)
        self._n_evaluations[rows] += 1
        return Start(t, y, k)


def _n_accepted(record: Record) -> int:
    return len(record.rows) if record.accept is None else int(record.accept.sum())
