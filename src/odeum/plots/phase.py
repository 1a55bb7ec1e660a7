"""Pictures of a vector field: phase portrait (streamlines, fixed points, trajectories) and arrows.

Speed is the length of dy/dt in the two components shown. Knows nothing of how a field was made or
learned.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from odeum.errors import InputError
from odeum.plots import style
from odeum.plots.arrays import labelled, states
from odeum.plots.fixed_points import KINDS, fixed_points_in
from odeum.plots.plane import Field, Limits, Plane, make_plane

_N_GRID = 60
_STABLE = {"markerfacecolor": style.INK}
_UNSTABLE = {"markerfacecolor": "white"}
_MARKERS: dict[str, dict[str, Any]] = {
    "stable node": {"marker": "s", **_STABLE},
    "stable focus": {"marker": "o", **_STABLE},
    "unstable node": {"marker": "s", **_UNSTABLE},
    "unstable focus": {"marker": "o", **_UNSTABLE},
    "saddle": {"marker": "D", "fillstyle": "left", **_STABLE, "markerfacecoloralt": "white"},
    "centre": {"marker": "P", **_UNSTABLE},
    "degenerate": {"marker": "X", **_UNSTABLE},
}


def phase_portrait(
    field: Field,
    *,
    xlim: Limits,
    ylim: Limits,
    at_t: float = 0.0,
    trajectories: Any = None,
    observed: Any = None,
    names: Sequence[str] | None = None,
    dims: tuple[int, int] = (0, 1),
    base: Sequence[float] | torch.Tensor | None = None,
    fixed_points: bool = True,
    nullclines: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Streamlines of a field, shaded by speed, with its fixed points and what moved through it.

    Args:
        field: called as ``field(t, y)`` with t [n, 1] and y [n, dim], without gradients.
        xlim: limits of the first component shown.
        ylim: limits of the second component shown.
        at_t: the time at which the field is frozen.
        trajectories: states [time, dim] or [time, batch, dim], or a mapping label -> states; each
            start is marked.
        observed: states [n, dim] or [time, batch, dim], drawn as dots; rows with NaN are left out.
        names: a name per component of the whole state.
        dims: which two components to show.
        base: [dim] where the other components rest; needed for more than two components.
        fixed_points: find, classify and mark them; see :func:`odeum.plots.find_fixed_points`.
        nullclines: draw where either component stands still.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes; its figure has the colour bar beside it.

    Raises:
        InputError: wrong limits, components or shapes, or a field that is finite nowhere in the
            window.

    Example:
        >>> def spiral(t, y):
        ...     return y @ y.new_tensor([[-0.1, 1.0], [-1.0, -0.1]])
        >>> ax = phase_portrait(spiral, xlim=(-2, 2), ylim=(-2, 2), names=["x", "y"])
        >>> [entry.get_text() for entry in ax.get_legend().get_texts()]
        ['stable focus']
    """
    plane = make_plane(field, xlim, ylim, dims=dims, base=base, at_t=at_t)
    drawn_names = style.component_names(names, len(plane.base))
    x, y, u, v = plane.grid(_N_GRID)
    speed = _speed(plane, u, v)
    with style.applied():
        ax = _plane_axes(ax, plane, drawn_names)
        norm = _speed_norm(speed)
        ax.streamplot(
            x,
            y,
            np.ma.masked_invalid(u),
            np.ma.masked_invalid(v),
            color=speed.filled(norm.vmin or 0.0),
            cmap=style.SPEED,
            norm=norm,
            density=1.25,
            linewidth=1.0,
            arrowsize=0.9,
            zorder=1,
        )
        ax.set(xlim=plane.xlim, ylim=plane.ylim)
        _speed_bar(ax, norm)
        entries: list[tuple[Artist, str]] = []
        if nullclines:
            entries += _draw_nullclines(ax, plane, (x, y, u, v), drawn_names)
        if trajectories is not None:
            entries += _draw_trajectories(ax, plane, trajectories)
        if observed is not None:
            entries += _draw_observed(ax, _shown(plane, observed, "observed"))
        if fixed_points:
            entries += _draw_fixed_points(ax, plane)
        style.add_to_legend(ax, entries)
    return ax


def vector_field(
    field: Field,
    xlim: Limits,
    ylim: Limits,
    *,
    at_t: float = 0.0,
    names: Sequence[str] | None = None,
    dims: tuple[int, int] = (0, 1),
    base: Sequence[float] | torch.Tensor | None = None,
    n_arrows: int = 19,
    ax: Axes | None = None,
) -> Axes:
    """Arrows of a field on a grid: their length grows with the logarithm of speed, as their shade.

    Args:
        field: called as ``field(t, y)`` with t [n, 1] and y [n, dim], without gradients.
        xlim: limits of the first component shown.
        ylim: limits of the second component shown.
        at_t: the time at which the field is frozen.
        names: a name per component of the whole state.
        dims: which two components to show.
        base: [dim] where the other components rest; needed for more than two components.
        n_arrows: arrows along each side, at least 2.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes; its figure has the colour bar beside it.

    Raises:
        InputError: wrong limits, components or shapes, or a field that is finite nowhere in the
            window.

    Example:
        >>> ax = vector_field(lambda t, y: -y, (-1, 1), (-1, 1), names=["x", "y"])
        >>> ax.get_xlabel()
        'x'
    """
    if n_arrows < 2:
        raise InputError(f"n_arrows is {n_arrows}: give at least 2")
    plane = make_plane(field, xlim, ylim, dims=dims, base=base, at_t=at_t)
    drawn_names = style.component_names(names, len(plane.base))
    x, y, u, v = plane.grid(n_arrows)
    speed = _speed(plane, u, v)
    fastest = float(speed.max()) or 1.0
    # From a third of full length at rest to full length: a slow arrow still shows its direction.
    length = (1 / 3) + (2 / 3) * np.log1p(99 * speed / fastest) / np.log(100)
    still = np.ma.masked_equal(speed, 0.0)
    with style.applied():
        ax = _plane_axes(ax, plane, drawn_names)
        norm = _speed_norm(speed)
        ax.quiver(
            *np.meshgrid(x, y),
            length * u / still,
            length * v / still,
            speed,
            cmap=style.SPEED,
            norm=norm,
            angles="xy",
            pivot="mid",
            scale_units="width",
            scale=n_arrows * 1.15,
            width=0.0035,
            zorder=2,
        )
        # Half a cell of room, so that arrows on the border are whole.
        room = 0.5 / (n_arrows - 1)
        ax.set_xlim(x[0] - room * np.ptp(x), x[-1] + room * np.ptp(x))
        ax.set_ylim(y[0] - room * np.ptp(y), y[-1] + room * np.ptp(y))
        _speed_bar(ax, norm)
    return ax


def _plane_axes(ax: Axes | None, plane: Plane, names: list[str]) -> Axes:
    """Axes for the window, its components named; drawn to scale where both ranges are alike."""
    ax = style.axes(ax, (5.8, 4.5))
    ax.grid(False)
    ax.set_xlabel(names[plane.dims[0]])
    ax.set_ylabel(names[plane.dims[1]])
    ratio = (plane.xlim[1] - plane.xlim[0]) / (plane.ylim[1] - plane.ylim[0])
    if 0.8 <= ratio <= 1.25:
        ax.set_aspect("equal")
    return ax


def _speed(plane: Plane, u: np.ndarray, v: np.ndarray) -> np.ma.MaskedArray:
    speed = np.ma.masked_invalid(np.hypot(u, v))
    if speed.count() == 0:
        raise InputError(
            f"the field is not finite anywhere in xlim={plane.xlim}, ylim={plane.ylim}: "
            "choose a window where it is defined"
        )
    return speed


def _speed_norm(speed: np.ma.MaskedArray) -> Normalize:
    """Linear for speeds of one order, logarithmic for more, over three decades at most."""
    low, high = float(np.percentile(speed.compressed(), 2)), float(speed.max())
    if high == 0.0:
        return Normalize(0.0, 1.0)
    if high / max(low, 1e-3 * high) > 10:
        return LogNorm(max(low, 1e-3 * high), high, clip=True)
    return Normalize(0.0, high)


def _speed_bar(ax: Axes, norm: Normalize) -> None:
    figure = ax.get_figure()
    assert figure is not None
    bar = figure.colorbar(ScalarMappable(norm, style.SPEED), ax=ax, pad=0.03, aspect=30)
    bar.set_label("speed |dy/dt|")
    if isinstance(norm, LogNorm):
        bar.locator = LogLocator(subs=(1.0, 2.0, 5.0))
        bar.formatter = FuncFormatter(lambda speed, _: f"{speed:g}")
        bar.minorlocator = NullLocator()
        bar.update_ticks()
    bar.outline.set_visible(False)


def _shown(plane: Plane, values: Any, what: str) -> np.ndarray:
    """The two components shown, [time, batch, 2]."""
    whole = states(values)
    if whole.shape[-1] != len(plane.base):
        raise InputError(
            f"{what} has {whole.shape[-1]} components, the field {len(plane.base)}: give whole "
            "states, and base where they have more than two components"
        )
    return whole[..., list(plane.dims)]


def _draw_trajectories(ax: Axes, plane: Plane, given: Any) -> list[tuple[Artist, str]]:
    """Paths with a white edge that lifts them off the streamlines, a dot at each start."""
    entries: list[tuple[Artist, str]] = []
    models: Mapping[str | None, Any] = labelled(given, None)
    start: dict[str, Any] = {
        "marker": ">",
        "markersize": 8,
        "color": style.INK,
        "markeredgecolor": "white",
        "linestyle": "none",
    }
    for j, (label, values) in enumerate(models.items()):
        colour = style.COLOURS[(j + 1) % len(style.COLOURS)]
        dashes = style.DASHES[j % len(style.DASHES)]
        shown = _shown(plane, values, "trajectories")
        width = 2.0 if shown.shape[1] == 1 else 1.3
        for path in shown.swapaxes(0, 1):
            # The edges lie under every path, so that one model never wipes out another.
            ax.plot(*path.T, color="white", linewidth=width + 1.6, alpha=0.8, zorder=2.9)
            ax.plot(*path.T, color=colour, linestyle=dashes, linewidth=width, zorder=3)
        line = Line2D([], [], color=colour, linestyle=dashes, linewidth=width)
        entries.append((line, "trajectory" if label is None else style.text(label)))
        ax.plot(*shown[0].T, zorder=5, **start)
    return [*entries, (Line2D([], [], **start), "start")]


def _draw_observed(ax: Axes, shown: np.ndarray) -> list[tuple[Artist, str]]:
    points = shown.reshape(-1, 2)
    points = points[np.isfinite(points).all(-1)]
    dots = {**style.dots(len(points), size=5), "color": style.INK}
    ax.plot(*points.T, **dots)
    return [(Line2D([], [], **dots), "observed")]


def _draw_nullclines(
    ax: Axes, plane: Plane, grid: tuple[np.ndarray, ...], names: list[str]
) -> list[tuple[Artist, str]]:
    x, y, u, v = grid
    entries: list[tuple[Artist, str]] = []
    for rate, i, colour in zip((u, v), plane.dims, style.COLOURS[2:4], strict=True):
        # Contouring warns where a rate keeps its sign: there is no nullcline to draw then.
        if np.nanmin(rate) < 0 < np.nanmax(rate):
            ax.contour(
                x, y, rate, levels=[0.0], colors=[colour], linewidths=1.4, linestyles="--", zorder=2
            )
            handle = Line2D([], [], color=colour, linestyle="--", linewidth=1.4)
            entries.append((handle, f"{names[i]} at rest"))
    return entries


def _draw_fixed_points(ax: Axes, plane: Plane) -> list[tuple[Artist, str]]:
    points = fixed_points_in(plane)
    entries: list[tuple[Artist, str]] = []
    for kind in KINDS:
        here = [[float(point.y[i]) for i in plane.dims] for point in points if point.kind == kind]
        if not here:
            continue
        look = {
            **_MARKERS[kind],
            "linestyle": "none",
            "markersize": 8,
            "markeredgecolor": style.INK,
            "markeredgewidth": 1.2,
        }
        ax.plot(*np.transpose(here), zorder=6, clip_on=False, **look)
        entries.append((Line2D([], [], **look), kind))
    return entries
