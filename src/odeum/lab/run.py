"""A run that has learned something: its model, its numbers, and predictions from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import nn

from odeum.datasets import Trajectories, Trajectory
from odeum.errors import DataError, InputError
from odeum.lab import directory, specs
from odeum.lab.files import read_checkpoint
from odeum.lab.windows import first_complete, whole
from odeum.models import LearnedDynamics, StateTransform
from odeum.types import Tensor

SUMMARY = "summary.json"

_MOST_EXTRA_ROWS = 1_000_000


class Finished(Protocol):
    """What every experiment leaves behind."""

    @property
    def path(self) -> Path:
        """The run directory."""

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json says."""


@dataclass(frozen=True, eq=False)
class Run:
    """What a run directory holds, in memory.

    Attributes:
        path: the run directory.
        model: the learned dynamics, ``model(y0, ts) -> ys`` in the data's own units, with the
            weights of the best epoch.
        summary: what summary.json says; empty if the run has not finished.
        config: what config.json says.
        data: what it learned from.
    """

    path: Path
    model: LearnedDynamics
    summary: dict[str, Any]
    config: dict[str, Any]
    data: Trajectories

    def predict(self, data: Trajectories | None = None, until: float | None = None) -> pd.DataFrame:
        """Predictions as a table; see :func:`odeum.lab.predict`."""
        return predict(self, data, until)


def load(run_dir: str | Path, model: nn.Module | None = None) -> Run:
    """Read a run back, its model rebuilt from config.json and checkpoint.pt.

    Args:
        run_dir: the run directory.
        model: a field like the one that was learned; needed only where that was a module of the
            user's own. Its weights are replaced.

    Returns:
        The run.

    Raises:
        InputError: if this is no run directory, a file is damaged, or the model cannot be rebuilt.
    """
    folder = Path(run_dir)
    config = directory.read_config(folder)
    data = directory.read_data(folder, config)
    state = read_checkpoint(folder)
    weights = state["best"] or state["model"]
    field = model if model is not None else specs.build_field(config["model"])
    learned = specs.build_model(field, StateTransform.identity(data.dim), config["solver"])
    learned.to(weights["transform.shift"].dtype)
    try:
        learned.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"the checkpoint of {folder} does not fit the model: {error}") from error
    summary = directory.read_object(folder / SUMMARY) if (folder / SUMMARY).is_file() else {}
    return Run(folder, learned, summary, config, data)


def predict(
    run: Run | str | Path, data: Trajectories | None = None, until: float | None = None
) -> pd.DataFrame:
    """Predictions at the data's times, each trajectory solved from its first complete row.

    Args:
        run: a run, or its directory.
        data: where to start and at which times to predict; what the run learned from if None.
        until: go on beyond each trajectory's last time to this one, with its median spacing.

    Returns:
        The data's columns: group if any, time, states; NaN before a trajectory's first complete
        row, and after a solve failed.

    Raises:
        InputError: if ``until`` is not finite or would take more than a million rows.
        DataError: if the data's states are others than the run's, a trajectory has no complete
            row, or starts from a state that is not positive though it was learned as a logarithm.
    """
    run = run if isinstance(run, Run) else load(run)
    data = run.data if data is None else data
    if data.state_names != run.data.state_names:
        raise DataError(
            f"the run learned the states {', '.join(run.data.state_names)}; the data has "
            f"{', '.join(data.state_names)}"
        )
    asked = data if until is None else extended(data, until)
    predicted = [
        Trajectory(x.name, x.t, y) for x, y in zip(asked, solved(run.model, asked), strict=True)
    ]
    return Trajectories(
        tuple(predicted), data.time_name, data.state_names, data.group_name, data.source
    ).to_frame()


def solved(model: LearnedDynamics, data: Trajectories) -> list[Tensor]:
    """The model's states at the times of each trajectory, from its first complete row.

    Args:
        model: in the data's units.
        data: the trajectories.

    Returns:
        [time, dim] per trajectory, float64 on the CPU; the first complete row as observed, NaN
        before it and after a solve failed.

    Raises:
        DataError: if a trajectory has no complete row, or one the model cannot start from.
    """
    windows = whole(data).to(model.transform.shift.dtype, model.transform.shift.device)
    startable = torch.isfinite(model.transform.encode(windows.y0)).all(-1)
    for trajectory, usable in zip(data, startable.tolist(), strict=True):
        if not usable:
            raise DataError(
                f"trajectory {trajectory.name!r} starts from a state that is not positive, but the "
                "run learned its logarithm, as all it learned from was positive"
            )
    with torch.no_grad():
        solution = model.solve(windows.y0, windows.ts, gradient="none", on_failure="mask")
        ys = model.transform.decode(solution.ys).to("cpu", torch.float64)
    predictions = []
    for i, trajectory in enumerate(data):
        start = first_complete(trajectory)
        after = ys[1 : len(trajectory) - start, i]
        before = torch.full((start, data.dim), torch.nan, dtype=torch.float64)
        after = torch.where(torch.isfinite(after), after, torch.nan)
        predictions.append(torch.cat([before, trajectory.y[start : start + 1], after]))
    return predictions


def extended(data: Trajectories, until: float) -> Trajectories:
    """Trajectories with empty rows up to ``until``, at the median spacing of their times.

    Args:
        data: the trajectories.
        until: the time to reach; those that reach it already stay as they are.

    Raises:
        InputError: if ``until`` is not finite or would take more than a million rows.
    """
    if not np.isfinite(until):
        raise InputError(f"until is {until}: give a finite time")
    longer = []
    for trajectory in data:
        gap = float(trajectory.t.diff().median()) if len(trajectory) > 1 else 1.0
        # The allowance lets rounding not cost the last row.
        n_extra = max(0.0, np.floor((until - float(trajectory.t[-1])) / gap + 1e-9))
        if n_extra > _MOST_EXTRA_ROWS:
            raise InputError(
                f"predicting until {until:g} takes {n_extra:.0f} rows of {gap:g} each: give a time "
                "closer to the data"
            )
        t = trajectory.t[-1] + gap * torch.arange(1, int(n_extra) + 1, dtype=torch.float64)
        empty = torch.full((len(t), data.dim), torch.nan, dtype=torch.float64)
        longer.append(
            Trajectory(
                trajectory.name, torch.cat([trajectory.t, t]), torch.cat([trajectory.y, empty])
            )
        )
    return Trajectories(
        tuple(longer), data.time_name, data.state_names, data.group_name, data.source
    )
