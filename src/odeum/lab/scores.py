"""How good predictions are: RMSE and R² per state, in the data's own units.

A trajectory's start, which every prediction is given, is not scored, nor is what lies before it.
"""

import math

import torch

from odeum.datasets import Trajectories
from odeum.lab.windows import first_complete
from odeum.types import Tensor

Scores = dict[str, dict[str, float]]
"""By state: ``{"rmse": ..., "r2": ...}``."""


def scored_rows(head: Trajectories, data: Trajectories) -> tuple[list[Tensor], list[Tensor]]:
    """Which rows of each trajectory count as in-sample and as held out.

    Args:
        head: what was learned from: the first rows of every trajectory.
        data: the whole trajectories, in the same order.

    Returns:
        Two lists of bool [time], one entry per trajectory.
    """
    in_sample, held_out = [], []
    for known, trajectory in zip(head, data, strict=True):
        rows = torch.arange(len(trajectory))
        after_start = rows > first_complete(trajectory)
        in_sample.append(after_start & (rows < len(known)))
        held_out.append(after_start & (rows >= len(known)))
    return in_sample, held_out


def score(data: Trajectories, predicted: list[Tensor], rows: list[Tensor]) -> Scores:
    """RMSE and R² per state over chosen rows of all trajectories, where there is an observation.

    ``R² = 1 - sum (y - p)² / sum (y - mean y)²``, the mean over the rows scored.

    Args:
        data: what was observed.
        predicted: [time, dim] per trajectory.
        rows: bool [time] per trajectory.

    Returns:
        Scores by state; NaN where nothing was observed or a prediction is not finite, R² also
        where the observations do not vary.

    Example:
        >>> from odeum.datasets import Trajectory
        >>> t = torch.arange(3, dtype=torch.float64)
        >>> data = Trajectories((Trajectory("a", t, t[:, None]),), "t", ("x",))
        >>> score(data, [t[:, None] + 1], [t >= 0])
        {'x': {'rmse': 1.0, 'r2': -0.5}}
    """
    observed = torch.cat([x.y[chosen] for x, chosen in zip(data, rows, strict=True)])
    given = torch.cat([x[chosen] for x, chosen in zip(predicted, rows, strict=True)])
    scores = {}
    for i, name in enumerate(data.state_names):
        seen = ~torch.isnan(observed[:, i])
        y, p = observed[seen, i], given[seen, i]
        squares = float(((y - p) ** 2).sum())
        total = float(((y - y.mean()) ** 2).sum()) if len(y) else 0.0
        known = len(y) > 0 and math.isfinite(squares)
        scores[name] = {
            "rmse": math.sqrt(squares / len(y)) if known else math.nan,
            "r2": 1 - squares / total if known and total > 0 else math.nan,
        }
    return scores
