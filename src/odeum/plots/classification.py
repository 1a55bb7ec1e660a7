"""Flows that tell classes apart: states over depth coloured by class, and the regions of classes.

Depth is the time of the flow, which has layers as a network has. Knows no model: regions are drawn
of any function from points to scores.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.animation import FuncAnimation
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from mpl_toolkits.mplot3d.art3d import Line3DCollection  # type: ignore[import-untyped]

from odeum.errors import InputError
from odeum.plots import style
from odeum.plots.arrays import states, to_numpy
from odeum.plots.plane import Limits

_KEY: dict[str, Any] = {"markersize": 6}
"""Dots in a legend, however small those of the picture are."""

Flow = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Times [time], states [time, batch, dim] and classes [batch]."""


def depth_trajectories(
    ts: Any,
    ys: Any,
    labels: Any,
    *,
    over_depth: bool = False,
    names: Sequence[str] | None = None,
    time_name: str = "depth t",
    ax: Axes | None = None,
) -> Axes:
    """The way of every example through a flow, coloured by class; a dot where it ends.

    States of one component are drawn over depth, of two in the plane (or over depth, in space), of
    three in space.

    Args:
        ts: times, [time].
        ys: states, [time, batch, dim] with dim 1, 2 or 3.
        labels: classes, whole numbers, [batch].
        over_depth: draw two components in space, with depth as the first axis.
        names: a name per component.
        time_name: the name of depth, where it is an axis.
        ax: where to draw (a 3-D Axes where there are three axes); a new figure if None.

    Returns:
        The Axes.

    Raises:
        InputError: shapes that do not belong together, or more components than can be drawn.

    Example:
        >>> ts = torch.linspace(0, 1, 20)
        >>> ys = torch.randn(10, 2) * ts.exp()[:, None, None]
        >>> depth_trajectories(ts, ys, torch.arange(10) % 2, over_depth=True).get_xlabel()
        'depth t'
    """
    times, values, classes = _flow(ts, ys, labels)
    axis_names = style.component_names(names, values.shape[-1])
    if over_depth or values.shape[-1] == 1:
        depth = np.broadcast_to(times[:, None, None], (*values.shape[:2], 1))
        values = np.concatenate([depth, values], -1)
        axis_names = [style.text(time_name), *axis_names]
    n_axes = values.shape[-1]
    if n_axes > 3:
        raise InputError(
            f"a picture has at most three axes, and {n_axes} are asked for: choose components "
            "first, for example ys[..., :2]"
        )
    with style.applied():
        ax = style.axes(ax, (5.4, 4.6), projection="3d" if n_axes == 3 else None)
        entries: list[tuple[Artist, str]] = []
        collection = Line3DCollection if n_axes == 3 else LineCollection
        few = len(classes) <= 100
        for k in np.unique(classes):
            colour = _colour(k)
            paths = values[:, classes == k].swapaxes(0, 1)
            lines = collection(
                list(paths), colors=[colour], linewidths=0.8, alpha=0.6 if few else 0.3
            )
            ax.add_collection(lines)
            dots: dict[str, Any] = {
                "color": colour,
                "marker": "o",
                "linestyle": "none",
                "markeredgewidth": 0,
            }
            ax.plot(*paths[:, -1].T, markersize=4 if few else 2.5, zorder=4, **dots)
            entries.append((Line2D([], [], **dots, **_KEY), f"class {k}"))
        _set_limits(ax, values)
        for axis, name in zip("xyz", axis_names, strict=False):
            getattr(ax, f"set_{axis}label")(name)
        style.add_to_legend(ax, entries)
    return ax


def depth_animation(
    ts: Any,
    ys: Any,
    labels: Any,
    *,
    names: Sequence[str] | None = None,
    time_name: str = "depth t",
    tail: int = 8,
) -> FuncAnimation:
    """The examples as they move through a flow, one frame a time, the last one held for a while.

    Args:
        ts: times, [time].
        ys: states, [time, batch, dim] with dim 2 or 3.
        labels: classes, whole numbers, [batch].
        names: a name per component.
        time_name: the name of depth.
        tail: how many times back the way of each is drawn.

    Returns:
        The animation, for :func:`odeum.plots.save`.

    Raises:
        InputError: shapes that do not belong together, or states of other than 2 or 3 components.

    Example:
        >>> import tempfile
        >>> from odeum.plots import save
        >>> ts = torch.linspace(0, 1, 3)
        >>> ys = torch.randn(10, 2) * ts.exp()[:, None, None]
        >>> moving = depth_animation(ts, ys, torch.arange(10) % 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(moving, f"{folder}/flow.gif").name
        'flow.gif'
    """
    times, values, classes = _flow(ts, ys, labels)
    dim = values.shape[-1]
    if dim not in (2, 3):
        raise InputError(f"states of {dim} components: an animation moves points of 2 or 3")
    axis_names = style.component_names(names, dim)
    with style.applied():
        ax = style.axes(None, (5.0, 4.6), projection="3d" if dim == 3 else None)
        _set_limits(ax, values)
        for axis, name in zip("xyz", axis_names, strict=False):
            getattr(ax, f"set_{axis}label")(name)
        collection = Line3DCollection if dim == 3 else LineCollection
        moving = []
        for k in np.unique(classes):
            here = values[:, classes == k]
            first = np.repeat(here[:1], 2, 0).swapaxes(0, 1)
            tails = collection(list(first), colors=[_colour(k)], linewidths=0.8, alpha=0.4)
            ax.add_collection(tails)
            (dots,) = ax.plot(*here[0].T, "o", color=_colour(k), markersize=3.5, markeredgewidth=0)
            moving.append((here, tails, dots))
        title = ax.set_title("", fontsize=10)

    def show(frame: int) -> list[Artist]:
        now = min(frame, len(times) - 1)
        title.set_text(f"{style.text(time_name)} = {times[now]:.2f}")
        drawn: list[Artist] = [title]
        for here, tails, dots in moving:
            # A path of one point is not drawn in space.
            since = max(0, now - tail)
            way = here[since : now + 1] if now else np.repeat(here[:1], 2, 0)
            tails.set_segments(list(way.swapaxes(0, 1)))
            if dim == 3:
                dots.set_data_3d(*here[now].T)  # type: ignore[attr-defined]
            else:
                dots.set_data(*here[now].T)
            drawn += [tails, dots]
        return drawn

    figure: Any = ax.get_figure(root=True)
    n_held = max(1, len(times) // 4)
    return FuncAnimation(figure, show, frames=len(times) + n_held, interval=60, blit=False)


def class_regions(
    classify: Callable[[torch.Tensor], torch.Tensor],
    points: Any,
    labels: Any,
    *,
    xlim: Limits | None = None,
    ylim: Limits | None = None,
    names: Sequence[str] | None = None,
    n_grid: int = 150,
    ax: Axes | None = None,
) -> Axes:
    """Points of the plane coloured by class, over how likely each class is everywhere.

    Args:
        classify: from points [n, 2], float64, to logits [n, classes]; called without gradients.
        points: examples, [batch, 2].
        labels: their classes, whole numbers from 0, [batch].
        xlim: limits of the first component; those of the points, widened, if None.
        ylim: limits of the second component, likewise.
        names: a name for each component.
        n_grid: points of the background along each side, at least 2.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.

    Raises:
        InputError: points that are not of the plane, or labels that are not theirs.

    Example:
        >>> points = torch.tensor([[-1.0, 0.0], [1.0, 0.5]])
        >>> ax = class_regions(lambda x: torch.stack([-x[:, 0], x[:, 0]], -1), points, [0, 1])
        >>> len(ax.images)
        1
    """
    if n_grid < 2:
        raise InputError(f"n_grid is {n_grid}: give at least 2")
    _, values, classes = _flow([0.0], to_numpy(points)[None], labels)
    where = values[0]
    if where.shape[-1] != 2:
        raise InputError(f"points have {where.shape[-1]} components: regions are those of a plane")
    low, high = where.min(0), where.max(0)
    room = 0.12 * np.where(high > low, high - low, 1.0)
    limits = [
        given or (low[i] - room[i], high[i] + room[i]) for i, given in enumerate((xlim, ylim))
    ]
    sides = [
        torch.linspace(float(lower), float(upper), n_grid, dtype=torch.float64)
        for lower, upper in limits
    ]
    grid = torch.cartesian_prod(*sides)
    with torch.no_grad():
        shares = to_numpy(torch.as_tensor(classify(grid)).softmax(-1))
    # White where nothing is decided, half the class's colour where all is.
    n_classes = shares.shape[1]
    colours = np.array([to_rgb(_colour(k)) for k in range(n_classes)])
    strength = np.clip((n_classes * shares - 1) / (n_classes - 1), 0, 1)
    image = 1 - 0.45 * (strength[..., None] * (1 - colours)).sum(1)
    with style.applied():
        ax = style.axes(ax, (5.0, 4.6))
        ax.grid(False)
        ax.imshow(
            image.reshape(n_grid, n_grid, 3).swapaxes(0, 1),
            origin="lower",
            extent=(*limits[0], *limits[1]),
            aspect="equal",
            interpolation="bilinear",
            zorder=0,
        )
        entries: list[tuple[Artist, str]] = []
        dots = {**style.dots(len(where), 5), "markeredgecolor": "white", "markeredgewidth": 0.4}
        dots |= {"alpha": 0.9, "zorder": 3}
        for k in np.unique(classes):
            ax.plot(*where[classes == k].T, color=_colour(k), **dots)
            entries.append((Line2D([], [], color=_colour(k), **{**dots, **_KEY}), f"class {k}"))
        x_name, y_name = style.component_names(names, 2)
        ax.set(xlim=limits[0], ylim=limits[1], xlabel=x_name, ylabel=y_name)
        style.add_to_legend(ax, entries)
    return ax


def _flow(ts: Any, ys: Any, labels: Any) -> Flow:
    """What was given, of shapes that belong together."""
    times, values, classes = to_numpy(ts), states(ys), to_numpy(labels)
    if times.shape != values.shape[:1] or classes.shape != values.shape[1:2]:
        raise InputError(
            f"times are shaped {list(times.shape)}, states {list(values.shape)} and labels "
            f"{list(classes.shape)}: give [time], [time, batch, dim] and [batch]"
        )
    if not (classes == np.round(classes)).all():
        raise InputError("labels are not whole numbers: give each example's class")
    return times, values, classes.astype(int)


def _colour(k: int) -> str:
    return style.COLOURS[int(k) % len(style.COLOURS)]


def _set_limits(ax: Axes, values: np.ndarray) -> None:
    """Room for all states, whatever collections say of theirs."""
    finite = values[np.isfinite(values).all(-1)]
    low, high = finite.min(0), finite.max(0)
    room = 0.05 * np.where(high > low, high - low, 1.0)
    for axis, lower, upper in zip("xyz", low - room, high + room, strict=False):
        getattr(ax, f"set_{axis}lim")(lower, upper)
