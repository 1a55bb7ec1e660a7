"""A noisy trajectory, smoothed, and two ways to learn a field from it: slopes, and windows.

Slopes cost no solve, which makes them a good beginning (gradient matching); but a filter blurs
them. Windows are solved from smoothed states and held against the observations themselves. Knows no
particular system, and not how it is trained.
"""

from dataclasses import dataclass

import torch
from scipy.signal import savgol_filter

from odeum.lab.train import Loss
from odeum.models import LearnedDynamics
from odeum.types import Tensor

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
"""Of solves in training: what the solver is off by, the field would learn to make up for."""


@dataclass(frozen=True, eq=False)
class Smoothed:
    """An evenly sampled trajectory in the units that a model learns in.

    Attributes:
        observed: states as they were observed, [time, dim].
        states: smoothed, [time, dim].
        slopes: their derivatives, [time, dim].
        gap: time between two rows.
    """

    observed: Tensor
    states: Tensor
    slopes: Tensor
    gap: float

    @classmethod
    def of(cls, observed: Tensor, spacing: float, model: LearnedDynamics) -> "Smoothed":
        """Fits polynomials through five and seven rows (Savitzky and Golay 1964).

        Args:
            observed: [time, dim], in the data's units, at least 7 rows.
            spacing: time between two rows, in the data's units.
            model: it gives units and device.

        Example:
            >>> from odeum.models import LinearField, StateTransform
            >>> t = 0.1 * torch.arange(20.0)
            >>> model = LearnedDynamics(LinearField(1), StateTransform.identity(1))
            >>> smoothed = Smoothed.of(t[:, None] ** 2, 0.1, model)
            >>> torch.allclose(smoothed.slopes, 2 * t[:, None].double(), atol=1e-5)
            True
        """
        transform = model.transform
        gap = spacing / float(transform.t_scale)
        z = transform.encode(observed.to(transform.shift))
        values = z.cpu().numpy()
        states = savgol_filter(values, 5, 3, axis=0)
        slopes = savgol_filter(values, 7, 4, deriv=1, delta=gap, axis=0)
        states, slopes = (torch.from_numpy(x).to(z) for x in (states, slopes))
        return cls(z, states, slopes, gap)

    def slope_loss(self, model: LearnedDynamics, rows: Tensor) -> Tensor:
        """Mean square error of the field at smoothed states against their slopes.

        Args:
            model: what is learned; its field may not depend on the time.
            rows: which states, [rows].
        """
        return (model.field(0.0, self.states[rows]) - self.slopes[rows]).square().mean()

    def window_loss(self, model: LearnedDynamics, rows: Tensor, n_rows: int) -> Loss:
        """Mean square error of solutions from smoothed states against what was observed.

        Args:
            model: likewise.
            rows: where the windows begin, [windows].
            n_rows: of each, its first one included, which does not count.
        """
        offsets = torch.arange(n_rows, device=rows.device)
        ts = self.gap * offsets.to(self.states.dtype)
        solution = model.ode.solve(self.states[rows], ts, **TOLERANCE)
        targets = self.observed[rows + offsets[1:, None]]
        value = (solution.ys[1:] - targets).square().mean()
        return Loss(value, n_evaluations=int(solution.stats.n_evaluations.max()))
