"""What an audit found, as a table, and the rules by which one gradient is recommended."""

import math
from dataclasses import dataclass

from odeum.gradient.registry import GRADIENTS

AS_FAST = 1.25
"""Gradients within this factor of the fastest count as fast; memory then decides."""


@dataclass(frozen=True)
class Row:
    """What one gradient did.

    Attributes:
        gradient: what to write after ``gradient=`` for it.
        error: relative to the reference: the largest over ``y0``, ``args``, parameters and ``ts``
            of ``|g - g_reference| / |g_reference|``.
        difference: relative to finite differences, ``|g . v - difference| / |difference|`` with
            all directions ``v`` together.
        n_forward: evaluations of the field in the forward solve, the largest of all rows.
        n_backward: likewise in the backward pass; 0 where it evaluates nothing again.
        peak: bytes that solving and differentiating held at once, beyond what was there before.
        seconds: for both together.
        reason: why it does not apply, empty where it does; the numbers are NaN then.
    """

    gradient: str
    error: float = math.nan
    difference: float = math.nan
    n_forward: float = math.nan
    n_backward: float = math.nan
    peak: float = math.nan
    seconds: float = math.nan
    reason: str = ""


@dataclass(frozen=True)
class Audit:
    """What an audit found; printed, it is the table.

    Attributes:
        rows: one for each gradient.
        reference: how the reference was computed.
        reference_difference: that of the reference from finite differences.
        recommendation: which gradient to use, and why.
    """

    rows: list[Row]
    reference: str
    reference_difference: float
    recommendation: str

    def __str__(self) -> str:
        header = ("gradient", "error", "differences", "forward", "backward", "peak", "time")
        cells = [header, *(_cells(row) for row in self.rows if not row.reason)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
        lines = [
            f"{line[0]:<{widths[0]}}"
            + "".join(f"  {x:>{w}}" for x, w in zip(line[1:], widths[1:], strict=True))
            for line in cells
        ]
        lines += [f"{row.gradient} does not apply: {row.reason}" for row in self.rows if row.reason]
        lines += [
            "",
            f"error: against {self.reference}, itself {self.reference_difference:.1e} from finite "
            "differences; forward, backward: evaluations",
            self.recommendation,
        ]
        return "\n".join(lines)


def recommendation(rows: list[Row], allowed: float, memory_limit: float) -> str:
    """One sentence: the rules are those of :func:`audit`."""
    ran = [row for row in rows if not row.reason and math.isfinite(row.error)]
    if not ran:
        return "No gradient can be recommended: none of them ran."
    best = min(row.error for row in ran)
    right = [row for row in ran if row.error <= max(allowed, 3 * best)]
    share = f"within ten tolerances ({best:.0e} at best)"
    if best > allowed:
        share = f"as near the reference as any (a smaller rtol would help: {best:.0e} is far)"
    fitting = [row for row in right if row.peak <= memory_limit]
    if not fitting:
        least = min(right, key=lambda row: row.peak)
        return (
            f"Use {_argument(least)}: of those {share} it takes the least memory, "
            f"{_bytes(least.peak)}, though more than the {_bytes(memory_limit)} allowed."
        )
    quickest = min(row.seconds for row in fitting)
    fast = [row for row in fitting if row.seconds <= AS_FAST * quickest]
    chosen = min(fast, key=lambda row: row.peak)
    why = "it is the fastest"
    if len(fast) > 1:
        why = "it is among the fastest and takes the least memory of these"
    if len(fitting) < len(right):
        why += f" that fit in {_bytes(memory_limit)}"
    return f"Use {_argument(chosen)}: of those {share}, {why}."


def _argument(row: Row) -> str:
    return f"gradient={row.gradient!r}" if row.gradient in GRADIENTS else f"gradient={row.gradient}"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.gradient,
        f"{row.error:.1e}",
        f"{row.difference:.1e}",
        f"{row.n_forward:.0f}",
        f"{row.n_backward:.0f}",
        _bytes(row.peak),
        f"{row.seconds * 1e3:.1f} ms",
    )


def _bytes(n: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n:.0f} B"
