"""Several Axes of one kind in one figure, for pictures that are to be compared.

Knows nothing of what is drawn on them.
"""

import matplotlib.pyplot as plt
import numpy as np

from odeum.errors import InputError
from odeum.plots import style


def panels(
    n_panels: int,
    *,
    n_columns: int,
    size: tuple[float, float] = (3.4, 2.8),
    share: bool = False,
    projection: str | None = None,
) -> np.ndarray:
    """A new figure of several Axes, row by row; hand each on as ``ax=``.

    Args:
        n_panels: how many, at least 1.
        n_columns: Axes side by side, at least 1; the last row may have fewer.
        size: width and height of one Axes in inches.
        share: whether all have the same limits.
        projection: None or ``"3d"``.

    Returns:
        Array of Axes, [n_panels].

    Raises:
        InputError: for no panels or no columns.

    Example:
        >>> [ax.name for ax in panels(2, n_columns=2, projection="3d")]
        ['3d', '3d']
    """
    if n_panels < 1 or n_columns < 1:
        raise InputError(
            f"panels got {n_panels} panels in {n_columns} columns: give at least 1 of each"
        )
    n_columns = min(n_columns, n_panels)
    n_rows = -(-n_panels // n_columns)
    with style.applied():
        figure, grid = plt.subplots(
            n_rows,
            n_columns,
            figsize=(size[0] * n_columns, size[1] * n_rows),
            sharex=share,
            sharey=share,
            squeeze=False,
            layout="constrained",
            subplot_kw={"projection": projection},
        )
        axes = grid.reshape(-1)
        for ax in axes[n_panels:]:
            figure.delaxes(ax)
        if projection is None:
            for ax in axes[:n_panels]:
                style.dress(ax)
    return axes[:n_panels]
