"""The backward sweep over accepted steps: each is taken again, and pulled back.

With ``Y_i`` the stage states of a step,

    k_i = f(t + c_i h, Y_i),   Y_i = y + h sum_j a_ij k_j,   y1 = y + h sum_i b_i k_i,

cotangents ``g`` of ``y1``, and of the ``k_i`` (from states interpolated inside the step), go back
through the stages from last to first. Step sizes count as constants, but for steps cut to land
on an output time. The last derivative of a step is the first of the next: it is pulled back
once, with what both steps ask of it.
"""

from dataclasses import dataclass

import torch

from odeum.gradient.tape import Group, Tape
from odeum.solution import Stats
from odeum.solve.explicit import Weights, combine
from odeum.solve.field import RowField
from odeum.solve.loop import Accepted
from odeum.solve.problem import Problem
from odeum.types import Tensor


@dataclass(frozen=True)
class Evaluation:
    """One evaluation ``k = f(t, y)``, recorded by autograd."""

    t: Tensor
    y: Tensor
    k: Tensor


@dataclass(frozen=True)
class Asked:
    """What the outputs inside a group's steps ask of it.

    Attributes:
        step: position of each output's step within the group, [outputs].
        index: index of its output time, [outputs].
        theta: its fraction of the step, [outputs].
        g: its cotangent, [outputs, dim].
    """

    step: Tensor
    index: Tensor
    theta: Tensor
    g: Tensor


@dataclass
class Cotangents:
    """Cotangents of one group's steps: of their start, size, state and derivatives."""

    t: Tensor
    h: Tensor
    y: Tensor
    ks: Tensor


class Sweep:
    """The backward sweep of one solve.

    Args:
        problem: what was solved.
        records: its accepted steps.
        field: its field, on tensors in ``args`` that want gradients.
        leaves: those tensors, and the ones the field reads by itself.
        wants_times: whether the output times want a gradient.

    Attributes:
        g_leaves: gradients of ``leaves``, None where nothing depends on one.
        g_ts: gradient of the output times, None where it is not wanted.
    """

    def __init__(
        self,
        problem: Problem,
        records: list[Accepted],
        field: RowField,
        leaves: list[Tensor],
        *,
        wants_times: bool,
    ) -> None:
        self._times = problem.times()
        self._stepper = problem.stepper()
        self._tableau = self._stepper.tableau
        self._field = field
        self._leaves = leaves
        self._y0 = problem.y0
        self._tape = Tape(records, len(problem.y0)) if records else None
        self._evaluated: list[tuple[int, int]] = []
        self._dense = problem.dense
        self.g_leaves: list[Tensor | None] = [None] * len(leaves)
        self.g_ts = torch.zeros_like(problem.ts) if wants_times else None

    def run(self, g_ys: Tensor | None, g_dense: tuple[Tensor | None, ...]) -> Tensor:
        """Pulls all steps back.

        Args:
            g_ys: cotangents of the states at the output times, [time, batch, dim].
            g_dense: cotangents of a dense solve's segments ``(rows, t, t1, h, y, ks)``.

        Returns:
            The gradient of the initial states, [batch, dim].
        """
        g_y0 = torch.zeros_like(self._y0) if g_ys is None else g_ys[0].clone()
        if self._tape is None:
            return g_y0
        groups = self._tape.groups()
        asked = self._asked(groups, g_ys)
        g = self._y0.new_zeros(0, self._y0.shape[1])
        g_time = self._tape.t.new_zeros(0, 1)
        pending: tuple[Evaluation, Tensor] | None = None
        for group, outputs in zip(reversed(groups), reversed(asked), strict=True):
            cotangents = self._blank(group, g_dense)
            g, g_time, pending = self._pull_group(group, outputs, cotangents, g, g_time, pending)
        assert pending is not None
        g_first, g_t = self._pull(*pending)
        rows = self._tape.ranking[: len(g)]
        g_y0.index_add_(0, rows, g + g_first)
        self._add_to_times(torch.zeros_like(rows), rows, g_time if g_t is None else g_time + g_t)
        return g_y0

    def stats(self) -> Stats:
        """The work done, per row."""
        zeros = torch.zeros(len(self._y0), dtype=torch.long, device=self._y0.device)
        stats = Stats(zeros, zeros.clone(), zeros.clone())
        if self._tape is not None:
            by_rank = zeros.clone()
            for first, last in self._evaluated:
                by_rank[first:last] += 1
            stats.n_evaluations[self._tape.ranking] = by_rank
            stats.n_accepted += torch.bincount(self._tape.rows, minlength=len(zeros))
        return stats

    def _asked(self, groups: list[Group], g_ys: Tensor | None) -> list[Asked | None]:
        """The outputs inside each group's steps; None where there are none."""
        tape = self._tape
        assert tape is not None
        if g_ys is None:
            return [None] * len(groups)
        step, index = self._times.hits(tape.rows, tape.t, tape.t1)
        rows = tape.rows[step]
        t = self._times.at(index, rows).detach()
        theta = (t - tape.t[step].squeeze(-1)) / tape.h[step].squeeze(-1)
        g = g_ys[index, rows]
        firsts = torch.tensor([group.first for group in groups], device=step.device)
        counts = torch.searchsorted(firsts, step, right=True) - 1
        sizes = torch.bincount(counts, minlength=len(groups)).tolist()
        parts = (x.split(sizes) for x in (step, index, theta, g))
        return [
            Asked(at - group.first, i, fraction, g_part) if len(at) else None
            for group, at, i, fraction, g_part in zip(groups, *parts, strict=True)
        ]

    def _blank(self, group: Group, g_dense: tuple[Tensor | None, ...]) -> Cotangents:
        """A group's cotangents before any output: those of the dense solution's segments."""
        tape = self._tape
        assert tape is not None
        n_derivatives = len(self._stepper.polynomials)
        blank = Cotangents(
            t=torch.zeros_like(group.t),
            h=torch.zeros_like(group.h),
            y=torch.zeros_like(group.y),
            ks=group.y.new_zeros(n_derivatives, *group.y.shape),
        )
        if not g_dense:
            return blank
        at = tape.order[group.first : group.first + group.n_rows]
        _, g_t, _, g_h, g_y, g_ks = g_dense
        for total, part in ((blank.t, g_t), (blank.h, g_h), (blank.y, g_y)):
            if part is not None:
                total += part[at]
        if g_ks is not None:
            blank.ks += g_ks[:, at]
        return blank

    def _pull_group(
        self,
        group: Group,
        asked: Asked | None,
        cotangents: Cotangents,
        g_later: Tensor,
        g_time_later: Tensor,
        pending: tuple[Evaluation, Tensor] | None,
    ) -> tuple[Tensor, Tensor, tuple[Evaluation, Tensor]]:
        """Pulls one step of each of a group's rows back.

        Args:
            group: the steps.
            asked: the outputs inside them.
            cotangents: what is asked of them otherwise.
            g_later: cotangents of the states the next group starts from.
            g_time_later: cotangents of the times it starts at.
            pending: its first evaluations, which are this group's last, and their cotangents.

        Returns:
            The same three for this group's start.
        """
        n_rows, n_later = group.n_rows, len(g_later)
        stepper, h = self._stepper, group.h.to(group.y.dtype)
        field = self._field_on(0, n_rows)
        stages = self._take_again(field, group, h)
        ks = [stage.k.detach() for stage in stages]
        g_y1 = torch.zeros_like(group.y)
        g_y1[:n_later] = g_later
        g_t1 = torch.zeros_like(group.t)
        g_t1[:n_later] = g_time_later

        interior = asked is not None and bool((asked.theta != 1).any())
        inside = interior or self._dense
        ends = [] if pending is None else [(0, *pending)]
        if inside and n_rows > n_later:
            y1 = torch.addcmul(group.y, h, combine(ks, stepper.b))[n_later:]
            end = self._evaluate(self._field_on(n_later, n_rows), group.t1[n_later:], y1)
            self._evaluated.append((n_later, n_rows))
            ends.append((n_later, end, torch.zeros_like(y1)))
        if inside:
            ks.append(torch.cat([end.k.detach() for _, end, _ in ends]))
        extras = self._take_extra(field, group, h, ks) if inside else []
        if asked is not None:
            self._add_outputs(asked, group, h, ks, cotangents)

        # The parts of the step in the reverse of the order they were taken in.
        n_derivatives = self._tableau.n_derivatives
        for i in reversed(range(len(extras))):
            node = float(self._tableau.interpolant.extra_c[i])
            self._pull_stage(
                extras[i], n_derivatives + i, stepper.extra_stages[i], node, h, ks, cotangents
            )
        for first, end, g_k in ends:
            last = slice(first, first + len(g_k))
            g_end, g_t = self._pull(end, g_k + cotangents.ks[n_derivatives - 1, last])
            g_y1[last] += g_end
            if g_t is not None:
                g_t1[last] += g_t
        self._spread(g_y1, stepper.b, h, ks, cotangents)
        for i in reversed(range(1, len(stages))):
            node = float(self._tableau.c[i])
            self._pull_stage(stages[i], i, stepper.stages[i - 1], node, h, ks, cotangents)
        g_time = self._pull_times(group, cotangents, g_t1)
        return cotangents.y, g_time, (stages[0], cotangents.ks[0])

    def _take_again(self, field: RowField, group: Group, h: Tensor) -> list[Evaluation]:
        """The stages of a group's steps, but for a last one that is the next step's first."""
        stages = [self._evaluate(field, group.t, group.y)]
        ks = [stages[0].k.detach()]
        for i in range(1, self._tableau.n_stages - self._stepper.fsal):
            y = torch.addcmul(group.y, h, combine(ks, self._stepper.stages[i - 1]))
            t = group.t + float(self._tableau.c[i]) * group.h
            stages.append(self._evaluate(field, t, y))
            ks.append(stages[-1].k.detach())
        self._evaluated.extend([(0, group.n_rows)] * len(stages))
        return stages

    def _take_extra(
        self, field: RowField, group: Group, h: Tensor, ks: list[Tensor]
    ) -> list[Evaluation]:
        """The extra stages of the dense output; their derivatives are appended to ``ks``."""
        extras = []
        for weights, node in zip(
            self._stepper.extra_stages, self._tableau.interpolant.extra_c, strict=True
        ):
            y = torch.addcmul(group.y, h, combine(ks, weights))
            extras.append(self._evaluate(field, group.t + float(node) * group.h, y))
            ks.append(extras[-1].k.detach())
            self._evaluated.append((0, group.n_rows))
        return extras

    def _add_outputs(
        self, asked: Asked, group: Group, h: Tensor, ks: list[Tensor], cotangents: Cotangents
    ) -> None:
        """Adds what the outputs inside the steps ask, through the interpolant."""
        cotangents.y.index_add_(0, asked.step, asked.g)
        weights = self._stepper.interpolation_weights(asked.theta)
        weighted = (weights.unsqueeze(-1) * h[asked.step]) * asked.g
        cotangents.ks.index_add_(1, asked.step, weighted)
        if self.g_ts is None:
            return
        slopes = self._stepper.interpolation_slopes(asked.theta)
        stacked = torch.stack(ks)[:, asked.step]
        n = len(ks)
        direct = (weights[:n, :, None] * stacked).sum(0)
        slope = (slopes[:n, :, None] * stacked).sum(0)
        g_direct = (asked.g * direct).sum(-1, keepdim=True).to(group.t.dtype)
        g_time = (asked.g * slope).sum(-1, keepdim=True).to(group.t.dtype)
        # y(theta) = y + h sum_j b_j(theta) k_j with theta = (t_output - t) / h
        theta = asked.theta.unsqueeze(-1)
        cotangents.h.index_add_(0, asked.step, g_direct - g_time * theta)
        cotangents.t.index_add_(0, asked.step, -g_time)
        assert self._tape is not None
        self._add_to_times(asked.index, self._tape.ranking[asked.step], g_time)

    def _pull_stage(
        self,
        stage: Evaluation,
        i: int,
        weights: Weights,
        node: float,
        h: Tensor,
        ks: list[Tensor],
        cotangents: Cotangents,
    ) -> None:
        """Pulls the i-th derivative back to what its state was made of."""
        g, g_t = self._pull(stage, cotangents.ks[i])
        self._spread(g, weights, h, ks, cotangents)
        if g_t is not None:
            cotangents.t += g_t
            cotangents.h += node * g_t

    def _spread(
        self, g: Tensor, weights: Weights, h: Tensor, ks: list[Tensor], cotangents: Cotangents
    ) -> None:
        """Adds the cotangent of ``y + h sum_j w_j k_j`` to those of its parts."""
        cotangents.y += g
        n = weights.used[-1] + 1
        cotangents.ks[:n].view(n, -1).addr_(weights.dense, (h * g).view(-1))
        if self.g_ts is not None:
            g_h = (g * combine(ks, weights)).sum(-1, keepdim=True)
            cotangents.h += g_h.to(cotangents.h.dtype)

    def _pull_times(self, group: Group, cotangents: Cotangents, g_t1: Tensor) -> Tensor:
        """The cotangent of where steps start, from those of where they end and how long they are.

        ``t1 = t + h`` with ``h`` a constant, or, for a step cut to land on an output time,
        ``h = output - t`` and ``t1`` that output time.
        """
        if self.g_ts is None:
            return cotangents.t
        landed = (group.stops >= 0).unsqueeze(-1)
        at_stop = torch.where(landed, g_t1 + cotangents.h, 0.0)
        assert self._tape is not None
        rows = self._tape.ranking[: group.n_rows]
        self._add_to_times(group.stops.clamp(min=0), rows, at_stop)
        return cotangents.t + torch.where(landed, -cotangents.h, g_t1)

    def _add_to_times(self, index: Tensor, rows: Tensor, g: Tensor) -> None:
        if self.g_ts is None:
            return
        at = (index, rows) if self._times.per_row else (index,)
        self.g_ts.index_put_(at, g.squeeze(-1), accumulate=True)

    def _field_on(self, first: int, last: int) -> RowField:
        """The field on those ranks."""
        assert self._tape is not None
        with torch.enable_grad():  # per-row args are cut to the rows here
            return self._field.select(self._tape.ranking[first:last])

    def _evaluate(self, field: RowField, t: Tensor, y: Tensor) -> Evaluation:
        with torch.enable_grad():
            t = t.detach().to(y.dtype)
            t.requires_grad_(self.g_ts is not None)
            y = y.detach().requires_grad_()
            return Evaluation(t, y, field(t, y))

    def _pull(self, evaluation: Evaluation, g: Tensor) -> tuple[Tensor, Tensor | None]:
        """Cotangents of an evaluation's state and time; those of the leaves are added up."""
        if not evaluation.k.requires_grad:
            return torch.zeros_like(g), None
        inputs = [evaluation.y, *self._leaves]
        if self.g_ts is not None:
            inputs.append(evaluation.t)
        # A graph the field closes over belongs to the user and is walked once per evaluation.
        g_y, *g_others = torch.autograd.grad(
            evaluation.k, inputs, g, retain_graph=True, allow_unused=True
        )
        g_t = g_others.pop() if self.g_ts is not None else None
        for i, g_leaf in enumerate(g_others):
            if g_leaf is not None:
                total = self.g_leaves[i]
                # The first one may share memory with a cotangent.
                self.g_leaves[i] = g_leaf.clone() if total is None else total.add_(g_leaf)
        if g_t is not None:
            assert self._tape is not None
            g_t = g_t.to(self._tape.t.dtype)
        return torch.zeros_like(g) if g_y is None else g_y, g_t
