"""The bi-directional spirals of Chen et al. 2018: noisy pieces of two curves in the plane.

Owns the curves and the random choices, all from a generator of its own.
"""

import math
from dataclasses import dataclass

import torch

from odeum.errors import InputError
from odeum.types import Tensor

T_END = 6 * math.pi
"""Where both curves end; they start at 0."""

N_GRID = 500
"""Times of the grid on which both curves are sampled, both ends included."""


@dataclass(frozen=True, eq=False)
class Spirals:
    """Noisy pieces of the two spirals, observed at shared times since the start of each.

    Attributes:
        ts: times since the start of each piece, [time].
        ys: noisy observations, [time, batch, 2].
        t0: where on its curve each piece starts, [batch].
        clockwise: which way it turns, bool [batch].

    Example:
        >>> data = spirals(10)
        >>> data.ys.shape, int(data.clockwise.sum())
        (torch.Size([100, 10, 2]), 5)
        >>> ts, ys = data.observe(30)
        >>> ts.shape, ys.shape
        (torch.Size([30, 10]), torch.Size([30, 10, 2]))
    """

    ts: Tensor
    ys: Tensor
    t0: Tensor
    clockwise: Tensor

    def __len__(self) -> int:
        """The number of pieces."""
        return len(self.t0)

    def truth(self, ts: Tensor) -> Tensor:
        """The curves themselves, [time, batch, 2]; NaN before their start and after their end.

        Args:
            ts: times since the start of each piece, [time]; negative before it.
        """
        t = self.t0 + ts[:, None]
        # A grid's last time is the curve's end up to rounding.
        on_curve = (t > -1e-4) & (t < T_END + 1e-4)
        clockwise = _archimedean(15 / (T_END + 1 - t), T_END + 1 - t, -5.0)
        counter_clockwise = _archimedean(0.3 * t, t, 5.0)
        curve = torch.where(self.clockwise[:, None], clockwise, counter_clockwise)
        return curve.masked_fill(~on_curve[..., None], torch.nan)

    def observe(self, n_observed: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Observations at some of the times, drawn for each piece without replacement.

        Args:
            n_observed: how many of each piece, from 1 to all of them.
            seed: of the generator.

        Returns:
            Their times since the start of the piece, increasing, [n_observed, batch], and what
            was observed, [n_observed, batch, 2].

        Raises:
            InputError: for a number outside that range.
        """
        if not 1 <= n_observed <= len(self.ts):
            raise InputError(f"n_observed is {n_observed}: give 1 to {len(self.ts)} observations")
        generator = torch.Generator().manual_seed(seed)
        ranks = torch.rand(self.ys.shape[:2], generator=generator, dtype=torch.float64).argsort(0)
        places = ranks[:n_observed].sort(0).values.to(self.ys.device)
        return self.ts[places], self.ys.gather(0, places[..., None].expand(-1, -1, 2))

    def rows(self, which: slice) -> "Spirals":
        """Some of the pieces.

        Args:
            which: a slice of the batch.
        """
        return Spirals(self.ts, self.ys[:, which], self.t0[which], self.clockwise[which])


def spirals(n: int = 1000, *, n_times: int = 100, noise: float = 0.3, seed: int = 0) -> Spirals:
    """Pieces of a clockwise and of a counter-clockwise spiral, each starting somewhere else.

    The curves, over t in [0, 6 pi], are those of the authors' code: radius ``0.3 t`` at angle ``t``
    around (5, 0), and, with ``s = 6 pi + 1 - t``, radius ``15 / s`` at angle ``s`` around (-5, 0).
    A grid of 500 times lies on them. A piece is ``n_times`` grid times in a row, starting at least
    ``n_times`` after the grid's start.

    Args:
        n: how many, half of them clockwise, in random order.
        n_times: observations of each, from 1 to 250.
        noise: standard deviation of the Gaussian noise in both components; the radii go from 0.8
            to 15.
        seed: of the generator.

    Returns:
        The pieces, in torch's default dtype.

    Raises:
        InputError: for a number outside its range.

    Source:
        Chen, Rubanova, Bettencourt & Duvenaud, Neural Ordinary Differential Equations (2018),
        section 5.1, with the authors' released example. There the direction of each is drawn, so
        that only about half are clockwise.

    Example:
        >>> data = spirals(4, noise=0.0)
        >>> torch.allclose(data.truth(data.ts), data.ys, atol=1e-4)
        True
    """
    if n < 1 or not 1 <= n_times <= N_GRID // 2 or noise < 0:
        raise InputError(
            f"n is {n}, n_times {n_times} and noise {noise}: give at least 1 spiral, 1 to "
            f"{N_GRID // 2} times, and a noise of at least 0"
        )
    generator = torch.Generator().manual_seed(seed)
    grid = torch.linspace(0, T_END, N_GRID, dtype=torch.float64)
    clockwise = (torch.arange(n) % 2 == 0)[torch.randperm(n, generator=generator)]
    start = torch.randint(n_times, N_GRID - n_times, (n,), generator=generator)
    normal = torch.randn(n_times, n, 2, generator=generator, dtype=torch.float64)
    pieces = Spirals(grid[:n_times], normal, grid[start], clockwise)
    dtype = torch.get_default_dtype()
    ys = pieces.truth(pieces.ts) + noise * normal
    return Spirals(pieces.ts.to(dtype), ys.to(dtype), pieces.t0.to(dtype), clockwise)


def _archimedean(radius: Tensor, angle: Tensor, centre: float) -> Tensor:
    """Points at a radius and angle around (centre, 0)."""
    return torch.stack([radius * angle.cos() + centre, radius * angle.sin()], dim=-1)
