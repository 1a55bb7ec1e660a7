"""How well a learned system follows a chaotic one: for how long, and with what statistics.

Nearby solutions part exponentially, so that a forecast is judged by how long it stays close, and
what comes after by how often states are visited. Knows no particular system or model.
"""

import numpy as np
import torch
from scipy.stats import wasserstein_distance

from odeum.types import Tensor


def forecast_error(predicted: Tensor, true: Tensor, spread: Tensor) -> Tensor:
    """RMS over the components of the error in units of their spread, [time, batch].

    Args:
        predicted: [time, batch, dim].
        true: likewise.
        spread: standard deviation of each component on the attractor, [dim].
    """
    return ((predicted - true) / spread).square().mean(-1).sqrt()


def valid_times(error: Tensor, ts: Tensor, threshold: float) -> Tensor:
    """The first time at which each forecast is off by more than a threshold, [batch].

    A forecast that is never off counts to the last time, one that failed (NaN) to its failure.

    Args:
        error: [time, batch], see :func:`forecast_error`.
        ts: [time], from 0.
        threshold: in units of the spread.

    Source:
        Vlachas, Byeon, Wan, Sapsis & Koumoutsakos, Data-driven forecasting of high-dimensional
        chaotic systems with long short-term memory networks, Proc. R. Soc. A 474 (2018).

    Example:
        >>> error = torch.tensor([[0.0, 0.0], [0.1, 0.1], [0.5, 0.2]])
        >>> valid_times(error, torch.tensor([0.0, 1.0, 2.0]), threshold=0.4)
        tensor([2., 2.])
        >>> valid_times(error, torch.tensor([0.0, 1.0, 2.0]), threshold=0.15)
        tensor([2., 2.])
        >>> valid_times(error, torch.tensor([0.0, 1.0, 2.0]), threshold=0.05)
        tensor([1., 1.])
    """
    lost = ~(error <= threshold)
    first = torch.where(lost.any(0), lost.int().argmax(0), len(ts) - 1)
    return ts[first]


def distances(states: Tensor, reference: Tensor, spread: Tensor) -> Tensor:
    """How far the distribution of each component is from that of a reference, [dim].

    The 1-Wasserstein distance in units of the spread: how far, on average, values have to be moved
    to turn one histogram into the other.

    Args:
        states: [n, dim].
        reference: [m, dim].
        spread: [dim].

    Example:
        >>> x = torch.linspace(0, 1, 101)[:, None]
        >>> distances(x + 0.5, x, torch.tensor([2.0]))
        tensor([0.2500])
    """
    return torch.tensor(
        [
            wasserstein_distance(x.numpy(), y.numpy())
            for x, y in zip((states / spread).T, (reference / spread).T, strict=True)
        ],
        dtype=states.dtype,
    )


def maxima(values: Tensor) -> list[Tensor]:
    """The local maxima of each row over time, in order, by the parabola through three points.

    Args:
        values: [time, batch], at equal steps.

    Returns:
        A tensor per row.

    Example:
        >>> t = torch.linspace(0, 12, 121)
        >>> [f"{x:.3f}" for x in maxima((2 * t.sin())[:, None])[0].tolist()]
        ['2.000', '2.000']
    """
    before, here, after = values[:-2], values[1:-1], values[2:]
    curvature = before - 2 * here + after
    peak = here - (after - before).square() / (8 * curvature)
    found = (here > before) & (here >= after)
    return [row[where] for row, where in zip(peak.T, found.T, strict=True)]


def return_map(values: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Each maximum and the next one, over all rows.

    Args:
        values: [time, batch], at equal steps.

    Source:
        Lorenz, Deterministic nonperiodic flow, J. Atmos. Sci. 20 (1963), figure 4.
    """
    rows = maxima(values)
    earlier, later = [x[:-1] for x in rows], [x[1:] for x in rows]
    return torch.cat(earlier).numpy(), torch.cat(later).numpy()
