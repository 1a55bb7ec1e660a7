"""Writes what `fused.py` measured into docs/benchmarks.md, and draws it beside."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from odeum.lab.bench import Compared
from odeum.lab.bench.table import markdown, target_of
from odeum.plots.style import COLOURS, FAINT, INK, applied, dress, save

DOCS = Path(__file__).parent.parent / "docs"
PAGE, FIGURE = DOCS / "benchmarks.md", DOCS / "benchmarks.png"
BEGIN, END = "<!-- measured: benchmarks/fused.py --draw -->", "<!-- end -->"

MARKS = {
    "torchdiffeq": ("s", COLOURS[1]),
    "torchode": ("v", COLOURS[3]),
    "diffrax": ("o", COLOURS[0]),
    "heyoka": ("D", COLOURS[2]),
    "SciPy": ("^", COLOURS[6]),
}
"""Shape and colour of each library: either tells them apart."""

HOLLOW = {"whole batch", "adjoint"}
NAMED = {*HOLLOW, "vmap"}
"""Modes that are drawn hollow, and those that the legend tells apart."""


def write_page(
    measured: Sequence[Compared], cold: Mapping[str, tuple[float, float]], where: str
) -> None:
    """Replaces what stands between the page's marks, and the figure."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    rows = [
        f"| {one.workload.title}{', gradient' if one.workload.gradient else ''} | "
        + " | ".join(f"{seconds:.2f}" for seconds in cold[one.workload.name])
        + " |"
        for one in measured
    ]
    parts = [
        f"{where}.",
        "![How many times faster odeum is, by workload and library](benchmarks.png)",
        markdown(measured).rstrip(),
        "First solve of a process, in seconds, compilation and imports included:",
        "\n".join(["| workload | nothing compiled | kernel on disk |", "|---|--:|--:|", *rows]),
    ]
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}")
    save(draw(measured), FIGURE)


def draw(measured: Sequence[Compared]) -> Figure:
    """Ratios on a logarithmic axis, a line for each workload; pale is who was not accurate."""
    with applied():
        figure, ax = plt.subplots(figsize=(8.0, 0.62 * len(measured) + 1.3), layout="constrained")
        dress(ax)
        ax.grid(False, axis="y")
        shown = {}
        for i, one in enumerate(measured):
            ax.axhline(i, color="#e9e9e9", linewidth=0.7, zorder=0)
            shown |= _points(ax, i, one)
        ax.axvline(1.0, color=INK, linewidth=1.0)
        ax.text(1.0, -0.62, " odeum", color=INK, va="center", fontsize=9)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("how many times as long as odeum (median of the rounds)")
        labels = [
            one.workload.title + ("\nwith gradient" if one.workload.gradient else "")
            for one in measured
        ]
        ax.set_yticks(range(len(measured)), labels)
        ax.set_ylim(len(measured) - 0.5, -0.9)
        ax.tick_params(axis="y", length=0)
        names = sorted(shown, key=str.lower)
        (target,) = ax.plot([], [], "|", color=FAINT, markeredgewidth=1.6)
        figure.legend(
            [*(shown[name] for name in names), target],
            [*names, "target"],
            loc="outside upper center",
            ncols=4,
            columnspacing=1.4,
        )
    return figure


def _points(ax: Axes, i: int, compared: Compared) -> dict[str, object]:
    """One workload's entrants; returns what the legend is to show."""
    shown: dict[str, object] = {}
    for result in compared.results:
        library, _, mode = result.name.partition(", ")
        if library == "odeum" or result.failure or not result.ratios:
            continue
        shape, colour = MARKS[library]
        (point,) = ax.plot(
            result.ratio,
            i,
            shape,
            color=colour,
            markerfacecolor="white" if mode in HOLLOW else colour,
            markeredgewidth=1.4,
            markersize=7,
            linestyle="none",
            alpha=0.35 if result.wrong else 1.0,
            zorder=3,
        )
        shown[result.name if mode in NAMED else library] = point
        target = target_of(compared.workload, result)
        if target is not None:
            ax.plot(target, i + 0.24, "|", color=colour, markersize=7, markeredgewidth=1.6)
    return shown
