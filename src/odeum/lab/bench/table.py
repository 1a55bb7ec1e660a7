"""What was measured as rows of text: for a terminal, and for a page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from odeum.lab.bench.race import WRONG, Result
from odeum.lab.bench.workloads import Workload

HEADER = ("workload", "entrant", "ms", "ratio", "error", "target", "met")

WIDTHS = (20, 30, 9, 8, 8, 7, 4)
"""Of the columns in a terminal: rows are printed while others are being measured."""


@dataclass(frozen=True)
class Compared:
    """A workload and how everyone did.

    Attributes:
        workload: what was done.
        results: of each entrant, odeum's first.
    """

    workload: Workload
    results: tuple[Result, ...]


def target_of(workload: Workload, result: Result) -> float | None:
    """How many times faster than this entrant odeum is to be; None where nothing is asked."""
    return dict(workload.targets).get(result.name)


def cells(workload: Workload, result: Result) -> tuple[str, ...]:
    """A row of the table, one text for each of ``HEADER`` but the first.

    Example:
        >>> from odeum.lab.bench.workloads import find
        >>> peer = Result("diffrax, vmap", (0.003, 0.004), (2.0, 3.0), 1e-6)
        >>> cells(find("mlp-128"), peer)
        ('diffrax, vmap', '3.50', '2.50', '1.0e-06', '2', 'yes')
    """
    if result.failure:
        return (result.name, "failed", *[""] * 4)
    target = target_of(workload, result)
    asked, met = "", ""
    if target is not None:
        asked, met = f"{target:g}", "yes" if result.ratio >= target else "no"
    mark = "!" if result.wrong else ""
    return (
        result.name,
        number(result.ms),
        number(result.ratio),
        f"{result.error:.1e}{mark}",
        asked,
        met,
    )


def number(value: float) -> str:
    """A positive number to four digits or so.

    Example:
        >>> number(0.1234), number(43.21), number(4321.0)
        ('0.123', '43.2', '4321')
    """
    if value < 10:
        return f"{value:.3f}" if value < 1 else f"{value:.2f}"
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def plain(row: Sequence[str]) -> str:
    """A row for a terminal: the first two columns to the left, numbers to the right."""
    aligned = [
        f"{cell:<{n}}" if i < 2 else f"{cell:>{n}}"
        for i, (cell, n) in enumerate(zip(row, WIDTHS, strict=True))
    ]
    return " ".join(aligned).rstrip()


def plain_lines(compared: Compared) -> list[str]:
    """A workload's rows for a terminal, and what is to be said about them below."""
    workload, results = compared.workload, compared.results
    lines = [plain((workload.name, *cells(workload, result))) for result in results]
    lines += [f"  {result.name} failed: {result.failure}" for result in results if result.failure]
    wrong = [result.name for result in results if result.wrong]
    if wrong:
        lines.append(
            f"  ! over {WRONG:g} times odeum's error, so its time says little: {'; '.join(wrong)}"
        )
    return lines


def markdown(compared: Iterable[Compared]) -> str:
    """The whole table for a page."""
    rows = [HEADER, tuple("---" if i < 2 else "--:" for i in range(len(HEADER)))]
    for one in compared:
        for i, result in enumerate(one.results):
            title = one.workload.title + (", gradient" if one.workload.gradient else "")
            rows.append((title if i == 0 else "", *cells(one.workload, result)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
