"""Step-size control as constants and one formula, read by every engine (Söderlind 2003).

The next step is ``h * factor`` with, for a scaled error ``r`` that shrinks as ``h^k``,

    factor = clip(safety * r_n^-(kI + kP + kD)/k * r_(n-1)^((kP + 2 kD)/k) * r_(n-2)^(-kD/k)).

Factors are rounded to three decimals: whatever rounding did to ``r`` (another order of
summation, another row beside this one, another engine's ``pow``), the step size is the same
to the last bit.
"""

from dataclasses import dataclass

import torch

from odeum.errors import InputError
from odeum.types import Tensor

FACTOR_DECIMALS = 3


@dataclass(frozen=True)
class Controller:
    """Constants of a PID step-size controller.

    Attributes:
        integral: kI; 1 with the others 0 is the textbook controller.
        proportional: kP; smooths the sequence of step sizes, for problems that border on stiff.
        derivative: kD.
        safety: the share of the step that would meet the tolerance exactly; 0.85 takes fewer tries
            than the customary 0.9, for which more steps are rejected.
        factor_min: the most a step may shrink at once.
        factor_max: the most a step may grow at once.

    Source:
        Söderlind, Digital filters in adaptive time-stepping, ACM TOMS 29 (2003).

    Example:
        >>> [round(e, 3) for e in Controller(integral=0.3, proportional=0.4).exponents(5)]
        [-0.14, 0.08, -0.0]
    """

    integral: float = 1.0
    proportional: float = 0.0
    derivative: float = 0.0
    safety: float = 0.85
    factor_min: float = 0.2
    factor_max: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.factor_min < self.safety < 1 < self.factor_max:
            raise InputError(
                "a controller needs 0 < factor_min < safety < 1 < factor_max, but got "
                f"factor_min={self.factor_min}, safety={self.safety}, factor_max={self.factor_max}"
            )

    def exponents(self, error_order: int) -> tuple[float, float, float]:
        """Exponents of the last three scaled errors, the newest first.

        Args:
            error_order: k, the power of the step size with which the error estimate shrinks.
        """
        return (
            -(self.integral + self.proportional + self.derivative) / error_order,
            (self.proportional + 2 * self.derivative) / error_order,
            -self.derivative / error_order,
        )

    @property
    def has_memory(self) -> bool:
        """Whether it reads the errors of earlier steps."""
        return bool(self.proportional or self.derivative)


I = Controller()  # noqa: E741 - the field's name for it
PI = Controller(integral=0.3, proportional=0.4)
PID = Controller(integral=0.3, proportional=0.4, derivative=0.1)


def step_factor(controller: Controller, error_order: int, ratios: list[Tensor]) -> Tensor:
    """Factor by which each row's step size changes after a step.

    Args:
        controller: the constants.
        error_order: power of the step size with which the error estimate shrinks.
        ratios: scaled errors of the last steps, each [batch], dimensionless, the newest first; as
            many as there are (a controller without memory reads one).

    Returns:
        [batch], between ``factor_min`` and ``factor_max``; NaN where a ratio is NaN.

    Example:
        >>> step_factor(I, 5, [torch.tensor([1.0, 32.0, 0.0], dtype=torch.float64)])
        tensor([ 0.8500,  0.4250, 10.0000], dtype=torch.float64)
    """
    exponents = controller.exponents(error_order)
    factor = ratios[0].pow(exponents[0])
    for ratio, exponent in zip(ratios[1:], exponents[1:], strict=False):
        # An error of exactly zero says nothing of the trend.
        factor = factor * ratio.clamp(min=1e-10).pow(exponent)
    factor = torch.round(factor * controller.safety, decimals=FACTOR_DECIMALS)
    return factor.clamp_(controller.factor_min, controller.factor_max)
