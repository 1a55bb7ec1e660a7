"""One number for each of several things, as bars. Knows nothing of how they were measured."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from odeum.errors import InputError
from odeum.plots import style


def bars(
    values: Mapping[str, float],
    *,
    name: str,
    logarithmic: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Horizontal bars, the first on top, each with its number at its end.

    Args:
        values: by label, at least one; positive if ``logarithmic``.
        name: of the numbers, with their unit.
        logarithmic: whether their axis is.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.

    Raises:
        InputError: for no values, or one that cannot be drawn.

    Example:
        >>> ax = bars({"discrete": 1.5, "adjoint": 12.0}, name="ms a step", logarithmic=True)
        >>> [text.get_text() for text in ax.texts]
        ['1.5', '12']
    """
    numbers = np.array(list(values.values()), dtype=float)
    if not len(numbers) or not np.isfinite(numbers).all() or (logarithmic and numbers.min() <= 0):
        raise InputError(
            f"bars got {dict(values)}: give at least one number, all finite, and positive on a "
            "logarithmic axis"
        )
    with style.applied():
        ax = style.axes(ax, (5.6, 0.8 + 0.34 * len(numbers)))
        places = np.arange(len(numbers))
        drawn = ax.barh(places, numbers, height=0.62, color=style.COLOURS[0])
        if logarithmic:
            ax.set_xscale("log")
            ax.set_xlim(0.5 * numbers.min(), 2.5 * numbers.max())
        else:
            ax.margins(x=0.12)
        ax.bar_label(drawn, [f"{number:.3g}" for number in numbers], padding=3, fontsize=9)
        ax.set_yticks(places, [style.text(label) for label in values])
        ax.invert_yaxis()
        ax.grid(False, axis="y")
        ax.set_xlabel(style.text(name))
    return ax
