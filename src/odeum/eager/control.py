"""Judging a tried step: accept it or not, and how large the next one should be.

Owns errors against tolerances and the choice of the first step; the formula for the next step is
in odeum.control, the loop acts on what is judged here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from odeum.control import Controller, step_factor
from odeum.eager.field import RowField
from odeum.eager.stepper import Step, Stepper
from odeum.types import Tensor

UNSOLVED_FACTOR = 0.25
"""Factor of a step whose stage equations could not be solved."""


@dataclass(frozen=True)
class Verdict:
    """What is to be done with a tried step, per row.

    Attributes:
        accept: whether it stands, [rows, 1].
        factor: by how much the next step differs, finite, [rows, 1]; None where steps are fixed.
        memory: scaled errors for the verdicts to come, each [rows, 1].
    """

    accept: Tensor
    factor: Tensor | None
    memory: list[Tensor]


class StepControl(Protocol):
    """Chooses step sizes. They are signed, [rows, 1], in the dtype of the times."""

    @property
    def lands_on_outputs(self) -> bool:
        """Whether a step ends on every output time, or on the last alone."""
        ...

    def first(
        self, field: RowField, t: Tensor, y: Tensor, k: Tensor, span: Tensor
    ) -> tuple[Tensor, int]:
        """The first step from ``(t, y)`` with derivative ``k`` towards ``t + span``.

        Returns:
            The step, and how many evaluations choosing it took.
        """
        ...

    def judge(self, step: Step, memory: list[Tensor]) -> Verdict:
        """What is to be done with a tried step."""
        ...

    def bound(self, h: Tensor) -> Tensor:
        """The step size within the user's bounds."""
        ...


def _whole(y: Tensor) -> Tensor:
    return y


@dataclass(frozen=True)
class FixedSteps:
    """Steps of one size, or from output to output where ``size`` is None.

    Attributes:
        size: the size.
        state: the numbers of a row that must stay finite.
    """

    size: float | None
    state: Callable[[Tensor], Tensor] = _whole

    @property
    def lands_on_outputs(self) -> bool:
        """Without a size, the outputs are the grid."""
        return self.size is None

    def first(
        self, field: RowField, t: Tensor, y: Tensor, k: Tensor, span: Tensor
    ) -> tuple[Tensor, int]:
        """The step."""
        return span.sign() * (math.inf if self.size is None else self.size), 0

    def judge(self, step: Step, memory: list[Tensor]) -> Verdict:
        """Every finite step stands, if its stages could be found."""
        accept = self.state(step.y1).isfinite().all(-1, keepdim=True)
        return Verdict(accept if step.solved is None else accept & step.solved, None, memory)

    def bound(self, h: Tensor) -> Tensor:
        """Steps are as they are."""
        return h


@dataclass(frozen=True)
class Tolerance:
    """The error allowed in one step: ``atol + rtol * |y|``.

    Attributes:
        rtol: relative tolerance, > 0; float or [dim].
        atol: absolute tolerance in units of ``y``; float or [dim].
    """

    rtol: float | Tensor
    atol: float | Tensor

    def scale(self, magnitude: Tensor) -> Tensor:
        """Allowed error at states of that magnitude, [rows, dim]."""
        return (magnitude * self.rtol).add_(self.atol)

    def padded(self, n: int) -> "Tolerance":
        """The same where ``n`` more numbers stand in each row, of which any error is allowed."""
        if not isinstance(self.rtol, Tensor) and not isinstance(self.atol, Tensor):
            return self
        pad = torch.nn.functional.pad
        rtol = pad(self.rtol, (0, n), value=1.0) if isinstance(self.rtol, Tensor) else self.rtol
        atol = (
            pad(self.atol, (0, n), value=math.inf) if isinstance(self.atol, Tensor) else self.atol
        )
        return Tolerance(rtol, atol)

    def of(self, part: Callable[[Tensor], Tensor]) -> "Tolerance":
        """That of a part of each row's numbers."""
        rtol, atol = (part(x) if isinstance(x, Tensor) else x for x in (self.rtol, self.atol))
        return Tolerance(rtol, atol)


def norm(x: Tensor) -> Tensor:
    """Root mean square over each row, [rows, 1].

    Example:
        >>> norm(torch.tensor([[3.0, 4.0]]))
        tensor([[3.5355]])
    """
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True) / math.sqrt(x.shape[-1])


@dataclass(frozen=True)
class AdaptiveSteps:
    """Steps as large as the tolerance allows.

    Attributes:
        stepper: the method.
        controller: constants of the step-size formula.
        tolerance: allowed error.
        h_first: first step; chosen by Hairer's rule where None.
        h_max: largest step.
        norm: the size of a scaled error, [rows, dim] -> [rows, 1].
        state: the numbers of a row that the tolerance holds for.
    """

    stepper: Stepper
    controller: Controller
    tolerance: Tolerance
    h_first: float | None
    h_max: float | None
    norm: Callable[[Tensor], Tensor] = norm
    state: Callable[[Tensor], Tensor] = _whole

    @property
    def lands_on_outputs(self) -> bool:
        """Outputs are interpolated."""
        return False

    def judge(self, step: Step, memory: list[Tensor]) -> Verdict:
        """Accepts where the scaled error is at most 1."""
        with torch.no_grad():
            magnitude = torch.maximum(self.state(step.y).abs(), self.state(step.y1).abs())
            ratio = self._error_ratio(step, self.tolerance.scale(magnitude))
            # An infinite state makes its own error look small against it: turn that into NaN.
            ratio = ratio + magnitude.amax(-1, keepdim=True) * 0
            accept = ratio <= 1
            ratio = ratio.nan_to_num_(nan=math.inf)
            assert self.stepper.error_order is not None
            factor = step_factor(self.controller, self.stepper.error_order, [ratio, *memory])
            if self.controller.has_memory:
                # Never a larger step after a rejection, whatever is remembered.
                factor = torch.where(accept, factor, factor.clamp(max=1.0))
                previous = memory[0] if memory else torch.ones_like(ratio)
                memory = [torch.where(accept, ratio, previous), previous]
            if step.solved is not None:
                accept = accept & step.solved
                factor = torch.where(step.solved, factor, UNSOLVED_FACTOR)
        return Verdict(accept, factor, memory)

    def _error_ratio(self, step: Step, scale: Tensor) -> Tensor:
        """Root mean square of the estimated error over the allowed one, [rows, 1].

        With two estimates ``e5`` and ``e3`` it is ``e5^2 / sqrt(e5^2 + 0.01 e3^2)``, which shrinks
        as ``h^8`` (Hairer, Norsett & Wanner I, II.10).
        """
        errors = [self.norm(self.state(error) / scale) for error in self.stepper.errors(step)]
        if len(errors) == 1:
            return errors[0]
        fine, coarse = errors
        squares = fine**2 + 0.01 * coarse**2
        return torch.where(squares > 0, fine**2 / squares.sqrt(), fine)

    def first(
        self, field: RowField, t: Tensor, y: Tensor, k: Tensor, span: Tensor
    ) -> tuple[Tensor, int]:
        """The user's first step, or the one that makes an Euler step's error small.

        Source:
            Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I (1993), II.4.
        """
        direction = span.sign()
        if self.h_first is not None:
            return self.bound(direction * self.h_first), 0
        longest = span.abs()
        scale = self.tolerance.scale(self.state(y).abs())
        d0, d1 = (self.norm(self.state(x) / scale) for x in (y, k))
        h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
        h0 = torch.minimum(h0.to(t.dtype), longest)
        h = h0 * direction
        k1 = field((t + h).to(y.dtype), y + h.to(y.dtype) * k)
        d2 = self.norm(self.state(k1 - k) / scale).to(t.dtype) / h0
        steepest = torch.maximum(d1.to(t.dtype), d2)
        h1 = (0.01 / steepest).pow(1 / (self.stepper.order + 1))
        h1 = torch.where(steepest <= 1e-15, torch.clamp(h0 * 1e-3, min=1e-6), h1)
        h = torch.minimum(torch.minimum(100 * h0, h1), longest)
        # Where Euler's step already left the field's domain, its size is the safer guess.
        h = torch.where(h.isfinite() & (h > 0), h, h0)
        return self.bound(_rounded(h) * direction), 1

    def bound(self, h: Tensor) -> Tensor:
        """At most the largest step allowed."""
        return h if self.h_max is None else h.clamp(-self.h_max, self.h_max)


def _rounded(h: Tensor) -> Tensor:
    """The size with three significant figures, so that rounding errors in it do not matter."""
    mantissa, exponent = torch.frexp(h)
    return torch.ldexp(torch.round(mantissa, decimals=3), exponent)
