"""An initial value problem on flat rows, ready to be solved; what every gradient starts from."""

from collections.abc import Callable
from dataclasses import dataclass

from odeum.eager.control import AdaptiveSteps, FixedSteps, StepControl, Tolerance
from odeum.eager.explicit import Stepper, stepper
from odeum.eager.field import RowField
from odeum.eager.loop import Loop, Steps
from odeum.eager.options import MAX_STEPS, StepOptions
from odeum.eager.outputs import Outputs, Segments
from odeum.eager.records import Failure, Record
from odeum.eager.times import Times
from odeum.methods import ExplicitRungeKutta
from odeum.solution import Stats, spread
from odeum.types import Tensor


@dataclass(frozen=True)
class Outcome:
    """A solved problem.

    Attributes:
        ys: states at the output times, [time, batch, dim].
        status: how each row ended, in the user's batch.
        stats: the work each row took, likewise.
        segments: every accepted step, where the problem keeps them; empty if no row took one.
    """

    ys: Tensor
    status: Tensor
    stats: Stats
    segments: list[Segments]


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
        dense: whether to keep every step.
        on_failure: told of the first row that fails; may raise.
        on_progress: told rows and times of what is still running, now and then.
    """

    field: RowField
    y0: Tensor
    ts: Tensor
    method: ExplicitRungeKutta
    tolerance: Tolerance
    steps: StepOptions
    dense: bool = False
    on_failure: Callable[[Failure], None] | None = None
    on_progress: Callable[[Tensor, Tensor], None] | None = None

    def stepper(self) -> Stepper:
        """The method in the state's dtype, on its device."""
        return stepper(self.method.tableau, self.y0.dtype, self.y0.device)

    def times(self) -> Times:
        """The output times."""
        return Times(self.ts, len(self.y0))

    def derivative0(self, times: Times) -> Tensor:
        """The field at the initial state, [batch, dim]."""
        return self.field(times.start.to(self.y0.dtype), self.y0)

    def solve(
        self,
        k0: Tensor | None = None,
        steps: Steps | None = None,
        tape: Callable[[Record], None] | None = None,
    ) -> Outcome:
        """Solves it, recorded by autograd where that is enabled.

        Args:
            k0: the field at the initial state, where it is known.
            steps: what makes the steps, where it is not a plain stepper.
            tape: told of every step that any row accepts.
        """
        times, plain = self.times(), self.stepper()
        control = self._control(plain)
        outputs = Outputs(times, plain, self.y0, keep=self.dense)
        loop = Loop(
            steps or plain,
            control,
            self.field,
            self.y0,
            self.derivative0(times) if k0 is None else k0,
            times,
            outputs,
            max_steps=self._max_steps(control),
            h_min=self.steps.min or 0.0,
            tape=tape,
            on_failure=self.on_failure,
            on_progress=self.on_progress,
        )
        loop.run()
        batch_shape = self.field.structure.batch_shape
        return Outcome(
            ys=outputs.ys(),
            status=spread(loop.status, batch_shape),
            stats=loop.stats.spread(batch_shape),
            segments=outputs.kept,
        )

    def _control(self, stepper: Stepper) -> StepControl:
        if self.steps.fixed is not None or not stepper.tableau.adaptive:
            return FixedSteps(self.steps.fixed)
        return AdaptiveSteps(
            stepper, self.method.controller, self.tolerance, self.steps.first, self.steps.max
        )

    def _max_steps(self, control: StepControl) -> int | None:
        if self.steps.max_steps is None and isinstance(control, AdaptiveSteps):
            return MAX_STEPS
        return self.steps.max_steps
