"""What a learned model has to beat: the last value repeated, and a linear ODE.

Both learn from the heads alone and predict every row. They know nothing of networks.
"""

import numpy as np
import torch
from scipy.optimize import least_squares

from odeum.datasets import Trajectories
from odeum.errors import DataError
from odeum.lab.windows import cut, first_complete
from odeum.types import Tensor

_MOST_REFINED_DIM = 6
_MOST_REFINED_ROWS = 2000
_FAR = 1e3
"""Residuals, in standard deviations, are cut here, so that a runaway start can be improved."""


def last_value(head: Trajectories, data: Trajectories) -> list[Tensor]:
    """The last value observed before each row; in the tail, the last one of the head.

    In-sample this looks one row ahead, which makes it a harder rival there than on the tail.

    Args:
        head: what was learned from: the first rows of every trajectory.
        data: the whole trajectories, in the same order.

    Returns:
        [time, dim] per trajectory; NaN where nothing was observed before.

    Example:
        >>> from odeum.datasets import Trajectory
        >>> t = torch.arange(4, dtype=torch.float64)
        >>> data = Trajectories((Trajectory("a", t, 10 * t[:, None]),), "t", ("x",))
        >>> last_value(data.split(0.5)[0], data)[0].flatten().tolist()
        [nan, 0.0, 10.0, 10.0]
    """
    predictions = []
    for known, trajectory in zip(head, data, strict=True):
        last = torch.full((data.dim,), torch.nan, dtype=torch.float64)
        rows = []
        for k, y in enumerate(trajectory.y):
            rows.append(last)
            if k < len(known):
                last = torch.where(torch.isnan(y), last, y)
        predictions.append(torch.stack(rows))
    return predictions


def linear_ode(head: Trajectories, data: Trajectories) -> tuple[list[Tensor], Tensor, Tensor]:
    """``dy/dt = A y + b`` fitted to the heads by least squares, solved from the first complete row.

    First on the integrals over two-row windows (trapezoid rule), which is a linear problem; then,
    for up to 6 states and 2000 rows, on the solutions themselves, by Levenberg-Marquardt steps
    from there.

    Args:
        head: what was learned from: the first rows of every trajectory.
        data: the whole trajectories, in the same order.

    Returns:
        Predictions [time, dim] per trajectory (NaN before the start), ``A`` [dim, dim] and ``b``
        [dim], in the data's units.
    """
    observed = torch.cat([trajectory.y for trajectory in head]).numpy()
    centre = torch.from_numpy(np.nanmean(observed, 0))
    scale = torch.from_numpy(np.nanstd(observed, 0))
    scale = torch.where(scale > 0, scale, 1.0)
    generator = _matched_integrals(head, centre, scale)
    starts = [first_complete(trajectory) for trajectory in data]

    def solved(matrix: Tensor, t: Tensor, start: int, y0: Tensor) -> Tensor:
        """States [time, dim] of the augmented system ``d(z, 1)/dt = matrix (z, 1)``."""
        z0 = torch.cat([(y0 - centre) / scale, torch.ones(1, dtype=torch.float64)])
        after = t[start:] - t[start]
        z = (torch.matrix_exp(matrix * after[:, None, None]) @ z0)[:, :-1]
        before = torch.full((start, len(y0)), torch.nan, dtype=torch.float64)
        return torch.cat([before, centre + scale * z])

    def residuals(weights: np.ndarray) -> np.ndarray:
        matrix = _augmented(torch.from_numpy(weights).reshape(len(centre), -1))
        errors = []
        for known, start in zip(head, starts, strict=True):
            error = (solved(matrix, known.t, start, known.y[start]) - known.y) / scale
            seen = ~torch.isnan(known.y)
            seen[: start + 1] = False
            errors.append(error[seen])
        return torch.cat(errors).nan_to_num(_FAR).clamp(-_FAR, _FAR).numpy()

    if len(centre) <= _MOST_REFINED_DIM and len(observed) <= _MOST_REFINED_ROWS:
        start_weights = generator.flatten().numpy()
        if len(residuals(start_weights)):
            refined = least_squares(residuals, start_weights, max_nfev=60)
            generator = torch.from_numpy(refined.x).reshape(generator.shape)
    matrix = _augmented(generator)
    predictions = [
        solved(matrix, x.t, start, x.y[start]) for x, start in zip(data, starts, strict=True)
    ]
    slope = scale[:, None] * generator[:, :-1] / scale
    return predictions, slope, scale * generator[:, -1] - slope @ centre


def _matched_integrals(head: Trajectories, centre: Tensor, scale: Tensor) -> Tensor:
    """``[A b]`` [dim, dim + 1] in normalised states, from ``z1 - z0 = A (z0 + z1)/2 dt + b dt``."""
    try:
        windows = cut(head, 2)
    except DataError:
        return torch.zeros(len(centre), len(centre) + 1, dtype=torch.float64)
    both = ~torch.isnan(windows.targets[1]).any(-1)
    z0, z1 = ((y[both] - centre) / scale for y in (windows.y0, windows.targets[1]))
    dt = windows.ts.diff(dim=0)[0, both, None]
    rates = (z1 - z0) / dt
    inputs = torch.cat([(z0 + z1) / 2, torch.ones_like(dt)], dim=1)
    return torch.linalg.lstsq(inputs, rates, driver="gelsd").solution.T


def _augmented(generator: Tensor) -> Tensor:
    """``[A b]`` with the row of zeros that keeps the constant 1 constant."""
    return torch.cat([generator, torch.zeros_like(generator[:1])])
