"""Solving the stage equations ``k = f(t, base + c k)`` of implicit methods, row by row.

Simplified Newton iteration: one matrix per row and step, each row until it has converged. Knows
neither tableaus nor step control.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from odeum.eager.control import Tolerance, norm
from odeum.eager.linear import Factorised
from odeum.types import Tensor

SLOW_RATE = 0.01
"""Convergence slower than this asks for a new Jacobian."""


@dataclass(frozen=True)
class Precision:
    """When an iteration has converged.

    Attributes:
        tolerance: the error allowed in a step; None where states are to be right to rounding.
        share: the share of it that the iteration may leave.
        stagnation: an update no larger than this that shrinks no further is rounding, and will do.
        max_iterations: after these it has failed: where steps can shrink, soon.
    """

    tolerance: Tolerance | None
    share: float
    stagnation: float
    max_iterations: int

    @staticmethod
    def within(tolerance: Tolerance | None, dtype: torch.dtype) -> "Precision":
        """For steps that are held to a tolerance, or to rounding where there is none.

        The share is a tenth of what the source recommends: at loose tolerances, what the
        iteration left was seen in the solution.

        Source:
            Hairer & Wanner, Solving Ordinary Differential Equations II (1996), IV.8.
        """
        if tolerance is None:
            return Precision(None, 1.0, 1e4, max_iterations=50)
        rtol = float(torch.as_tensor(tolerance.rtol).min())
        share = max(10 * torch.finfo(dtype).eps / rtol, min(0.003, 0.1 * rtol**0.5))
        return Precision(tolerance, share, share, max_iterations=10)

    def size(self, change: Tensor, y: Tensor, motion: Tensor) -> Tensor:
        """Changes of the stages' states over the allowed ones, [rows, 1]; infinite if not finite.

        Args:
            change: [rows, stages * dim].
            y: the state, [rows, dim].
            motion: how far the stages are from it, [rows, stages * dim].
        """
        if self.tolerance is not None:
            allowed = self.tolerance.scale(y.abs())
        else:
            finfo = torch.finfo(y.dtype)
            reach = torch.maximum(y.abs().amax(-1), motion.abs().amax(-1)).unsqueeze(-1)
            allowed = (10 * finfo.eps * reach + finfo.tiny).expand_as(y)
        stages = change.view(len(y), -1, y.shape[1])
        size = norm((stages / allowed.unsqueeze(1)).flatten(1))
        return torch.where(size.isfinite(), size, torch.inf)


@dataclass(frozen=True)
class Solved:
    """What became of an iteration.

    Attributes:
        k: the derivatives, [rows, stages * dim].
        converged: [rows, 1].
        rate: the slowest convergence seen, [rows, 1].
        n_iterations: [rows].
    """

    k: Tensor
    converged: Tensor
    rate: Tensor
    n_iterations: Tensor


def solve_stages(
    residual: Callable[[Tensor, Tensor | None], Tensor],
    matrix: Factorised,
    guess: Tensor,
    reach: Tensor,
    y: Tensor,
    precision: Precision,
) -> Solved:
    """Finds the ``k`` at which ``residual(k)`` is zero.

    Args:
        residual: ``f(t, base + c k) - k`` of the rows at given positions, all where None.
        matrix: of its derivative, less its sign.
        guess: where to begin, [rows, stages * dim].
        reach: by how much an error in ``k`` moves the state, [rows, 1].
        y: the state that the tolerance is relative to, [rows, dim].
        precision: when it has converged.
    """
    whole = _Iteration.begin(guess, reach, y)
    # The rows that may go on: all at first, fewer whenever most of them are done.
    at: Tensor | None = None
    part = whole
    for _ in range(precision.max_iterations):
        part.advance(residual(part.k, at), matrix, precision)
        n_active = int(part.active.sum())
        if n_active == 0:
            break
        if 2 * n_active <= len(part.k):
            left = part.active.squeeze(-1).nonzero().squeeze(-1)
            if at is not None:
                whole.take(part, at)
            at = left if at is None else at[left]
            part, matrix = part.select(left), matrix.select(left)
    if at is not None:
        whole.take(part, at)
    return Solved(whole.k, whole.converged, whole.slowest, whole.n_iterations.squeeze(-1))


@dataclass
class _Iteration:
    """Rows in the course of an iteration; all [rows, 1] but for ``k`` and ``y``."""

    k: Tensor
    y: Tensor
    reach: Tensor
    last: Tensor
    slowest: Tensor
    active: Tensor
    converged: Tensor
    n_iterations: Tensor

    @staticmethod
    def begin(guess: Tensor, reach: Tensor, y: Tensor) -> "_Iteration":
        zeros = torch.zeros_like(reach)
        return _Iteration(
            k=guess,
            y=y,
            reach=reach,
            last=zeros + torch.inf,
            slowest=zeros,
            active=zeros == 0,
            converged=zeros != 0,
            n_iterations=torch.zeros_like(reach, dtype=torch.int64),
        )

    def advance(self, residual: Tensor, matrix: Factorised, precision: Precision) -> None:
        """One update of the rows that are still active."""
        update = torch.where(self.active, matrix.solve(residual), 0.0)
        self.k = self.k + update
        size = precision.size(self.reach * update, self.y, self.reach * self.k)
        first = self.last.isinf()
        rate = size / self.last
        # What is left after this update, if the updates go on shrinking as they do.
        left = torch.where(first, size, size * rate / (1 - rate).clamp(min=1e-3))
        done = left <= precision.share
        done = done | (~first & (rate > 0.5) & (size <= precision.stagnation))
        failed = size.isinf() | (~done & ~first & (rate >= 2))
        self.n_iterations = self.n_iterations + self.active
        self.converged = self.converged | (done & self.active)
        self.slowest = torch.where(self.active, torch.maximum(self.slowest, rate), self.slowest)
        self.last = size
        self.active = self.active & ~done & ~failed

    def select(self, at: Tensor) -> "_Iteration":
        """Some of the rows."""
        return _Iteration(*(x.index_select(0, at) for x in vars(self).values()))

    def take(self, part: "_Iteration", at: Tensor) -> None:
        """Puts rows back that went on alone."""
        for name in ("k", "slowest", "converged", "n_iterations"):
            setattr(self, name, getattr(self, name).index_copy(0, at, getattr(part, name)))
