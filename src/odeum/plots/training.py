"""How training went: loss and held-out error by epoch, losses of several trainings by step.

Reads plain dicts, as metrics.jsonl holds them; knows nothing of files or of how the loss is made.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from odeum.errors import InputError
from odeum.plots import style

_HELD_OUT_KEYS = ("held_out", "held_out_error", "held_out_loss")
_STAGE_KEYS = ("window", "stage")


def loss_curve(
    metrics: Sequence[Mapping[str, Any]],
    *,
    best_epoch: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Loss and held-out error by epoch, logarithmic, with the stages and the best epoch marked.

    Args:
        metrics: one dict per epoch: ``epoch``, ``loss``; where present ``held_out`` (also
            ``held_out_error``, ``held_out_loss``) and ``window`` or ``stage``, whose changes are
            marked. Missing values are None or NaN.
        best_epoch: the epoch kept; by default that of the lowest held-out error, or loss.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.

    Raises:
        InputError: no metrics, or an entry without epoch or loss.

    Example:
        >>> metrics = [{"epoch": k, "loss": 1 / k, "window": 1 + k // 5} for k in range(1, 10)]
        >>> ax = loss_curve(metrics)
        >>> ax.get_yscale(), ax.get_xlabel()
        ('log', 'epoch')
    """
    if not metrics:
        raise InputError("metrics is empty: nothing to draw before the first epoch has ended")
    epochs, loss = _column(metrics, ("epoch",)), _column(metrics, ("loss",))
    held_out = _column(metrics, _HELD_OUT_KEYS, needed=False)
    with style.applied():
        ax = style.axes(ax, (6.0, 3.4))
        curves = [(loss, "training loss", style.COLOURS[0])]
        if np.isfinite(held_out).any():
            curves.append((held_out, "held-out error", style.COLOURS[1]))
        ax.margins(x=0.015)
        entries: list[tuple[Artist, str]] = []
        for values, label, colour in curves:
            # One measurement here and there is joined by a line; a failed epoch leaves no point.
            seen = np.isfinite(values) & (values > 0)
            marker = "o" if seen.sum() == 1 else None
            ax.plot(epochs[seen], values[seen], color=colour, linewidth=1.5, marker=marker)
            entries.append((Line2D([], [], color=colour, linewidth=1.5), label))
        if any(len(line.get_xdata()) for line in ax.lines):  # type: ignore[arg-type]
            ax.set_yscale("log")
        entries += _mark_best(ax, epochs, curves[-1], best_epoch)
        stages = next((key for key in _STAGE_KEYS if metrics[0].get(key) is not None), None)
        lift = 0.0
        if stages is not None:
            lift = _mark_stages(ax, epochs, [row.get(stages) for row in metrics], stages)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        ax.set_ylabel("loss" if len(curves) == 1 else "loss and held-out error")
        style.add_to_legend(ax, entries, lift=lift)
    return ax


def losses(trainings: Mapping[str, Sequence[Mapping[str, Any]]], *, ax: Axes | None = None) -> Axes:
    """The loss of several trainings by optimiser step, logarithmic where all are positive.

    Args:
        trainings: the metrics of each by its label: dicts with ``step`` and ``loss``; missing
            values are None or NaN.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.

    Raises:
        InputError: no metrics, or an entry without step or loss.

    Example:
        >>> ax = losses({"adam": [{"step": k, "loss": 1 / k} for k in range(1, 10)]})
        >>> ax.get_yscale(), ax.get_xlabel()
        ('log', 'step')
    """
    if not trainings or not all(trainings.values()):
        raise InputError("a training without metrics: nothing to draw before its first step")
    with style.applied():
        ax = style.axes(ax, (6.0, 3.4))
        entries: list[tuple[Artist, str]] = []
        positive = True
        for i, (label, metrics) in enumerate(trainings.items()):
            steps, loss = _column(metrics, ("step",)), _column(metrics, ("loss",))
            seen = np.isfinite(loss)
            positive = positive and bool((loss[seen] > 0).all())
            colour = style.COLOURS[i % len(style.COLOURS)]
            dashes = style.DASHES[i // len(style.COLOURS) % len(style.DASHES)]
            look: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": 1.3}
            ax.plot(steps[seen], loss[seen], marker="o" if seen.sum() == 1 else None, **look)
            entries.append((Line2D([], [], **look), style.text(label)))
        if positive:
            ax.set_yscale("log")
        ax.margins(x=0.015)
        ax.set_xlabel("step")
        ax.set_ylabel("loss")
        if len(entries) > 1:
            style.add_to_legend(ax, entries)
    return ax


def _column(
    metrics: Sequence[Mapping[str, Any]], keys: tuple[str, ...], *, needed: bool = True
) -> np.ndarray:
    """The values under the first key that occurs, NaN where a row has none, [epochs]."""
    key = next((key for key in keys if any(key in row for row in metrics)), None)
    if needed and (key is None or any(key not in row for row in metrics)):
        raise InputError(f"metrics lack {keys[0]!r}: every entry needs it")
    values = [row.get(key) if key else None for row in metrics]
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _mark_best(
    ax: Axes, epochs: np.ndarray, curve: tuple[np.ndarray, str, str], best_epoch: int | None
) -> list[tuple[Artist, str]]:
    """A star on the curve that decides, at the epoch that was kept."""
    values, _, colour = curve
    if best_epoch is None:
        if not np.isfinite(values).any():
            return []
        best = int(np.nanargmin(values))
    elif best_epoch in epochs:
        best = int(np.flatnonzero(epochs == best_epoch)[-1])
    else:
        raise InputError(f"best_epoch {best_epoch} is not among the epochs of metrics")
    star: dict[str, Any] = {
        "marker": "*",
        "markersize": 13,
        "color": colour,
        "markeredgecolor": "white",
        "linestyle": "none",
    }
    ax.plot(epochs[best], values[best], zorder=5, **star)
    return [(Line2D([], [], **star), f"best epoch ({epochs[best]:g})")]


def _mark_stages(ax: Axes, epochs: np.ndarray, stages: list[Any], name: str) -> float:
    """A line at each change of stage, its value on top; returns the height taken, in points."""
    changes = [i for i in range(1, len(stages)) if stages[i] != stages[i - 1]]
    if not changes:
        return 0.0
    for i in changes:
        ax.axvline(epochs[i] - 0.5, color=style.FAINT, linewidth=0.8, linestyle=":", zorder=0)
    low, high = ax.get_xlim()
    firsts = [0, *changes]
    ends = [*changes, len(epochs)]
    middles, labels, last = [], [], -np.inf
    for first, end in zip(firsts, ends, strict=True):
        middle = 0.5 * (epochs[first] + epochs[end - 1])
        # About 16 short labels fit side by side; a crowded one is left out, its line stays.
        if middle - last >= (high - low) / 16:
            value = stages[first]
            middles.append(middle)
            labels.append(style.text(f"{value:g}" if isinstance(value, int | float) else value))
            last = middle
    top = ax.secondary_xaxis("top")
    top.set_xticks(middles, labels)
    top.tick_params(length=0, labelsize=8, labelcolor=style.FAINT)
    top.spines[:].set_visible(False)
    title = "length of the training window" if name == "window" else "training stage"
    top.set_xlabel(title, fontsize=8, color=style.FAINT)
    return 26.0
