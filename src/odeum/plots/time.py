"""Solutions over time, and as paths through state space.

On one Axes a component is a colour and a model a dash pattern; with a panel for each component a
model is a colour. Knows nothing of vector fields.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d.art3d import Line3DCollection  # type: ignore[import-untyped]

from odeum.errors import InputError
from odeum.plots import style
from odeum.plots.arrays import Paths, labelled, paths, states

_MODEL = "odeum-model-"
_HELD_OUT = "odeum-held-out"


@dataclass(frozen=True)
class _Content:
    """What a call asks to draw: models by label, observations, names of the components."""

    models: dict[str | None, Paths]
    observed: Paths | None
    names: list[str]


def trajectories(
    ts: Any,
    ys: Any = None,
    *,
    names: Sequence[str] | None = None,
    time_name: str = "time",
    observed: tuple[Any, Any] | None = None,
    held_out_from: float | None = None,
    label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Every component over time on one Axes: lines for models, dots for observations.

    A component has a colour, a model a dash pattern. Overlay models by passing a mapping, or by
    calling again with the Axes that came back.

    Args:
        ts: times, [time] or [time, batch]; or a mapping label -> (ts, ys), one entry per model.
        ys: states, [time, dim] or [time, batch, dim] ([time] for a scalar); None with a mapping.
        names: a name per component, with its unit where it has one.
        time_name: name of the time axis, with its unit.
        observed: (ts, ys) of the observations, NaN where a value is missing.
        held_out_from: time from which observations were kept from learning; shaded from there on.
        label: the model's name in the legend.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.

    Raises:
        InputError: shapes or numbers of names that do not belong together.

    Example:
        >>> import torch
        >>> ts = torch.linspace(0, 6, 100)
        >>> ys = torch.stack([ts.sin(), ts.cos()], -1)
        >>> ax = trajectories(ts, ys, names=["angle (rad)", "speed (rad/s)"], time_name="t (s)")
        >>> ax.get_xlabel(), len(ax.lines)
        ('t (s)', 2)
    """
    content = _content(ts, ys, names, observed, label)
    with style.applied():
        ax = style.axes(ax, (6.0, 3.6))
        colours = [style.COLOURS[i % len(style.COLOURS)] for i in range(len(content.names))]
        entries: list[tuple[Artist, str]] = []
        if len(content.names) > 1:
            for name, colour in zip(content.names, colours, strict=True):
                entries.append((Line2D([], [], color=colour), name))
        first = _n_models(ax)
        for j, (model, (times, values)) in enumerate(content.models.items(), start=first):
            dashes = style.DASHES[j % len(style.DASHES)]
            for i, colour in enumerate(colours):
                _draw_lines(ax, times, values[..., i], color=colour, linestyle=dashes, gid=j)
            if model is not None:
                ink = colours[0] if len(colours) == 1 else style.INK
                entries.append((Line2D([], [], color=ink, linestyle=dashes), style.text(model)))
        for i, colour in enumerate(colours):
            entries += _draw_observed(ax, content.observed, i, colour, many=len(colours) > 1)
        entries += _shade_held_out(ax, content, held_out_from)
        _name_time(ax, time_name)
        ax.set_ylabel(content.names[0] if len(colours) == 1 else "state")
        style.add_to_legend(ax, entries)
    return ax


def trajectory_panels(
    ts: Any,
    ys: Any = None,
    *,
    names: Sequence[str] | None = None,
    time_name: str = "time",
    observed: tuple[Any, Any] | None = None,
    held_out_from: float | None = None,
    label: str | None = None,
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """As :func:`trajectories`, with a panel for each component and a colour for each model.

    The choice for components of different units or scales, or for more than a few of them.

    Args:
        ts: times, or a mapping label -> (ts, ys), as for :func:`trajectories`.
        ys: states, as for :func:`trajectories`.
        names: a name per component, with its unit where it has one.
        time_name: name of the time axis, with its unit.
        observed: (ts, ys) of the observations, NaN where a value is missing.
        held_out_from: time from which observations were kept from learning.
        label: the model's name in the legend.
        axes: an Axes per component, such as an earlier call returned; a new figure if None.

    Returns:
        Array of Axes, [dim].

    Raises:
        InputError: shapes, numbers of names or of Axes that do not belong together.

    Example:
        >>> panels = trajectory_panels([0.0, 1.0], [[1.0, 20.0], [2.0, 10.0]], names=["a", "b"])
        >>> [panel.get_ylabel() for panel in panels]
        ['a', 'b']
    """
    content = _content(ts, ys, names, observed, label)
    dim = len(content.names)
    with style.applied():
        if axes is None:
            axes = _panel_axes(dim)
        axes = np.asarray(axes, dtype=object).reshape(-1)
        if len(axes) != dim:
            raise InputError(f"axes holds {len(axes)} Axes for {dim} components: give one for each")
        entries: list[tuple[Artist, str]] = []
        first = _n_models(axes[0])
        for i, ax in enumerate(axes):
            style.dress(ax)
            for j, (model, (times, values)) in enumerate(content.models.items(), start=first):
                colour = style.COLOURS[j % len(style.COLOURS)]
                _draw_lines(ax, times, values[..., i], color=colour, linestyle="-", gid=j)
                if model is not None:
                    entries.append((Line2D([], [], color=colour), style.text(model)))
            entries += _draw_observed(ax, content.observed, i, style.INK, many=False)
            entries += _shade_held_out(ax, content, held_out_from)
            ax.set_ylabel(content.names[i])
        _name_time(axes[-1], time_name)
        style.add_to_legend(axes[0], entries)
    return axes


def state_space(
    ys: Any,
    *,
    ts: Any = None,
    names: Sequence[str] | None = None,
    time_name: str = "time",
    label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Paths through a 2- or 3-dimensional state space, the start of each marked.

    Args:
        ys: states, [time, dim] or [time, batch, dim] with dim 2 or 3; or a mapping label -> states.
        ts: times [time]; if given, colour runs along the path with time (one model only).
        names: a name per component.
        time_name: name of time on the colour bar.
        label: the path's name in the legend.
        ax: where to draw (a 3-D Axes for dim 3); a new figure if None.

    Returns:
        The Axes.

    Raises:
        InputError: dim is not 2 or 3, models of different dim, or ``ts`` beside several models.

    Example:
        >>> import torch
        >>> angle = torch.linspace(0, 6, 100)
        >>> ax = state_space(torch.stack([angle.sin(), angle.cos(), angle], -1))
        >>> ax.name
        '3d'
    """
    models = {model: states(values) for model, values in labelled(ys, label).items()}
    dim = next(iter(models.values())).shape[-1]
    if dim not in (2, 3) or any(values.shape[-1] != dim for values in models.values()):
        raise InputError(
            "state_space draws states of 2 or 3 components, the same for every model, got "
            f"{[v.shape[-1] for v in models.values()]}: choose first, for example ys[..., :2]"
        )
    if ts is not None and len(models) > 1:
        raise InputError("ts colours a path by time, which needs a single model: leave ts out")
    drawn_names = style.component_names(names, dim)
    with style.applied():
        ax = style.axes(ax, (5.4, 4.6), projection="3d" if dim == 3 else None)
        entries: list[tuple[Artist, str]] = []
        start: dict[str, Any] = {
            "marker": ">",
            "markersize": 7,
            "color": style.INK,
            "markeredgecolor": "white",
            "linestyle": "none",
        }
        first = _n_models(ax)
        for j, (model, values) in enumerate(models.items(), start=first):
            colour = style.COLOURS[j % len(style.COLOURS)]
            if ts is not None:
                _draw_coloured_by_time(ax, paths(ts, values), time_name)
            else:
                width = 1.8 if values.shape[1] == 1 else 1.1
                for path in values.swapaxes(0, 1):
                    ax.plot(*path.T, color=colour, linewidth=width, gid=f"{_MODEL}{j}")
            if model is not None:
                entries.append((Line2D([], [], color=colour), style.text(model)))
            ax.plot(*values[0].T, zorder=5, **start)
        entries.append((Line2D([], [], **start), "start"))
        for axis, name in zip("xyz", drawn_names, strict=False):
            getattr(ax, f"set_{axis}label")(name)
        style.add_to_legend(ax, entries)
    return ax


def _content(
    ts: Any,
    ys: Any,
    names: Sequence[str] | None,
    observed: tuple[Any, Any] | None,
    label: str | None,
) -> _Content:
    """Check and shape what the user passed."""
    if isinstance(ts, Mapping):
        if ys is not None:
            raise InputError("ts is a mapping label -> (ts, ys), so ys must be left out")
        given = labelled(ts, label)
    elif ys is None:
        raise InputError("ys is missing: give ts and ys, or a mapping label -> (ts, ys)")
    else:
        given = {label: (ts, ys)}
    models = {model: paths(*pair) for model, pair in given.items()}
    seen = None if observed is None else paths(*observed)
    dims = {values.shape[-1] for _, values in [*models.values(), *([seen] if seen else [])]}
    if len(dims) > 1:
        raise InputError(f"models and observations differ in their number of components: {dims}")
    return _Content(models, seen, style.component_names(names, dims.pop()))


def _n_models(ax: Axes) -> int:
    """How many models earlier calls have drawn on this Axes."""
    gids = {line.get_gid() for line in ax.lines}
    return len({gid for gid in gids if gid is not None and gid.startswith(_MODEL)})


def _draw_lines(
    ax: Axes, times: np.ndarray, values: np.ndarray, *, color: str, linestyle: str, gid: int
) -> None:
    """One line per row of the batch; many rows are drawn thinner."""
    width = 1.8 if values.shape[1] == 1 else 1.1
    for t, y in zip(times.T, values.T, strict=True):
        ax.plot(
            t, y, color=color, linestyle=linestyle, linewidth=width, gid=f"{_MODEL}{gid}", zorder=3
        )


def _draw_observed(
    ax: Axes, observed: Paths | None, i: int, colour: str, *, many: bool
) -> list[tuple[Artist, str]]:
    """Dots for component ``i``; the legend's dot is neutral where components have colours."""
    if observed is None:
        return []
    times, values = observed[0].ravel(), observed[1][..., i].ravel()
    present = np.isfinite(values)
    dots = style.dots(int(present.sum()), size=5.5)
    ax.plot(times[present], values[present], color=colour, **dots)
    neutral = style.FAINT if many else colour
    return [(Line2D([], [], color=neutral, **dots), "observed")]


def _shade_held_out(
    ax: Axes, content: _Content, held_out_from: float | None
) -> list[tuple[Artist, str]]:
    """Shade from ``held_out_from`` to the last time drawn on this Axes by any call."""
    for patch in [p for p in ax.patches if p.get_gid() == _HELD_OUT]:
        if held_out_from is None:
            held_out_from = patch.get_x()  # type: ignore[attr-defined]
        patch.remove()
    drawn = [line.get_xdata() for line in ax.lines]
    times = np.concatenate([np.asarray(x, dtype=float) for x in drawn])
    times = times[np.isfinite(times)]
    if times.size and np.ptp(times) > 0:
        margin = 0.02 * np.ptp(times)
        ax.set_xlim(times.min() - margin, times.max() + margin)
    if held_out_from is None or not times.size:
        return []
    end = max(ax.get_xlim()[1], held_out_from)
    ax.axvspan(held_out_from, end, color=style.SHADE, linewidth=0, zorder=0, gid=_HELD_OUT)
    return [(Patch(facecolor=style.SHADE, edgecolor=style.FAINT, linewidth=0.5), "held out")]


def _name_time(ax: Axes, time_name: str) -> None:
    """Name the time axis; its ticks avoid quarters, which read oddly on years and days."""
    ax.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10]))
    ax.set_xlabel(style.text(time_name))


def _panel_axes(dim: int) -> np.ndarray:
    """Panels one under another on a shared time axis, lower where there are many."""
    height = max(0.9, 1.7 - 0.1 * dim)
    figure, grid = plt.subplots(
        dim, 1, figsize=(6.0, height * dim + 0.8), sharex=True, squeeze=False, layout="constrained"
    )
    figure.align_ylabels()
    return grid.reshape(-1)


def _draw_coloured_by_time(ax: Axes, path: Paths, time_name: str) -> None:
    """Paths as short segments coloured by their time, with the colour bar that says so."""
    times, values = path
    segments = np.stack([values[:-1], values[1:]], axis=2)
    kind: Any = Line3DCollection if values.shape[-1] == 3 else LineCollection
    lines = kind(
        segments.reshape(-1, 2, values.shape[-1]),
        cmap="viridis",
        array=(0.5 * (times[:-1] + times[1:])).ravel(),
        linewidths=1.2,
    )
    if values.shape[-1] == 3:
        ax.add_collection3d(lines)  # type: ignore[attr-defined]
    else:
        ax.add_collection(lines)
    figure = ax.get_figure()
    assert figure is not None
    figure.colorbar(lines, ax=ax, label=style.text(time_name), shrink=0.75, pad=0.1)
