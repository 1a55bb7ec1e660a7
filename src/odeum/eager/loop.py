"""The time loop: tries steps, keeps what is accepted, lets finished and failed rows go.

Knows neither coefficients nor tolerances: a stepper makes the steps, a step control judges them.
A row's history never depends on the rows beside it.
"""

from collections.abc import Callable
from typing import Protocol

import torch

from odeum.eager.control import StepControl, Verdict
from odeum.eager.explicit import Step, Weights
from odeum.eager.field import RowField
from odeum.eager.outputs import Outputs, Segments
from odeum.eager.records import Failure, Record
from odeum.eager.times import Times
from odeum.solution import Stats, Status
from odeum.tableaus import RKTableau
from odeum.types import Tensor

CHECK_INTERVAL = 16
"""Tried steps between looks at what need not be looked at every time."""

RUNNING = -1
"""In place of a Status: the row goes on."""

_OF_RUNNING_ROWS = (
    "_t",
    "_y",
    "_k",
    "_h",
    "_stop",
    "_stop_index",
    "_n_rejected",
    "_met_non_finite",
)


class Steps(Protocol):
    """What makes the steps: a stepper, or one that remembers them."""

    @property
    def tableau(self) -> RKTableau:
        """The method."""
        ...

    @property
    def fsal(self) -> bool:
        """Whether the last stage of a step is the first of the next."""
        ...

    @property
    def extra_stages(self) -> list[Weights]:
        """The extra stages of the dense output."""
        ...

    def step(self, field: RowField, t: Tensor, h: Tensor, y: Tensor, k0: Tensor) -> Step:
        """Tries one step of all running rows."""
        ...

    def end_derivative(self, field: RowField, t1: Tensor, y1: Tensor) -> Tensor:
        """``f(t1, y1)`` at the end of the last step."""
        ...

    def extra_derivatives(
        self, field: RowField, t: Tensor, h: Tensor, y: Tensor, ks: list[Tensor]
    ) -> list[Tensor]:
        """The extra stages of the dense output, after ``ks``."""
        ...


class Loop:
    """The solve of a batch of rows, as far as it has come.

    Args:
        stepper: the method.
        control: chooses step sizes.
        field: the field on all rows.
        y0: initial states, [batch, dim].
        k0: derivatives there, [batch, dim].
        times: the output times.
        outputs: takes the accepted steps, to evaluate the states asked for.
        max_steps: tried steps after which rows stop; None for no limit.
        h_min: a row whose step must shrink below this stops.
        tape: told of every step that any row accepts.
        on_failure: told of the first row that fails; may raise.
        on_progress: told the times of the rows still running, now and then.

    Attributes:
        status: how each row ended, [batch].
        stats: the work each row took, [batch].
    """

    def __init__(
        self,
        stepper: Steps,
        control: StepControl,
        field: RowField,
        y0: Tensor,
        k0: Tensor,
        times: Times,
        outputs: Outputs,
        *,
        max_steps: int | None = None,
        h_min: float = 0.0,
        tape: Callable[[Record], None] | None = None,
        on_failure: Callable[[Failure], None] | None = None,
        on_progress: Callable[[Tensor, Tensor], None] | None = None,
    ) -> None:
        self._stepper = stepper
        self._control = control
        self._times = times
        self._outputs = outputs
        self._max_steps = max_steps
        self._h_min = h_min
        self._tape = tape
        self._on_failure = on_failure
        self._on_progress = on_progress

        rows = torch.arange(len(y0), device=y0.device)
        self.status = torch.full_like(rows, Status.SUCCESS)
        zeros = torch.zeros_like(rows)
        self.stats = Stats(zeros, zeros.clone(), zeros.clone())
        # Work beyond what every running row has had, per row of the whole batch.
        self._extra_evaluations = torch.zeros_like(rows)
        self._n_evaluations = 1
        self._n_tried = 0

        # Of the rows still running:
        self._field = field
        self._rows = rows
        self._t = times.start
        self._y = y0
        self._k = k0
        self._h = times.end - times.start
        self._stop_index = torch.full_like(
            rows, 1 if control.lands_on_outputs else times.n_times - 1
        )
        self._stop = times.at(self._stop_index, rows).unsqueeze(-1)
        self._n_rejected = torch.zeros_like(rows)
        self._met_non_finite = torch.zeros_like(rows, dtype=torch.bool)
        self._memory: list[Tensor] = []

        self._success = rows.new_tensor(int(Status.SUCCESS))
        self._running = rows.new_tensor(RUNNING)

    def run(self) -> None:
        """Takes every row to its end or its failure."""
        self._retire_unstartable()
        if len(self._rows):
            self._choose_first_step()
        while len(self._rows):
            if self._max_steps is not None and self._n_tried >= self._max_steps:
                self._retire(torch.full_like(self._rows, Status.MAX_STEPS))
                return
            self._n_tried += 1
            self._attempt()
            if self._n_tried % CHECK_INTERVAL == 0 and len(self._rows):
                self._check_in()

    def _retire_unstartable(self) -> None:
        finite = (self._y.isfinite() & self._k.isfinite()).all(-1)
        if bool(finite.all()):
            return
        self._retire(torch.where(finite, RUNNING, int(Status.NON_FINITE)))
        if torch.is_grad_enabled() and len(self._rows):
            # Backpropagation through the row dropped just now would turn zeros into NaN.
            self._k = self._field(self._t.to(self._y.dtype), self._y)

    def _choose_first_step(self) -> None:
        with torch.no_grad():
            span = self._times.end[self._rows] - self._t
            self._h, n_evaluations = self._control.first(
                self._field, self._t, self._y, self._k, span
            )
        self._n_evaluations += n_evaluations

    def _attempt(self) -> None:
        remaining = self._stop - self._t
        # Stretched by up to a hundredth rather than leaving a sliver for one more step.
        if self._times.increasing:
            landing = self._h * 1.01 >= remaining
        else:
            landing = self._h.abs() * 1.01 >= remaining.abs()
        h = torch.where(landing, remaining, self._h)
        step = self._stepper.step(self._field, self._t, h, self._y, self._k)
        self._n_evaluations += self._stepper.tableau.n_stages - 1
        verdict = self._control.judge(step, self._memory)
        self._memory = verdict.memory
        if bool((verdict.accept & ~landing).all()):
            self._accept_all(step, verdict)
        else:
            self._accept_some(step, verdict, landing)

    def _accept_all(self, step: Step, verdict: Verdict) -> None:
        """The usual case: every row goes on from where the step ended."""
        t1 = step.t + step.h
        k1 = self._end_derivative(step, t1, None)
        self._keep(step, t1, k1, accept=None, landed=None)
        self._t, self._y, self._k = t1, step.y1, k1
        if verdict.factor is not None:
            self._h = self._control.bound(self._h * verdict.factor.to(self._h.dtype))

    def _accept_some(self, step: Step, verdict: Verdict, landing: Tensor) -> None:
        """The step that some rows reject, or that lands some rows on a stop."""
        accept = verdict.accept
        everywhere = bool(accept.all())
        landed = (landing & accept).squeeze(-1)
        t1 = torch.where(landing, self._stop, step.t + step.h)
        if not everywhere:
            self._n_rejected = self._n_rejected + ~accept.squeeze(-1)
            t1 = torch.where(accept, t1, step.t)
            if torch.is_grad_enabled():
                step = self._retaken(step, accept)
        finished = landed
        if self._control.lands_on_outputs:
            finished = landed & (self._stop_index == self._times.n_times - 1)
        status = torch.where(finished, self._success, self._running)
        self._resize(step, verdict, status, everywhere=everywhere)
        k1 = self._end_derivative(step, t1, finished)
        self._keep(step, t1, k1, accept=None if everywhere else accept, landed=landed)
        self._t = t1
        self._y = step.y1 if everywhere else torch.where(accept, step.y1, step.y)
        self._k = k1 if everywhere else torch.where(accept, k1, self._k)
        if self._control.lands_on_outputs:
            self._stop_index = self._stop_index + (landed & ~finished)
            self._stop = self._times.at(self._stop_index, self._rows).unsqueeze(-1)
        self._retire(status)

    def _resize(self, step: Step, verdict: Verdict, status: Tensor, *, everywhere: bool) -> None:
        """The next step sizes; ``status`` is told of rows that no step size can help."""
        if verdict.factor is None:
            status.masked_fill_(~verdict.accept.squeeze(-1), int(Status.NON_FINITE))
            return
        self._h = self._control.bound(step.h.detach() * verdict.factor.to(self._h.dtype))
        if everywhere:
            return
        rejected = ~verdict.accept.squeeze(-1)
        # The last stage may be the first to leave the field's domain, with nothing of it in y1.
        finite = (step.y1 + step.ks[-1]).isfinite().all(-1)
        self._met_non_finite = torch.where(rejected, ~finite, self._met_non_finite)
        if self._n_tried % CHECK_INTERVAL == 0:
            hopeless = rejected & (self._too_small() | ~self._k.isfinite().all(-1))
            status.copy_(torch.where(hopeless, self._reason(), status))

    def _reason(self) -> Tensor:
        """Why steps are too small, [rows]: what made the last ones be rejected says it."""
        return torch.where(self._met_non_finite, int(Status.NON_FINITE), int(Status.STEP_TOO_SMALL))

    def _too_small(self) -> Tensor:
        """Whether the next step is below what moves the time, or what the user allows, [rows]."""
        eps = torch.finfo(self._t.dtype).eps
        reach = torch.maximum(self._t.detach().abs(), eps * self._times.end[self._rows].abs())
        return (self._h.abs() < torch.clamp(10 * eps * reach, min=self._h_min)).squeeze(-1)

    def _retaken(self, step: Step, accept: Tensor) -> Step:
        """The step, recorded by autograd in the rows that accept it alone.

        Backpropagation through a rejected row may meet infinities and turn the zeros that come
        in into NaN.
        """
        at = accept.squeeze(-1).nonzero().squeeze(-1)
        if not len(at):
            return Step(step.t, step.h, step.y, step.y, [torch.zeros_like(k) for k in step.ks])
        t, h, y, k = (x[at] for x in (step.t, step.h, step.y, self._k))
        again = self._stepper.step(self._field_on(self._rows[at]), t, h, y, k)
        y1, *ks = (_put(torch.zeros_like(step.y), at, x) for x in (again.y1, *again.ks))
        return Step(step.t, step.h, step.y, y1, ks)

    def _end_derivative(self, step: Step, t1: Tensor, finished: Tensor | None) -> Tensor:
        """``f(t1, y1)``, [rows, dim], in rows that moved and go on or interpolate (None: all)."""
        if self._stepper.fsal:
            return step.ks[-1]
        if finished is None:
            self._n_evaluations += 1
            return self._stepper.end_derivative(self._field, t1, step.y1)
        wanted = (t1 != step.t).squeeze(-1) & (~finished | self._wants_inside(step.t, t1))
        return self._evaluate_where(
            wanted,
            step,
            lambda field, at: [self._stepper.end_derivative(field, t1[at], step.y1[at])],
        )[0]

    def _keep(
        self, step: Step, t1: Tensor, k1: Tensor, *, accept: Tensor | None, landed: Tensor | None
    ) -> None:
        """Hands a step on to the outputs and to the tape."""
        ks = step.ks if self._stepper.fsal else [*step.ks, k1]
        if self._stepper.extra_stages:
            wanted = self._wants_inside(step.t, t1) & (t1 != step.t).squeeze(-1)
            before = ks
            ks = ks + self._evaluate_where(
                wanted,
                step,
                lambda field, at: self._stepper.extra_derivatives(
                    field, step.t[at], step.h[at], step.y[at], [k[at] for k in before]
                ),
                n_values=len(self._stepper.extra_stages),
            )
        stacked = torch.stack(ks)
        segments = Segments(self._rows, step.t, t1, step.h, step.y, stacked)
        if accept is not None and self._outputs.keep:
            segments = segments.select(accept.squeeze(-1).nonzero().squeeze(-1))
        # A rejected row's step ends where it starts: no output lies inside.
        self._outputs.add(segments)
        if self._tape is not None:
            finite = accept is None or bool(stacked.isfinite().all())
            stops = None if landed is None else torch.where(landed, self._stop_index, -1)
            self._tape(Record(self._rows, accept, step.t, step.h, t1, step.y, stops, finite))

    def _wants_inside(self, t: Tensor, t1: Tensor) -> Tensor:
        """Which rows have states asked for strictly inside a step, [rows]."""
        if self._outputs.keep:
            return torch.ones_like(self._rows, dtype=torch.bool)
        return self._times.has_interior(self._rows, t, t1)

    def _evaluate_where(
        self,
        wanted: Tensor,
        step: Step,
        evaluate: Callable[[RowField, Tensor], list[Tensor]],
        n_values: int = 1,
    ) -> list[Tensor]:
        """Derivatives in the rows that want them, zero in the others, each [rows, dim]."""
        at = wanted.nonzero().squeeze(-1)
        if not len(at):
            return [torch.zeros_like(step.y)] * n_values
        rows = self._rows[at]
        self._extra_evaluations[rows] += n_values
        values = evaluate(self._field_on(rows), at)
        return [_put(torch.zeros_like(step.y), at, value) for value in values]

    def _field_on(self, rows: Tensor) -> RowField:
        return self._field if len(rows) == len(self._rows) else self._field.select(rows)

    def _check_in(self) -> None:
        """What need not be done at every step."""
        # Steps may be accepted and yet be too small to move the time.
        self._retire(torch.where(self._too_small(), self._reason(), self._running))
        if self._on_progress is not None and len(self._rows):
            self._on_progress(self._rows, self._t)

    def _retire(self, status: Tensor) -> None:
        """Writes down how rows ended and lets them go."""
        ended = (status != RUNNING).nonzero().squeeze(-1)
        if not len(ended):
            return
        rows, how = self._rows[ended], status[ended]
        n_rejected = self._n_rejected[ended]
        self.status[rows] = how
        self.stats.n_rejected[rows] = n_rejected
        self.stats.n_accepted[rows] = self._n_tried - n_rejected
        self.stats.n_evaluations[rows] = self._n_evaluations + self._extra_evaluations[rows]
        if self._on_failure is not None and bool((how != Status.SUCCESS).any()):
            first = int((how != Status.SUCCESS).nonzero()[0])
            self._on_failure(self._failure(int(ended[first]), Status(int(how[first]))))
        left = (status == RUNNING).nonzero().squeeze(-1)
        self._rows = self._rows[left]
        if not len(left):
            return
        self._field = self._field.select(self._rows)
        for name in _OF_RUNNING_ROWS:
            setattr(self, name, getattr(self, name).index_select(0, left))
        self._memory = [ratio[left] for ratio in self._memory]

    def _failure(self, i: int, status: Status) -> Failure:
        return Failure(
            row=int(self._rows[i]),
            status=status,
            t=float(self._t[i]),
            h=float(self._h[i]),
            n_tried=self._n_tried,
            y=self._y[i].detach(),
            k=self._k[i].detach(),
        )


def _put(old: Tensor, index: Tensor, new: Tensor) -> Tensor:
    """``old`` with the rows at ``index`` replaced."""
    return new if len(index) == len(old) else old.index_copy(0, index, new)
