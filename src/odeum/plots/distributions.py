"""How often values occur: histograms of one or several samples, a panel for each component.

Knows nothing of where samples come from.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from odeum.errors import InputError
from odeum.plots import style
from odeum.plots.arrays import labelled, to_numpy
from odeum.plots.panels import panels


def distributions(
    samples: Any, *, names: Sequence[str] | None = None, n_bins: int = 60, label: str | None = None
) -> np.ndarray:
    """Densities of every component, one outline for each sample over shared bins.

    Args:
        samples: [n, dim]; or a mapping label -> [n, dim].
        names: a name per component, with its unit where it has one.
        n_bins: of each histogram, over the range of all samples.
        label: the sample's name in the legend, where there is one sample.

    Returns:
        Array of Axes, [dim].

    Raises:
        InputError: for shapes or numbers of names that do not belong together, or values that are
            not finite.

    Example:
        >>> import torch
        >>> samples = {"normal": torch.randn(99, 2), "uniform": torch.rand(99, 2)}
        >>> axes = distributions(samples, names=["x", "y"])
        >>> [ax.get_xlabel() for ax in axes]
        ['x', 'y']
    """
    given: Mapping[str | None, np.ndarray] = {
        key: to_numpy(values) for key, values in labelled(samples, label).items()
    }
    dims = {values.shape[1] if values.ndim == 2 else 0 for values in given.values()}
    if len(dims) != 1 or 0 in dims:
        shapes = [list(values.shape) for values in given.values()]
        raise InputError(f"samples have shapes {shapes}: give [n, dim] with one dim for all")
    if not all(np.isfinite(values).all() for values in given.values()):
        raise InputError("samples hold values that are not finite: leave them out")
    drawn_names = style.component_names(names, dims.pop())
    axes = panels(len(drawn_names), n_columns=3, size=(2.6, 2.4))
    entries: list[tuple[Artist, str]] = []
    with style.applied():
        for i, (ax, name) in enumerate(zip(axes, drawn_names, strict=True)):
            everything = np.concatenate([values[:, i] for values in given.values()])
            bins = np.linspace(everything.min(), everything.max(), n_bins + 1)
            for j, (key, values) in enumerate(given.items()):
                look = {
                    "color": style.COLOURS[j % len(style.COLOURS)],
                    "linestyle": style.DASHES[j % len(style.DASHES)],
                    "linewidth": 1.5,
                }
                density, _ = np.histogram(values[:, i], bins, density=True)
                ax.stairs(density, bins, **look)
                if key is not None and i == 0:
                    entries.append((Line2D([], [], **look), style.text(key)))
            ax.set_xlabel(name)
        axes[0].set_ylabel("density")
        style.add_to_legend(axes[0], entries)
    return axes
