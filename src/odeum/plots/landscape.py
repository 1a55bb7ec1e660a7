"""A loss over parameter space: along a line, and over a plane with the ways of trainings on it.

Knows nothing of how the loss was made. A loss that is not finite, as where a solution overflows or
a training diverged, is shown as such and never left out unsaid.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation, LogLocator, NullLocator

from odeum.errors import InputError
from odeum.plots import style
from odeum.plots.arrays import labelled, states, to_numpy

_BANDS_PER_DECADE = 4
_N_BANDS = 16
"""Of a loss that is drawn on a linear scale."""
_FEW = 40
"""Losses up to this many on a curve are marked one by one."""


def landscape_1d(
    shifts: Any, losses: Any, *, name: str = r"shift $\alpha$", ax: Axes | None = None
) -> Axes:
    """Losses along a line through parameter space, logarithmic where all are positive.

    Args:
        shifts: where on the line, [n], increasing.
        losses: [n], or a mapping label -> [n]; those that are not finite become crosses along
            the top.
        name: of the line's coordinate.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.

    Raises:
        InputError: other shapes, or shifts that do not increase.

    Example:
        >>> losses = {"at the start": [4.0, 1.0, 4.0], "after training": [0.1, 0.1, float("nan")]}
        >>> ax = landscape_1d([-2.0, 0.0, 2.0], losses)
        >>> [entry.get_text() for entry in ax.get_legend().get_texts()]
        ['at the start', 'after training', 'not finite']
    """
    x = _coordinate(shifts, "shifts")
    curves = {label: to_numpy(values) for label, values in labelled(losses, None).items()}
    for values in curves.values():
        if values.shape != x.shape:
            raise InputError(
                f"{len(x)} shifts, but losses shaped {list(values.shape)}: give one loss for each"
            )
    with style.applied():
        ax = style.axes(ax, (6.0, 3.4))
        entries: list[tuple[Artist, str]] = []
        any_lost = False
        for j, (label, values) in enumerate(curves.items()):
            look: dict[str, Any] = {
                "color": style.COLOURS[j % len(style.COLOURS)],
                "linestyle": style.DASHES[j % len(style.DASHES)],
                "linewidth": 1.5,
            }
            finite = np.isfinite(values)
            # A gap stays a gap: a line across it would invent losses.
            shown = np.where(finite, values, np.nan)
            ax.plot(x, shown, marker="o" if _hidden_by_gaps(finite) else None, markersize=3, **look)
            if label is not None:
                entries.append((Line2D([], [], **look), style.text(label)))
            if not finite.all():
                any_lost = True
                _cross(ax, x[~finite], look["color"], row=j)
        seen = np.concatenate(list(curves.values()))
        seen = seen[np.isfinite(seen)]
        if len(seen) and (seen > 0).all():
            ax.set_yscale("log")
        ax.set_xlabel(style.text(name))
        ax.set_ylabel("loss")
        ax.margins(x=0.015, y=0.1)
        if any_lost:
            cross = Line2D([], [], color=style.FAINT, marker="x", markersize=5, linestyle="none")
            entries.append((cross, "not finite"))
        style.add_to_legend(ax, entries)
    return ax


def landscape_2d(
    x: Any,
    y: Any,
    losses: Any,
    *,
    names: Sequence[str] | None = None,
    paths: Any = None,
    marks: Mapping[str, Any] | None = None,
    decades: float = 6.0,
    ax: Axes | None = None,
) -> Axes:
    """Losses over a plane of parameter space as a contour map, with what moved over it.

    Pale is low and dark is high, on a logarithmic scale where all are positive.

    Args:
        x: coordinates [n], increasing.
        y: coordinates [m], increasing.
        losses: [m, n], y first; those that are not finite are left grey.
        names: of the two coordinates.
        paths: ways of trainings over the plane, [time, 2] or [time, batch, 2], or a mapping
            label -> such; each start is marked, and its end where it lies in the window.
        marks: points worth a name: label -> [2].
        decades: powers of ten above the lowest loss that the colours tell apart, > 0.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes; its figure has the colour bar beside it.

    Raises:
        InputError: other shapes, coordinates that do not increase, or no finite loss.

    Example:
        >>> x, y = np.linspace(-1, 1, 21), np.linspace(-1, 1, 11)
        >>> bowl = 1e-3 + x**2 + y[:, None] ** 2
        >>> ax = landscape_2d(x, y, bowl, names=["a", "b"], paths={"descent": [[-1, 1], [0, 0]]})
        >>> [entry.get_text() for entry in ax.get_legend().get_texts()]
        ['descent', 'start', 'end']
    """
    across, up = _coordinate(x, "x"), _coordinate(y, "y")
    values = np.ma.masked_invalid(to_numpy(losses))
    if values.shape != (len(up), len(across)):
        raise InputError(
            f"losses are shaped {list(values.shape)} for {len(across)} x and {len(up)} y: give "
            f"[{len(up)}, {len(across)}], y first"
        )
    if values.count() == 0:
        raise InputError("no loss is finite: choose a window where the solution exists")
    if not decades > 0:
        raise InputError(f"decades is {decades}: give a positive number, such as 6")
    labels = [r"$\theta_{1}$", r"$\theta_{2}$"] if names is None else names
    drawn_names = style.component_names(labels, 2)
    with style.applied():
        ax = style.axes(ax, (5.8, 4.5))
        ax.grid(False)
        _draw_map(ax, across, up, values, decades)
        entries: list[tuple[Artist, str]] = []
        if paths is not None:
            entries += _draw_paths(ax, paths)
        for j, (label, point) in enumerate((marks or {}).items()):
            look = {**_MARK, "marker": "*X+"[j % 3]}
            ax.plot(*to_numpy(point), zorder=6, **look)
            entries.append((Line2D([], [], **look), style.text(label)))
        if np.ma.is_masked(values):
            ax.set_facecolor(style.SHADE)
            entries.append((Patch(facecolor=style.SHADE, edgecolor=style.FAINT), "not finite"))
        ax.set(xlim=(across[0], across[-1]), ylim=(up[0], up[-1]))
        ax.set_xlabel(drawn_names[0])
        ax.set_ylabel(drawn_names[1])
        style.add_to_legend(ax, entries)
    return ax


_MARK: dict[str, Any] = {
    "markersize": 12,
    "color": style.INK,
    "markeredgecolor": "white",
    "linestyle": "none",
}


def _coordinate(values: Any, what: str) -> np.ndarray:
    """Coordinates [n], at least two, that increase."""
    given = to_numpy(values)
    if given.ndim != 1 or len(given) < 2 or not (np.diff(given) > 0).all():
        raise InputError(
            f"{what} is shaped {list(given.shape)}: give at least two numbers that increase"
        )
    return given


def _hidden_by_gaps(finite: np.ndarray) -> bool:
    """Whether a curve has points that no line joins to a neighbour, or few points at all."""
    beside = np.pad(finite, 1)
    alone = finite & ~beside[:-2] & ~beside[2:]
    return bool(alone.any()) or len(finite) <= _FEW


def _cross(ax: Axes, x: np.ndarray, colour: str, *, row: int) -> None:
    """A cross for each of ``x`` at the top edge, each curve's in a row of their own."""
    height = np.full(len(x), 0.985 - 0.04 * row)
    ax.plot(
        x,
        height,
        transform=ax.get_xaxis_transform(),
        color=colour,
        marker="x",
        markersize=4,
        linestyle="none",
        clip_on=False,
    )


def _draw_map(
    ax: Axes, x: np.ndarray, y: np.ndarray, values: np.ma.MaskedArray, decades: float
) -> None:
    low, high = float(values.min()), float(values.max())
    norm: Normalize
    if low > 0:
        top = min(high, low * 10**decades) if low < high else 10 * low
        norm = LogNorm(low, top)
        n_bands = max(_N_BANDS // 2, round(_BANDS_PER_DECADE * np.log10(top / low)))
        levels = np.geomspace(low, top, n_bands + 1)
    else:
        top = high if low < high else low + 1.0
        norm = Normalize(low, top)
        levels = np.linspace(low, top, _N_BANDS + 1)
    # Beyond the last band stands the darkest colour: what rounding puts there would be left out.
    drawn = values.clip(low, top)
    ax.contourf(x, y, drawn, levels=levels, norm=norm, cmap=style.SPEED, zorder=1)
    ax.contour(x, y, drawn, levels=levels[1:-1], colors="white", linewidths=0.4, zorder=1.5)
    figure = ax.get_figure()
    assert figure is not None
    bar = figure.colorbar(
        ScalarMappable(norm, style.SPEED),
        ax=ax,
        pad=0.03,
        aspect=30,
        extend="max" if high > top else "neither",
    )
    bar.set_label("loss")
    if isinstance(norm, LogNorm):
        wide = top / low > 1e3
        bar.locator = LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0))
        bar.formatter = (
            LogFormatterSciNotation() if wide else FuncFormatter(lambda loss, _: f"{loss:g}")
        )
        bar.minorlocator = NullLocator()
        bar.update_ticks()
    bar.outline.set_visible(False)


def _draw_paths(ax: Axes, given: Any) -> list[tuple[Artist, str]]:
    """Paths with a white edge that lifts them off the map, marked at their ends."""
    entries: list[tuple[Artist, str]] = []
    start = {**_MARK, "marker": ">", "markersize": 7}
    end = {**_MARK, "marker": "o", "markersize": 6}
    for j, (label, values) in enumerate(labelled(given, None).items()):
        shown = states(values)
        if shown.shape[-1] != 2:
            raise InputError(
                f"paths end in {shown.shape[-1]} coordinates: give the two that the plane shows"
            )
        colour = style.COLOURS[(j + 1) % len(style.COLOURS)]
        dashes = style.DASHES[j % len(style.DASHES)]
        for path in shown.swapaxes(0, 1):
            ax.plot(*path.T, color="white", linewidth=2.8, alpha=0.8, zorder=2.9)
            ax.plot(*path.T, color=colour, linestyle=dashes, linewidth=1.3, zorder=3)
            known = path[np.isfinite(path).all(-1)]
            if len(known):
                ax.plot(*known[0], zorder=5, **start)
                ax.plot(*known[-1], zorder=5, **end)
        line = Line2D([], [], color=colour, linestyle=dashes, linewidth=1.3)
        entries.append((line, "training" if label is None else style.text(label)))
    return [*entries, (Line2D([], [], **start), "start"), (Line2D([], [], **end), "end")]
