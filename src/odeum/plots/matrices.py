"""A learned matrix beside the true one, cell by cell."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from odeum.errors import InputError
from odeum.plots import style
from odeum.plots.arrays import to_numpy

_LARGEST_WITH_NUMBERS = 8


def matrix_comparison(
    true: Any,
    learned: Any,
    *,
    names: Sequence[str] | None = None,
    labels: tuple[str, str] = ("true", "learned"),
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """The true matrix, the learned one and their difference, on one colour scale.

    The shared scale makes a small difference look small. Up to 8 by 8 the numbers stand in the
    cells.

    Args:
        true: [n, m].
        learned: [n, m].
        names: a name per row and column of a square matrix.
        labels: titles of the first two panels.
        axes: three Axes to draw on; a new figure if None.

    Returns:
        Array of the three Axes.

    Raises:
        InputError: matrices of different shape, names that do not fit, or not three Axes.

    Example:
        >>> panels = matrix_comparison([[-0.1, -1.0], [1.0, -0.1]], [[-0.11, -1.0], [0.99, -0.1]])
        >>> [panel.get_title() for panel in panels]
        ['true', 'learned', 'learned − true']
    """
    matrices = [to_numpy(true), to_numpy(learned)]
    if matrices[0].ndim != 2 or matrices[0].shape != matrices[1].shape:
        raise InputError(
            f"matrices are shaped {list(matrices[0].shape)} and {list(matrices[1].shape)}: "
            "give two of the same shape [n, m]"
        )
    matrices.append(matrices[1] - matrices[0])
    titles = [style.text(label) for label in labels]
    titles.append(f"{titles[1]} − {titles[0]}")
    n_rows, n_columns = matrices[0].shape
    if names is not None and n_rows != n_columns:
        raise InputError(f"names need a square matrix, this one is {n_rows} by {n_columns}")
    ticks = None if names is None else style.component_names(names, n_rows)
    with style.applied():
        if axes is None:
            width = min(9.0, max(6.2, 3.0 * n_columns))
            size = (width, (width - 1.3) / 3 * n_rows / n_columns + 0.6)
            axes = plt.subplots(1, 3, figsize=size, layout="constrained")[1]
        panels = np.asarray(axes, dtype=object).reshape(-1)
        if len(panels) != 3:
            raise InputError(f"axes holds {len(panels)} Axes: give three")
        finite = np.abs(np.stack(matrices[:2]))
        largest = float(finite[np.isfinite(finite)].max(initial=0.0)) or 1.0
        norm = Normalize(-largest, largest)
        for ax, matrix, title in zip(panels, matrices, titles, strict=True):
            _draw(ax, matrix, norm, ticks)
            ax.set_title(title, fontsize=10)
        figure = panels[0].get_figure()
        image = panels[0].images[0]
        bar = figure.colorbar(image, ax=list(panels), pad=0.02, aspect=18)
        bar.set_label("entry")
        bar.outline.set_visible(False)
    return panels


def _draw(ax: Axes, matrix: np.ndarray, norm: Normalize, ticks: list[str] | None) -> None:
    """One panel: cells with white gaps, numbers in whichever ink reads on the cell."""
    ax.imshow(matrix, cmap="PuOr", norm=norm)
    n_rows, n_columns = matrix.shape
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xticks(np.arange(n_columns), ticks or [str(j + 1) for j in range(n_columns)])
    ax.set_yticks(np.arange(n_rows), ticks or [str(i + 1) for i in range(n_rows)])
    ax.tick_params(length=0)
    for edges, line in ((n_columns, ax.axvline), (n_rows, ax.axhline)):
        for k in range(1, edges):
            line(k - 0.5, color="white", linewidth=2)
    if max(n_rows, n_columns) > _LARGEST_WITH_NUMBERS:
        ax.set(xticks=[], yticks=[])
        return
    # As many decimals as give the largest entry of the comparison three or four digits.
    n_decimals = int(np.clip(3 - np.floor(np.log10(norm.vmax or 1.0)), 0, 6))
    size = 10 if n_columns <= 3 else 7
    for (i, j), value in np.ndenumerate(matrix):
        dark = abs(norm(value) - 0.5) > 0.3
        # Adding 0.0 turns a negative zero into zero.
        number = f"{round(value, n_decimals) + 0.0:.{n_decimals}f}".replace("-", "−")
        ink = "white" if dark else style.INK
        ax.text(j, i, number, ha="center", va="center", fontsize=size, color=ink)
