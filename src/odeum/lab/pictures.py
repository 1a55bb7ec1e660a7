"""The pictures of a run: the fit over the data, the phase portrait, the loss.

Decides what is shown; how it is drawn is for `odeum.plots`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from odeum import plots
from odeum.datasets import Trajectories, Trajectory
from odeum.lab.run import solved
from odeum.lab.windows import first_complete
from odeum.models import LearnedDynamics

FIGURES = "figures"

_MOST_TRAJECTORIES = 4
_MOST_STATES = 6
_FINE = 400
"""Times at which a solution is drawn."""


def draw(
    run_dir: Path,
    model: LearnedDynamics,
    head: Trajectories,
    data: Trajectories,
    metrics: Sequence[dict[str, Any]],
    best_epoch: int,
) -> list[dict[str, str]]:
    """Draw a run into ``figures/``.

    Args:
        run_dir: the run directory.
        model: what was learned.
        head: what it was learned from.
        data: the whole trajectories.
        metrics: the lines of metrics.jsonl.
        best_epoch: the epoch that was kept.

    Returns:
        What summary.json says of each picture: file, title, caption, alt.
    """
    return [*draw_dynamics(run_dir, model, head, data), _loss(run_dir, metrics, best_epoch)]


def draw_dynamics(
    run_dir: Path, model: LearnedDynamics, head: Trajectories, data: Trajectories
) -> list[dict[str, str]]:
    """Draw what was learned into ``figures/``: the fit over the data, the phase portrait.

    Args:
        run_dir: the run directory.
        model: what was learned.
        head: what it was learned from.
        data: the whole trajectories.

    Returns:
        What summary.json says of each picture.
    """
    (run_dir / FIGURES).mkdir(exist_ok=True)
    fine = _refined(data)
    curves = solved(model, fine)
    shown = []
    for i, (known, trajectory) in enumerate(zip(head, data, strict=True)):
        if i == _MOST_TRAJECTORIES:
            break
        shown.append(_fit(run_dir, i, known, trajectory, fine.trajectories[i].t, curves[i], data))
    if data.dim >= 2:
        shown.append(_portrait(run_dir, model, data, curves))
    return shown


def _fit(
    run_dir: Path,
    i: int,
    known: Trajectory,
    trajectory: Trajectory,
    t: torch.Tensor,
    curve: torch.Tensor,
    data: Trajectories,
) -> dict[str, str]:
    n_states = min(data.dim, _MOST_STATES)
    held_out_from = None
    if len(known) < len(trajectory):
        held_out_from = float(known.t[-1] + trajectory.t[len(known)]) / 2
    panels = plots.trajectory_panels(
        t,
        curve[:, :n_states],
        names=data.state_names[:n_states],
        time_name=data.time_name,
        observed=(trajectory.t, trajectory.y[:, :n_states]),
        held_out_from=held_out_from,
        label="learned",
    )
    name = "fit.png" if i == 0 else f"fit_{i + 1}.png"
    plots.save(panels, run_dir / FIGURES / name)
    states = _listed(data.state_names[:n_states])
    of = f" of {trajectory.name}" if len(data) > 1 else ""
    caption = "One solution from the first complete row"
    caption += ", through the shaded rows that were held out." if held_out_from else "."
    if len(data) > _MOST_TRAJECTORIES and i + 1 == _MOST_TRAJECTORIES:
        caption += f" The other {len(data) - _MOST_TRAJECTORIES} trajectories are not drawn."
    return {
        "file": f"{FIGURES}/{name}",
        "title": f"The fit{of}.",
        "caption": caption,
        "alt": f"Observed and learned {states}{of} over {data.time_name}",
    }


def _portrait(
    run_dir: Path, model: LearnedDynamics, data: Trajectories, curves: list[torch.Tensor]
) -> dict[str, str]:
    observed = torch.cat([trajectory.y for trajectory in data])
    lines = torch.cat(curves)
    logs = model.transform.log.cpu()[:2].tolist()
    # Solutions that run away must not shrink the rest: they may widen the window by half.
    limits = [_limits(observed[:, i], lines[:, i], positive=logs[i]) for i in range(2)]
    first = data.trajectories[0]
    ax = plots.phase_portrait(
        _on_device(model),
        xlim=limits[0],
        ylim=limits[1],
        at_t=float(first.t[0]),
        trajectories={"learned": _side_by_side(curves)},
        observed=observed,
        names=data.state_names,
        base=torch.nanmedian(observed, 0).values,
    )
    ax.set(xlim=limits[0], ylim=limits[1])
    plots.save(ax, run_dir / FIGURES / "phase_portrait.png")
    others = data.dim - 2
    caption = "The learned vector field in the data’s own units, its fixed points and solutions."
    if others:
        noun = "state rests at its median" if others == 1 else "states rest at their medians"
        caption = f"{caption} A slice of the field: the other {others} {noun}."
    return {
        "file": f"{FIGURES}/phase_portrait.png",
        "title": "Phase portrait.",
        "caption": caption,
        "alt": f"Streamlines of the learned field over {_listed(data.state_names[:2])}",
    }


def _loss(run_dir: Path, metrics: Sequence[dict[str, Any]], best_epoch: int) -> dict[str, str]:
    known = [{**line, "loss": np.nan if line["loss"] is None else line["loss"]} for line in metrics]
    plots.save(plots.loss_curve(known, best_epoch=best_epoch), run_dir / FIGURES / "loss.png")
    windows = {line["window"] for line in metrics}
    span = "Training windows grow from stage to stage"
    if len(windows) == 1:
        span = f"Every training window spans {windows.pop()} rows"
    return {
        "file": f"{FIGURES}/loss.png",
        "title": "Loss by epoch.",
        "caption": f"{span}; epoch {best_epoch} was kept.",
        "alt": "Training loss and held-out error by epoch",
    }


def _refined(data: Trajectories) -> Trajectories:
    """The same starts, at many times up to the same ends."""
    fine = []
    for trajectory in data:
        start = first_complete(trajectory)
        t = trajectory.t[start:]
        if len(t) > 1:
            t = torch.linspace(float(t[0]), float(t[-1]), max(_FINE, len(t)), dtype=t.dtype)
        y = torch.full((len(t), data.dim), torch.nan, dtype=torch.float64)
        y[0] = trajectory.y[start]
        fine.append(Trajectory(trajectory.name, t, y))
    return Trajectories(tuple(fine), data.time_name, data.state_names, data.group_name)


def _on_device(model: LearnedDynamics) -> Any:
    """The field of pictures, which live on the CPU."""
    like = model.transform.shift

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return model.field_in_data_units(t.to(like), y.to(like)).to(y)

    return field


def _side_by_side(curves: list[torch.Tensor]) -> torch.Tensor:
    """[time, batch, dim], the shorter ones ending in NaN."""
    longest = max(len(curve) for curve in curves)
    padded = [
        torch.cat([x, torch.full((longest - len(x), x.shape[1]), torch.nan, dtype=x.dtype)])
        for x in curves
    ]
    return torch.stack(padded, dim=1)


def _limits(observed: torch.Tensor, line: torch.Tensor, *, positive: bool) -> tuple[float, float]:
    observed = observed[~torch.isnan(observed)]
    low, high = float(observed.min()), float(observed.max())
    room = (high - low) or abs(high) or 1.0
    line = line[~torch.isnan(line)]
    lowest = max(float(line.min()), low - room / 2)
    highest = min(float(line.max()), high + room / 2)
    first, last = min(low, lowest) - 0.08 * room, max(high, highest) + 0.08 * room
    # Logarithms have no field at or below zero.
    return (max(first, 0.2 * low), last) if positive else (first, last)


def _listed(names: Sequence[str]) -> str:
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last
