"""Windows of trajectories as one batch: every row a window with times of its own.

Owns how trajectories are cut, padded and masked. Knows neither models nor losses. A window starts
at a complete row, since a solve starts from a whole state; empty cells stay NaN in its targets.
"""

from dataclasses import dataclass

import torch

from odeum.datasets import Trajectories, Trajectory
from odeum.errors import DataError
from odeum.types import Tensor

_PADDING = 1e-3
"""Padded times follow the last one at this fraction of the mean gap: nearly no extra solving."""


@dataclass(frozen=True)
class Windows:
    """Initial value problems with what was observed along them.

    Attributes:
        y0: the complete states they start from, [batch, dim].
        ts: their times, [time, batch], strictly increasing; padded where a window is shorter.
        targets: the observations, [time, batch, dim]; NaN where empty, padded or the start itself.
    """

    y0: Tensor
    ts: Tensor
    targets: Tensor

    def __len__(self) -> int:
        """The number of windows."""
        return len(self.y0)

    def choose(self, n_windows: int, generator: torch.Generator) -> "Windows":
        """At most ``n_windows`` of them, drawn without replacement."""
        if len(self) <= n_windows:
            return self
        rows = torch.randperm(len(self), generator=generator)[:n_windows].to(self.y0.device)
        return Windows(self.y0[rows], self.ts[:, rows], self.targets[:, rows])

    def to(self, dtype: torch.dtype, device: torch.device) -> "Windows":
        """States in ``dtype`` on ``device``; times stay float64, years have many digits."""
        y0, targets = (x.to(dtype=dtype, device=device) for x in (self.y0, self.targets))
        return Windows(y0, self.ts.to(device), targets)


def cut(data: Trajectories, length: int) -> Windows:
    """Every window of ``length`` rows that starts at a complete row and has something to match.

    A trajectory without any such window gives one from its first complete row to its end.

    Args:
        data: trajectories with at least one complete row each.
        length: rows per window, at least 2.

    Returns:
        The windows, those of a trajectory side by side.

    Raises:
        DataError: if nothing is observed after any complete row.

    Example:
        >>> t = torch.arange(4, dtype=torch.float64)
        >>> data = Trajectories((Trajectory("a", t, t[:, None] ** 2),), "t", ("x",))
        >>> windows = cut(data, 3)
        >>> windows.y0.tolist(), windows.ts.T.tolist()
        ([[0.0], [1.0]], [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    """
    pieces = []
    for trajectory in data:
        starts = trajectory.complete.nonzero().flatten().tolist()
        cuts = [slice(s, s + length) for s in starts if s + length <= len(trajectory)]
        cuts = cuts or [slice(s, len(trajectory)) for s in starts[:1] if s + 1 < len(trajectory)]
        pieces += [(trajectory.t[rows], trajectory.y[rows]) for rows in cuts]
    matched = [(t, y) for t, y in pieces if not torch.isnan(y[1:]).all()]
    if not matched:
        raise DataError("no observation follows a complete row: there is nothing to learn from")
    return _stacked(matched)


def whole(data: Trajectories) -> Windows:
    """One window per trajectory, from its first complete row to its end.

    Args:
        data: the trajectories.

    Returns:
        The windows, in the order of the trajectories.

    Raises:
        DataError: if a trajectory has no complete row; the message names it.
    """
    starts = [first_complete(trajectory) for trajectory in data]
    return _stacked([(x.t[start:], x.y[start:]) for x, start in zip(data, starts, strict=True)])


def first_complete(trajectory: Trajectory) -> int:
    """The index of the first row with every state observed.

    Args:
        trajectory: any.

    Raises:
        DataError: if there is none.
    """
    rows = trajectory.complete.nonzero()
    if not len(rows):
        raise DataError(
            f"trajectory {trajectory.name!r} has no row with every state observed: a solve needs "
            "one to start from"
        )
    return int(rows[0])


def _stacked(pieces: list[tuple[Tensor, Tensor]]) -> Windows:
    """Windows of different lengths side by side, the shorter ones padded."""
    longest = max(2, *(len(t) for t, _ in pieces))
    y0 = torch.stack([y[0] for _, y in pieces])
    ts = torch.stack([_padded_times(t, longest) for t, _ in pieces], dim=1)
    targets = torch.full((longest, len(pieces), y0.shape[1]), torch.nan, dtype=y0.dtype)
    for row, (_, y) in enumerate(pieces):
        targets[1 : len(y), row] = y[1:]
    return Windows(y0, ts, targets)


def _padded_times(t: Tensor, length: int) -> Tensor:
    gap = float(t[-1] - t[0]) / (len(t) - 1) if len(t) > 1 else 1.0
    extra = torch.arange(1, length - len(t) + 1, dtype=t.dtype)
    return torch.cat([t, t[-1] + _PADDING * gap * extra])
