"""Bounds on the steps of a solve."""

import math
from dataclasses import dataclass, fields

from odeum.errors import InputError

MAX_STEPS = 100_000
"""Tried steps after which an adaptive solve gives up, unless told otherwise."""


@dataclass(frozen=True)
class StepOptions:
    """Bounds on step sizes and their number; sizes are positive, in units of time.

    Attributes:
        first: first step; chosen by Hairer's rule where None.
        min: a row whose step would have to shrink below this stops as STEP_TOO_SMALL.
        max: no step is larger.
        max_steps: tried steps after which a row stops as MAX_STEPS; 100 000 for adaptive methods
            and unlimited for fixed steps where None.
        fixed: steps of exactly this size, without error control; the last one is made to fit.

    Raises:
        InputError: for a size that is not positive, or bounds that contradict each other.

    Example:
        >>> StepOptions(fixed=0.1)
        StepOptions(first=None, min=None, max=None, max_steps=None, fixed=0.1)
    """

    first: float | None = None
    min: float | None = None
    max: float | None = None
    max_steps: int | None = None
    fixed: float | None = None

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"StepOptions({option.name}={value}): give a positive number")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise InputError(f"StepOptions(min={self.min}, max={self.max}): min exceeds max")
        if self.fixed is not None and (self.first or self.min or self.max):
            raise InputError("StepOptions(fixed=...) leaves nothing for first, min or max to do")
