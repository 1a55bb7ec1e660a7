"""The work of solves: evaluations of the field over training, and against one another.

Reads plain numbers and the lines of metrics; knows nothing of solvers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from odeum.errors import InputError
from odeum.plots import style
from odeum.plots.arrays import to_numpy


def evaluations(
    trainings: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    of: str = "n_evaluations",
    over: str = "step",
    ax: Axes | None = None,
) -> Axes:
    """Evaluations of the field per solve as training goes on.

    Args:
        trainings: the metrics of each by its label: dicts with ``of`` and ``over``; missing values
            are None or NaN.
        of: the key of the evaluations.
        over: the key of the horizontal axis, and its name: ``step`` or ``epoch``.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.

    Raises:
        InputError: no metrics, or an entry without these keys.

    Example:
        >>> ax = evaluations({"plain": [{"step": k, "n_evaluations": 20 + k} for k in range(9)]})
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('step', 'evaluations of the field')
    """
    if not trainings or not all(trainings.values()):
        raise InputError("a training without metrics: nothing to draw before its first step")
    missing = [
        key for rows in trainings.values() for row in rows for key in (of, over) if key not in row
    ]
    if missing:
        raise InputError(f"metrics lack {missing[0]!r}: every entry needs it")
    curves = {
        label: ([row[over] for row in rows], [row[of] for row in rows])
        for label, rows in trainings.items()
    }
    return relation(curves, names=(over, "evaluations of the field"), joined=True, ax=ax)


def relation(
    series: Mapping[str, tuple[Any, Any]],
    *,
    names: tuple[str, str],
    joined: bool = False,
    logarithmic: tuple[bool, bool] = (False, False),
    equality: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """One measured quantity against another, as dots or as lines.

    Args:
        series: by label, values of both, [n] each; pairs with a missing one are left out.
        names: of the axes, with their units.
        joined: lines through the points in their order; single dots if not.
        logarithmic: whether each axis is.
        equality: also draw where both are equal.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.

    Raises:
        InputError: nothing to draw, or values that do not pair.

    Example:
        >>> ax = relation({"forward": ([1e-3, 1e-5], [20, 44])}, names=("tolerance", "evaluations"),
        ...               logarithmic=(True, False))
        >>> ax.get_xscale(), ax.get_yscale()
        ('log', 'linear')
    """
    pairs = {label: _pairs(label, *values) for label, values in series.items()}
    if not any(len(points) for points in pairs.values()):
        raise InputError("no pair of finite numbers was given: nothing to draw")
    with style.applied():
        ax = style.axes(ax, (5.4, 3.6))
        entries: list[tuple[Artist, str]] = []
        for i, (label, points) in enumerate(pairs.items()):
            colour = style.COLOURS[i % len(style.COLOURS)]
            look: dict[str, Any] = {**style.dots(len(points), 5), "color": colour}
            if joined:
                look = {"color": colour, "linewidth": 1.5}
                look["marker"] = "o" if len(points) <= 20 else None
                look["markersize"] = 4
            ax.plot(*points.T, **look)
            entries.append((Line2D([], [], **look), style.text(label)))
        for set_scale, wanted in zip((ax.set_xscale, ax.set_yscale), logarithmic, strict=True):
            if wanted:
                set_scale("log")
        if equality:
            ends = np.concatenate(list(pairs.values()))
            line = [ends.min(0).max(), ends.max(0).min()]
            look = {"color": style.FAINT, "linewidth": 1.0, "linestyle": "--"}
            ax.plot(line, line, zorder=1, **look)
            entries.append((Line2D([], [], **look), "equal"))
        ax.set_xlabel(style.text(names[0]))
        ax.set_ylabel(style.text(names[1]))
        if len(entries) > 1:
            style.add_to_legend(ax, entries)
    return ax


def _pairs(label: str, x: Any, y: Any) -> np.ndarray:
    """Points [n, 2], those with a missing number left out."""
    first, second = (
        to_numpy(
            [np.nan if v is None else v for v in values] if isinstance(values, list) else values
        )
        for values in (x, y)
    )
    if first.ndim != 1 or first.shape != second.shape:
        raise InputError(
            f"{label!r} has values of shapes {list(first.shape)} and {list(second.shape)}: "
            "give as many of one as of the other, [n] each"
        )
    points = np.stack([first, second], -1)
    return points[np.isfinite(points).all(-1)]
