"""Densities of the plane beside one another, over points of them. Knows no model."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from odeum.errors import InputError
from odeum.plots import style
from odeum.plots.arrays import to_numpy
from odeum.plots.plane import Limits

INTENSITY = LinearSegmentedColormap.from_list(
    "odeum_intensity", ["#ffffff", "#9fc0cf", "#5f97b1", "#2f6a8c", "#123a5a"]
)
"""None is white, much is dark."""


def density_panels(
    densities: Mapping[str, Any],
    points: Mapping[str, Any] | None = None,
    *,
    xlim: Limits,
    ylim: Limits,
    names: Sequence[str] | None = None,
    alike: bool = False,
) -> np.ndarray:
    """Densities as images in a row, and points under them in another.

    Args:
        densities: values on a grid that fills the limits, [n, m], by panel title; the first axis is
            that of the first component.
        points: points [k, 2] by the titles of the panels they belong under.
        xlim: limits of the first component.
        ylim: limits of the second component.
        names: a name for each component.
        alike: whether one colour is the same density in all panels; else the darkest is each
            panel's own highest.

    Returns:
        The Axes, [1, panels], or [2, panels] with points.

    Raises:
        InputError: no densities, values that are no grid, or points under no panel.

    Example:
        >>> import torch
        >>> x = torch.linspace(-2, 2, 30)
        >>> density = (-x**2 - x[:, None] ** 2).exp()
        >>> square = {"xlim": (-2, 2), "ylim": (-2, 2)}
        >>> axes = density_panels({"a": density}, {"a": torch.randn(9, 2)}, **square)
        >>> axes.shape, axes[0, 0].get_title()
        ((2, 1), 'a')
    """
    points = points or {}
    grids = {title: to_numpy(values) for title, values in densities.items()}
    if not grids or any(grid.ndim != 2 for grid in grids.values()):
        raise InputError("densities holds values on grids, [n, m], by title: give at least one")
    stray = [title for title in points if title not in grids]
    if stray:
        raise InputError(f"points belong under {stray[0]!r}, but there is no such density")
    n_rows = 2 if points else 1
    axis_names = style.component_names(names, 2)
    highest = max(_high(grid) for grid in grids.values())
    with style.applied():
        _, axes = plt.subplots(
            n_rows,
            len(grids),
            figsize=(2.3 * len(grids) + 0.5, 2.4 * n_rows + 0.3),
            layout="constrained",
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        for column, (title, grid) in zip(axes.T, grids.items(), strict=True):
            column[0].imshow(
                grid.T,
                origin="lower",
                extent=(*xlim, *ylim),
                cmap=INTENSITY,
                vmin=0,
                vmax=highest if alike else _high(grid),
                interpolation="bilinear",
            )
            column[0].set_title(style.text(title), fontsize=10)
            if title in points:
                where = to_numpy(points[title])
                column[1].plot(*where.T, ".", color=style.COLOURS[0], markersize=1.5, alpha=0.5)
        for ax in axes.flat:
            ax.set(xlim=xlim, ylim=ylim, aspect="equal")
            ax.spines[["top", "right"]].set_visible(False)
        for ax in axes[-1]:
            ax.set_xlabel(axis_names[0])
        for ax in axes[:, 0]:
            ax.set_ylabel(axis_names[1])
    return axes


def _high(grid: np.ndarray) -> float:
    """The density that is darkest: the highest, peaks of a thousandth of the mass aside."""
    values = np.sort(grid[np.isfinite(grid)])
    above = np.cumsum(values[::-1])
    return float(values[::-1][np.searchsorted(above, 1e-3 * above[-1])])
