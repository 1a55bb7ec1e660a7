"""The time loop: tries steps, keeps what is accepted, lets finished and failed rows go.

Knows neither coefficients nor tolerances: a stepper makes the steps, a step control judges them.
A row's history never depends on the rows beside it.
"""

from dataclasses import replace

import torch

from odeum.eager.completion import Completion, put
from odeum.eager.control import StepControl, Verdict
from odeum.eager.field import RowField
from odeum.eager.ledger import HANDED_OVER, RUNNING, Ledger
from odeum.eager.outputs import Outputs, Segments
from odeum.eager.recording import is_recorded, unrecorded
from odeum.eager.records import (
    CUT_ELSEWHERE,
    END,
    NOT_CUT,
    Failure,
    Limits,
    Marked,
    Marks,
    Observers,
    Record,
    State,
)
from odeum.eager.stepper import Memory, Step, Stepper
from odeum.eager.times import Times, spacing
from odeum.solution import Status
from odeum.types import Tensor

CHECK_INTERVAL = 16
"""Tried steps between looks at what need not be looked at every time."""

_OF_RUNNING_ROWS = (
    "_rows",
    "_t",
    "_y",
    "_k",
    "_h",
    "_stop",
    "_stop_index",
    "_n_rejected",
    "_met_non_finite",
)


class Loop:
    """The solve of rows of a batch by one method, as far as it has come.

    Args:
        stepper: the method.
        control: chooses step sizes.
        field: the field on the whole batch.
        start: where the rows begin.
        times: the output times.
        outputs: takes the accepted steps, to evaluate the states asked for.
        ledger: where the rows' ends and work are written down.
        limits: what ends a row early.
        observers: who is told.

    Attributes:
        marked: the states at marks.
        handed_over: rows that another loop is to go on with.
    """

    def __init__(
        self,
        stepper: Stepper,
        control: StepControl,
        field: RowField,
        start: State,
        times: Times,
        outputs: Outputs,
        ledger: Ledger,
        limits: Limits,
        observers: Observers,
    ) -> None:
        self.marked: list[Marked] = []
        self.handed_over: list[State] = []
        self._stepper = stepper
        self._control = control
        self._times = times
        self._outputs = outputs
        self._ledger = ledger
        self._limits = limits
        self._observers = observers
        self._recorder = observers.recorder
        self._completion = Completion(
            stepper,
            times,
            ledger,
            observers.recorder,
            everywhere=outputs.keep or any(watch.looks_inside for watch in observers.watches),
        )
        # What every running row has had in this loop.
        self._n_evaluations = 0
        self._n_tried = 0

        # Of the rows still running:
        self._rows = rows = start.rows
        self._field = field if len(rows) == ledger.n_rows else field.select(rows)
        self._t = start.t
        self._y = start.y
        self._k = start.k
        self._has_first_step = start.h is not None
        self._h = times.end[rows] - start.t if start.h is None else start.h
        self._stop_index = self._first_stop_index()
        self._stop = times.stop(self._stop_index, rows)
        self._n_rejected = torch.zeros_like(rows)
        self._met_non_finite = torch.zeros_like(rows, dtype=torch.bool)
        self._ratios: list[Tensor] = []
        self._memory: Memory = ()

        self._success = rows.new_tensor(int(Status.SUCCESS))
        self._running = rows.new_tensor(RUNNING)

    def _first_stop_index(self) -> Tensor:
        last = torch.full_like(self._rows, self._times.n_times - 1)
        if not self._control.lands_on_outputs:
            return last
        return torch.minimum(self._times.counts(self._rows, self._t, self._t)[0], last)

    def run(self) -> None:
        """Takes every row to its end or its failure."""
        self._retire_unstartable()
        if not len(self._rows):
            return
        if not self._has_first_step:
            self._choose_first_step()
        budget = self._budget()
        while len(self._rows):
            if budget is not None and self._n_tried >= budget:
                self._stop_exhausted()
                budget = self._budget()
                continue
            self._n_tried += 1
            self._attempt()
            if self._n_tried % CHECK_INTERVAL == 0 and len(self._rows):
                self._check_in()

    def _budget(self) -> int | None:
        """Tries in this loop after which some row has had all it may have."""
        if self._limits.max_steps is None or not len(self._rows):
            return None
        return self._limits.max_steps - int(self._ledger.n_tried(self._rows).max())

    def _stop_exhausted(self) -> None:
        assert self._limits.max_steps is not None
        n_tried = self._ledger.n_tried(self._rows) + self._n_tried
        exhausted = n_tried >= self._limits.max_steps
        self._retire(torch.where(exhausted, int(Status.MAX_STEPS), self._running))

    def _retire_unstartable(self) -> None:
        finite = self._field.state(self._y.isfinite() & self._k.isfinite()).all(-1)
        if bool(finite.all()):
            return
        self._retire(torch.where(finite, RUNNING, int(Status.NON_FINITE)))
        if is_recorded() and len(self._rows):
            # Backpropagation through the row dropped just now would turn zeros into NaN.
            self._k = self._field(self._t.to(self._y.dtype), self._y)

    def _choose_first_step(self) -> None:
        with unrecorded():
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
        step = self._take(h)
        self._n_evaluations += self._stepper.n_evaluations
        if step.work is not None:
            self._ledger.add_work(self._rows, step.work)
        self._memory = step.memory
        verdict = self._control.judge(step, self._ratios)
        self._ratios = verdict.memory
        if not self._observers.watches and bool((verdict.accept & ~landing).all()):
            self._accept_all(step, verdict)
        else:
            self._accept_some(step, verdict, landing)

    def _take(self, h: Tensor) -> Step:
        state = (self._field, self._t, h, self._y, self._k, self._memory)
        if self._recorder is None:
            return self._stepper.step(*state)
        return self._recorder.step(self._stepper, *state)

    def _accept_all(self, step: Step, verdict: Verdict) -> None:
        """The usual case: every row goes on from where the step ended."""
        t1 = step.t + step.h
        k1 = self._completion.end_derivative(self._field, self._rows, step, t1, None)
        segments = self._completion.segments(self._field, self._rows, step, t1, k1)
        self._keep(step, segments, None, None, None)
        self._t, self._y, self._k = t1, step.y1, k1
        if verdict.factor is not None:
            self._h = self._control.bound(self._h * verdict.factor.to(self._h.dtype))

    def _accept_some(self, step: Step, verdict: Verdict, landing: Tensor) -> None:
        """The step that some rows reject, that lands some on a stop, or that is watched."""
        everywhere = bool(verdict.accept.all())
        accept = None if everywhere else verdict.accept
        landed = (landing & verdict.accept).squeeze(-1)
        t1 = torch.where(landing, self._stop, step.t + step.h)
        if accept is not None:
            self._n_rejected = self._n_rejected + ~accept.squeeze(-1)
            t1 = torch.where(accept, t1, step.t)
            if is_recorded():
                step = self._retaken(step, accept)
        finished = landed & (self._stop == self._times.end[self._rows]).squeeze(-1)
        status = torch.where(finished, self._success, self._running)
        self._resize(step, verdict, status, everywhere=everywhere)
        k1 = self._completion.end_derivative(self._field, self._rows, step, t1, finished)
        segments = self._completion.segments(self._field, self._rows, step, t1, k1)
        y1 = step.y1 if accept is None else torch.where(accept, step.y1, step.y)
        if self._observers.watches:
            segments, status, marks = self._watched(step, segments, y1, status)
        else:
            marks = self._end_marks(segments.t1, status)
        self._keep(step, segments, accept, landed, marks)
        self._t, self._y = segments.t1, y1
        self._k = k1 if accept is None else torch.where(accept, k1, self._k)
        if self._control.lands_on_outputs:
            self._stop_index = self._stop_index + (landed & ~finished)
            self._stop = self._times.stop(self._stop_index, self._rows)
        self._retire(status)

    def _watched(
        self, step: Step, segments: Segments, y1: Tensor, status: Tensor
    ) -> tuple[Segments, Tensor, Marks | None]:
        """The steps as the watches leave them, how rows end, and what is marked in them."""
        marks = []
        for watch in self._observers.watches:
            sighting = watch.look(self._field, step, segments, y1, status)
            segments, status = replace(segments, t1=sighting.t1), sighting.status
            marks.append(sighting.marks)
        marks.append(self._end_marks(segments.t1, status))
        found = [part for part in marks if part is not None]
        return segments, status, Marks.concatenate(found) if found else None

    def _end_marks(self, t1: Tensor, status: Tensor) -> Marks | None:
        if not self._observers.marks_end:
            return None
        at = (status == Status.SUCCESS).nonzero().squeeze(-1)
        return Marks(at, t1[at].squeeze(-1).detach(), torch.full_like(at, END)) if len(at) else None

    def _resize(self, step: Step, verdict: Verdict, status: Tensor, *, everywhere: bool) -> None:
        """The next step sizes; ``status`` is told of rows that no step size can help."""
        if verdict.factor is None:
            if not everywhere:
                reason = torch.full_like(status, Status.NON_FINITE)
                if step.solved is not None:
                    stuck = step.y1.isfinite().all(-1) & ~step.solved.squeeze(-1)
                    reason.masked_fill_(stuck, int(Status.NOT_CONVERGED))
                status.copy_(torch.where(verdict.accept.squeeze(-1), status, reason))
            return
        self._h = self._control.bound(step.h.detach() * verdict.factor.to(self._h.dtype))
        if everywhere:
            return
        rejected = ~verdict.accept.squeeze(-1)
        # The last stage may be the first to leave the field's domain, with nothing of it in y1.
        finite = self._field.state(step.y1 + step.ks[-1]).isfinite().all(-1)
        self._met_non_finite = torch.where(rejected, ~finite, self._met_non_finite)
        if self._n_tried % CHECK_INTERVAL == 0:
            hopeless = rejected & (self._too_small() | ~self._k.isfinite().all(-1))
            status.copy_(torch.where(hopeless, self._reason(), status))

    def _reason(self) -> Tensor:
        """Why steps are too small, [rows]: what made the last ones be rejected says it."""
        return torch.where(self._met_non_finite, int(Status.NON_FINITE), int(Status.STEP_TOO_SMALL))

    def _too_small(self) -> Tensor:
        """Whether the next step is below what moves the time, or what the user allows, [rows]."""
        near = spacing(self._t, self._times.end[self._rows])
        smallest = torch.clamp(10 * near, min=self._limits.h_min)
        return (self._h.abs() < smallest).squeeze(-1)

    def _retaken(self, step: Step, accept: Tensor) -> Step:
        """The step, recorded by autograd in the rows that accept it alone.

        Backpropagation through a rejected row may meet infinities and turn the zeros that come
        in into NaN.
        """
        at = accept.squeeze(-1).nonzero().squeeze(-1)
        if not len(at):
            return replace(step, y1=step.y, ks=[torch.zeros_like(k) for k in step.ks])
        t, h, y, k0 = (x[at] for x in (step.t, step.h, step.y, self._k))
        ks = [k[at] for k in step.ks]
        field = self._field if len(at) == len(self._rows) else self._field.part(at)
        again = self._stepper.record(field, t, h, y, k0, ks, with_end=True)
        y1, *ks = (put(torch.zeros_like(step.y), at, x) for x in (again.y1, *again.ks))
        return replace(step, y1=y1, ks=ks)

    def _keep(
        self,
        step: Step,
        segments: Segments,
        accept: Tensor | None,
        landed: Tensor | None,
        marks: Marks | None,
    ) -> None:
        """Hands a step on to the outputs and to the recorder."""
        if marks is not None:
            y = segments.evaluate(marks.position, marks.t)
            rows = self._rows[marks.position]
            with torch.no_grad():
                slope = segments.slope(marks.position, marks.t)
            self.marked.append(Marked(rows, marks.t, marks.event, y, slope))
        # A rejected row's step ends where it starts: no output lies inside.
        kept = segments
        if accept is not None and self._outputs.keep:
            kept = segments.select(accept.squeeze(-1).nonzero().squeeze(-1))
        self._outputs.add(kept)
        if self._recorder is not None:
            finite = accept is None or bool(segments.ks.isfinite().all())
            self._recorder.add(
                Record(
                    self._stepper,
                    self._rows,
                    accept,
                    step.t,
                    step.h,
                    segments.t1,
                    step.y,
                    step.ks if self._stepper.implicit else [],
                    self._output_stops(landed),
                    marks,
                    finite,
                )
            )

    def _output_stops(self, landed: Tensor | None) -> Tensor | None:
        """Index of the output time that rows landed on, [rows]."""
        if landed is None:
            return None
        outputs = self._times.at(self._stop_index, self._rows)
        stops = torch.where(self._stop.squeeze(-1) == outputs, self._stop_index, CUT_ELSEWHERE)
        return torch.where(landed, stops, NOT_CUT)

    def _check_in(self) -> None:
        """What need not be done at every step."""
        # Steps may be accepted and yet be too small to move the time.
        self._retire(torch.where(self._too_small(), self._reason(), self._running))
        if self._observers.on_progress is not None and len(self._rows):
            self._observers.on_progress(self._rows, self._t)

    def _retire(self, status: Tensor) -> None:
        """Writes down how rows ended and lets them go."""
        ended = (status != RUNNING).nonzero().squeeze(-1)
        if not len(ended):
            return
        how = status[ended]
        self._ledger.close(
            self._rows[ended],
            how,
            n_evaluations=self._n_evaluations + self._completion.n_evaluations,
            n_tried=self._n_tried,
            n_rejected=self._n_rejected[ended],
        )
        self._hand_over((status == HANDED_OVER).nonzero().squeeze(-1))
        failed = how > Status.EVENT
        if self._observers.on_failure is not None and bool(failed.any()):
            first = int(failed.nonzero()[0])
            self._observers.on_failure(self._failure(int(ended[first]), Status(int(how[first]))))
        left = (status == RUNNING).nonzero().squeeze(-1)
        for name in _OF_RUNNING_ROWS:
            setattr(self, name, getattr(self, name).index_select(0, left))
        if not len(left):
            return
        self._field = self._field.select(self._rows)
        self._ratios = [ratio[left] for ratio in self._ratios]
        self._memory = tuple(x[left] for x in self._memory)

    def _hand_over(self, at: Tensor) -> None:
        if len(at):
            t, y, k, h = (x.index_select(0, at) for x in (self._t, self._y, self._k, self._h))
            self.handed_over.append(State(self._rows[at], t, y, k, h))

    def _failure(self, i: int, status: Status) -> Failure:
        return Failure(
            row=int(self._rows[i]),
            status=status,
            t=float(self._t[i].detach()),
            h=float(self._h[i].detach()),
            n_tried=int(self._ledger.n_tried(self._rows[i])),
            y=self._field.state(self._y[i].detach()),
            k=self._field.state(self._k[i].detach()),
            implicit=self._stepper.implicit,
        )
