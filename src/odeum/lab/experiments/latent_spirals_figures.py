"""The pictures of ``latent-spirals``: paths in the plane, errors over time, latent interpolation.

Knows paths and times, not how they were learned.
"""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from odeum.datasets import Spirals
from odeum.lab.experiments.series import Series
from odeum.plots import style
from odeum.types import Tensor

N_BETWEEN = 9
"""Paths in the picture of the latent interpolation."""


def spirals(
    test: Spirals,
    observed: Series,
    window: int,
    truth: Tensor,
    expected: Tensor,
    followed: Tensor,
) -> Figure:
    """Four spirals, two of each direction: what is seen, what is made of it, what was true.

    Args:
        test: the spirals.
        observed: their observations.
        window: times of the observed window; there are as many before and after it.
        truth: the curves, [3 * window, batch, 2].
        expected: by the latent ODE, likewise.
        followed: by the RNN, likewise; NaN up to the end of the window.
    """
    whole = ~torch.isnan(truth[-1, :, 0])
    chosen = [
        int(i)
        for way in (True, False)
        for i in torch.nonzero((test.clockwise == way) & whole)[:2, 0]
    ]
    dashed: dict[str, Any] = {"color": style.COLOURS[3], "linestyle": "--", "linewidth": 1.2}
    with style.applied():
        figure = plt.figure(figsize=(8.4, 7.6), layout="constrained")
        for place, i in enumerate(chosen, start=1):
            ax = figure.add_subplot(2, 2, place)
            style.dress(ax)
            ax.plot(*truth[:, i].T, color=style.FAINT, linewidth=3.5, alpha=0.45)
            for part, colour in zip(range(3), (2, 0, 1), strict=True):
                # A part begins where the one before it ended.
                first = max(0, part * window - 1)
                path = expected[first : (part + 1) * window, i]
                ax.plot(*path.T, color=style.COLOURS[colour])
            ax.plot(*followed[:, i].T, **dashed)
            ax.plot(*observed.ys[:, i].T, **_DOTS)
            # Backwards a path that was learned forwards may run away: the truth sets the frame.
            low, high = truth[:, i].amin(0), truth[:, i].amax(0)
            centre, half = (low + high) / 2, 0.6 * float((high - low).max())
            ax.set_xlim(float(centre[0]) - half, float(centre[0]) + half)
            ax.set_ylim(float(centre[1]) - half, float(centre[1]) + half)
            ax.set_aspect("equal")
            ax.set_xlabel("x")
            ax.set_ylabel("y")
            ax.set_title("clockwise" if test.clockwise[i] else "counter-clockwise", fontsize=10)
        handles = [
            Line2D([], [], **_DOTS),
            Line2D([], [], color=style.FAINT, linewidth=3.5, alpha=0.45),
            *(Line2D([], [], color=style.COLOURS[colour]) for colour in (0, 1, 2)),
            Line2D([], [], **dashed),
        ]
        labels = ["observed", "true", "reconstructed", "predicted", "before", "RNN"]
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def errors(ts: Tensor, window: int, curves: Mapping[int, tuple[Tensor, Tensor, Tensor]]) -> Axes:
    """Error against time, both predictors, every number of observations.

    Args:
        ts: times, [3 * window].
        window: times of the observed window.
        curves: by observations, what was expected by the latent ODE, by the RNN, and the truth,
            [3 * window, batch, 2] each.
    """
    with style.applied():
        ax = style.axes(None, (6.6, 4.0))
        ax.axvspan(float(ts[window]), float(ts[2 * window - 1]), color=style.SHADE, zorder=0)
        for i, (n_observed, (latent, rnn, truth)) in enumerate(curves.items()):
            colour = style.COLOURS[i % len(style.COLOURS)]
            whole = ~torch.isnan(truth[-1, :, 0])
            for label, path, dashes in (("latent ODE", latent, "-"), ("RNN", rnn, "--")):
                error = (path - truth)[:, whole].square().mean((1, 2)).sqrt()
                ax.plot(ts, error, dashes, color=colour, label=f"{label}, {n_observed}")
        ax.set_yscale("log")
        ax.margins(x=0)
        ax.set_xlabel("time since the first that may be observed")
        ax.set_ylabel("RMSE")
        ax.legend(ncols=len(curves), loc="upper left")
        low, high = ax.get_ylim()
        ax.set_ylim(low, high * (high / low) ** 0.3)
    return ax


def interpolation(paths: Tensor) -> Axes:
    """Decoded paths of latent starts from one spiral to another.

    Args:
        paths: [time, starts, 2].
    """
    shade = plt.get_cmap("viridis")
    with style.applied():
        ax = style.axes(None, (6.2, 4.8))
        n = paths.shape[1]
        for i in range(n):
            colour = shade(i / (n - 1))
            ax.plot(*paths[:, i].T, color=colour)
            ax.plot(*paths[0, i], marker="o", markersize=4, color=colour)
        ax.set_aspect("equal", adjustable="datalim")
        ax.set_xlabel("x")
        ax.set_ylabel("y")
        bar = ax.figure.colorbar(ScalarMappable(Normalize(0, 1), shade), ax=ax, ticks=[0, 0.5, 1])
        bar.ax.set_yticklabels(["clockwise", "half-way", "counter-\nclockwise"])
    return ax


_DOTS: dict[str, Any] = {
    "color": style.INK,
    "marker": "o",
    "markersize": 2.6,
    "linestyle": "none",
    "alpha": 0.8,
    "markeredgewidth": 0,
}
