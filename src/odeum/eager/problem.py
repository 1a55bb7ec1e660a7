"""An initial value problem on flat rows, ready to be solved; what every gradient starts from."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from odeum.eager.control import AdaptiveSteps, FixedSteps, StepControl, Tolerance
from odeum.eager.field import RowField
from odeum.eager.ledger import Ledger
from odeum.eager.loop import Loop
from odeum.eager.options import MAX_STEPS, StepOptions
from odeum.eager.outputs import Outputs, Segments
from odeum.eager.records import Failure, Limits, Marked, Observers, Recorder, State, Watch
from odeum.eager.stepper import Stepper
from odeum.eager.steppers import stepper_of
from odeum.eager.switching import LeavesStiffness, MeetsStiffness
from odeum.eager.times import Times
from odeum.methods import Auto, FixedStep, Method, OneStep, SciPy
from odeum.solution import Stats
from odeum.types import Tensor


@dataclass(frozen=True)
class Outcome:
    """A solved problem.

    Attributes:
        ys: states at the output times, [time, batch, dim].
        status: how each row ended, [batch].
        stats: the work each row took, [batch].
        segments: every accepted step, where the problem keeps them, those of each method
            together; empty if no row took one.
        marked: states at events and, where the problem asks for them, at the rows' ends.
    """

    ys: Tensor
    status: Tensor
    stats: Stats
    segments: list[Segments]
    marked: Marked


@dataclass(frozen=True)
class Problem:
    """An initial value problem on flat rows.

    Attributes:
        field: the field.
        y0: initial states, [batch, dim].
        ts: output times, [time] or [time, batch].
        method: the method.
        tolerance: allowed error.
        steps: bounds on the steps.
        start: where rows start, [batch, 1]; at the first output time where None.
        end: where they end, [batch, 1]; at the last output time where None.
        n_tried: steps that rows tried before, [batch], which count against their limit.
        dense: whether every step is wanted.
        on_steps: takes them as they come, but for SciPy's; the outcome holds them where None.
        watches: look at accepted steps and may end rows inside them.
        marks_end: whether the states at which rows arrive are wanted as marks.
        on_failure: told of the first row that fails; may raise.
        on_progress: told rows and times of what is still running, now and then.
        on_backward: told the work of a backward pass, per row.
        native: solves this very problem by machine code, where nothing of the solve is wanted but
            states, statuses and statistics.
    """

    field: RowField
    y0: Tensor
    ts: Tensor
    method: Method
    tolerance: Tolerance
    steps: StepOptions
    start: Tensor | None = None
    end: Tensor | None = None
    n_tried: Tensor | None = None
    dense: bool = False
    on_steps: Callable[[Segments], None] | None = None
    watches: tuple[Watch, ...] = ()
    marks_end: bool = False
    on_failure: Callable[[Failure], None] | None = None
    on_progress: Callable[[Tensor, Tensor], None] | None = None
    on_backward: Callable[[Stats], None] | None = None
    native: "Callable[[Problem], Outcome] | None" = None

    def times(self) -> Times:
        """The output times."""
        return Times(self.ts, len(self.y0), self.start, self.end)

    def derivative0(self, times: Times) -> Tensor:
        """The field at the initial state, [batch, dim]."""
        return self.field(times.start.to(self.y0.dtype), self.y0)

    def solve(self, k0: Tensor | None = None, recorder: Recorder | None = None) -> Outcome:
        """Solves it, recorded by autograd where that is enabled.

        Args:
            k0: the field at the initial state, where it is known.
            recorder: takes the steps, so that they can be pulled back.
        """
        recorded = recorder is not None or torch.is_grad_enabled()
        if self.native is not None and not recorded and not self.dense:
            return self.native(self)
        if isinstance(self.method, SciPy):
            from odeum.eager import external  # imported where used: it is made of problems

            return external.solve(self)
        times = self.times()
        outputs = Outputs(times, self.y0, keep=self.dense, on_steps=self.on_steps)
        legs = self._legs(self.method)
        rows = torch.arange(len(self.y0), device=self.y0.device)
        k0 = self.derivative0(times) if k0 is None else k0
        start = State(rows, times.start, self.y0, k0)
        implicit = any(leg.stepper.implicit for leg in legs)
        ledger = Ledger(
            len(rows), rows.device, implicit=implicit, n_evaluations=1, n_tried=self.n_tried
        )
        marked: list[Marked] = []
        n_legs = 0
        while True:
            leg = legs[n_legs % len(legs)]
            loop = Loop(
                leg.stepper,
                leg.control,
                self.field,
                start,
                times,
                outputs,
                ledger,
                self._limits(leg.control),
                Observers(
                    recorder,
                    self.watches + leg.watches,
                    self.marks_end,
                    self.on_failure,
                    self.on_progress,
                ),
            )
            loop.run()
            marked += loop.marked
            if not loop.handed_over:
                break
            start = State.merged(loop.handed_over)
            n_legs += 1
        return Outcome(
            outputs.ys(),
            ledger.status,
            ledger.stats,
            outputs.segments(),
            Marked.concatenate(marked, times.start, self.y0),
        )

    def _legs(self, method: OneStep | FixedStep | Auto) -> "list[_Leg]":
        """The methods that rows are solved by in turn: one, unless it is chosen as they go."""
        if not isinstance(method, Auto):
            return [self._leg(method)]
        nonstiff, stiff = self._leg(method.nonstiff), self._leg(method.stiff)
        meets = MeetsStiffness(len(self.y0), method.nonstiff.tableau, self.y0)
        leaves = LeavesStiffness(len(self.y0), self.y0)
        return [replace(nonstiff, watches=(meets,)), replace(stiff, watches=(leaves,))]

    def _leg(self, method: OneStep | FixedStep) -> "_Leg":
        state = self.field.state
        if isinstance(method, FixedStep) or self.steps.fixed is not None or not method.adaptive:
            stepper = stepper_of(method, self.y0, None, self.field)
            return _Leg(stepper, FixedSteps(self.steps.fixed, state), ())
        tolerance = self.tolerance.of(state)
        stepper = stepper_of(method, self.y0, tolerance, self.field)
        control = AdaptiveSteps(
            stepper,
            method.controller,
            tolerance,
            self.steps.first,
            self.steps.max,
            state=state,
        )
        return _Leg(stepper, control, ())

    def _limits(self, control: StepControl) -> Limits:
        max_steps = self.steps.max_steps
        if max_steps is None and isinstance(control, AdaptiveSteps):
            max_steps = MAX_STEPS
        return Limits(max_steps, self.steps.min or 0.0)


@dataclass(frozen=True)
class _Leg:
    """A method with what chooses its steps and what may end its part of a solve."""

    stepper: Stepper
    control: StepControl
    watches: tuple[Watch, ...]
