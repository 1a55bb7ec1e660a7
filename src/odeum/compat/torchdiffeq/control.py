"""torchdiffeq's control of steps, of odeum's parts."""

import math
from dataclasses import dataclass, replace

import torch

from odeum.compat.torchdiffeq.call import Call
from odeum.compat.torchdiffeq.layout import Layout
from odeum.compat.torchdiffeq.options import AdaptiveOptions
from odeum.control import Controller
from odeum.eager.control import AdaptiveSteps, StepControl, Tolerance, Verdict
from odeum.eager.field import RowField
from odeum.eager.stepper import Step, Stepper
from odeum.types import Tensor


def controlled(call: Call, options: AdaptiveOptions, stepper: Stepper) -> StepControl:
    """What chooses the steps of a call."""

    def norm(x: Tensor) -> Tensor:
        with torch.no_grad():
            size = call.norm(call.layout.unflatten(x.squeeze(0)))
        return torch.as_tensor(size, dtype=x.dtype, device=x.device).abs().reshape(1, 1)

    steps = AdaptiveSteps(
        stepper=stepper,
        controller=Controller(
            safety=options.safety, factor_min=options.dfactor, factor_max=options.ifactor
        ),
        tolerance=_Tolerance(call.rtol, call.atol, call.layout),
        h_first=None if options.first_step is None else float(options.first_step),
        h_max=None if options.max_step == math.inf else float(options.max_step),
        norm=norm,
    )
    return Floored(steps, float(options.min_step)) if options.min_step > 0 else steps


@dataclass(frozen=True)
class _Tolerance(Tolerance):
    """The same for both numbers of a complex one, by its absolute value."""

    layout: Layout

    def scale(self, magnitude: Tensor) -> Tensor:
        modulus = self.layout.magnitude(magnitude.squeeze(0)).unsqueeze(0)
        # Of a state that is zero, with no absolute tolerance, no error is a large one.
        return (modulus * self.rtol + self.atol).clamp_(min=torch.finfo(modulus.dtype).tiny)


@dataclass(frozen=True)
class Floored:
    """Steps of another control that are no smaller than the smallest; that one always stands.

    Attributes:
        steps: the other control.
        h_min: the smallest step.
    """

    steps: AdaptiveSteps
    h_min: float

    @property
    def lands_on_outputs(self) -> bool:
        """As the other."""
        return self.steps.lands_on_outputs

    def first(
        self, field: RowField, t: Tensor, y: Tensor, k: Tensor, span: Tensor
    ) -> tuple[Tensor, int]:
        """The other's, within bounds."""
        h, n_evaluations = self.steps.first(field, t, y, k, span)
        return self.bound(h), n_evaluations

    def judge(self, step: Step, memory: list[Tensor]) -> Verdict:
        """The other's verdict, but for steps that are as small as they may be."""
        verdict = self.steps.judge(step, memory)
        smallest = step.h.detach().abs() <= self.h_min
        return replace(verdict, accept=verdict.accept | smallest)

    def bound(self, h: Tensor) -> Tensor:
        """The other's, and no smaller than the smallest."""
        h = self.steps.bound(h)
        return torch.where(h.abs() < self.h_min, torch.sign(h) * self.h_min, h)
