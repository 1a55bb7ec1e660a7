"""A number that an experiment found, beside the published one and the one it is to reach."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from odeum.errors import InputError


@dataclass(frozen=True)
class Finding:
    """A measured number and what it is held against.

    Attributes:
        what: what was measured, as a table names it.
        value: the number.
        target: what it is to reach; None where there is no such number.
        published: what the literature reports; None where it reports none.
        better: whether "lower" or "higher" numbers are the better ones.
        unit: of all three; empty for pure numbers.
        source: of the published number, such as "Chen et al. 2018, table 1".

    Raises:
        InputError: for another word than "lower" and "higher".

    Example:
        >>> Finding("test error", 0.38, target=1.0, published=0.42, unit="%").reached
        True
    """

    what: str
    value: float
    target: float | None = None
    published: float | None = None
    better: Literal["lower", "higher"] = "lower"
    unit: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if self.better not in ("lower", "higher"):
            raise InputError(f"better is {self.better!r}: give 'lower' or 'higher'")

    @property
    def reached(self) -> bool | None:
        """Whether the value is as good as the target; None without one, False for a NaN."""
        if self.target is None:
            return None
        sign = 1 if self.better == "lower" else -1
        return math.isfinite(self.value) and sign * self.value <= sign * self.target

    def entry(self) -> dict[str, Any]:
        """As summary.json holds it."""
        return {**asdict(self), "value": float(self.value), "reached": self.reached}
