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

SLOW_RATE = 0.1
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

        Source:
            Hairer & Wanner, Solving Ordinary Differential Equations II (1996), IV.8.
        """
        if tolerance is None:
            return Precision(None, 1.0, 1e4, max_iterations=50)
        rtol = float(torch.as_tensor(tolerance.rtol).min())
        share = max(10 * torch.finfo(dtype).eps / rtol, min(0.03, rtol**0.5))
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
    k = guess
    rows = torch.arange(len(y), device=y.device)
    n_iterations = torch.zeros_like(rows)
    converged = torch.zeros_like(reach, dtype=torch.bool)
    slowest = torch.zeros_like(y[:, :1])
    last = torch.full_like(slowest, torch.inf)
    at: Tensor | None = None  # the rows that go on; None for all
    for _ in range(precision.max_iterations):
        here = rows if at is None else at
        update = matrix.solve(residual(k if at is None else k[at], at), at)
        k = k + update if at is None else k.index_add(0, at, update)
        size = precision.size(reach[here] * update, y[here], reach[here] * k[here])
        first = last[here].isinf()
        rate = size / last[here]
        # What is left after this update, if the updates go on shrinking as they do.
        left = torch.where(first, size, size * rate / (1 - rate).clamp(min=1e-3))
        done = left <= precision.share
        done = done | (~first & (rate > 0.5) & (size <= precision.stagnation))
        failed = size.isinf() | (~done & ~first & (rate >= 2))
        n_iterations[here] += 1
        converged[here] = done
        slowest[here] = torch.maximum(slowest[here], rate)
        last[here] = size
        going = (~done & ~failed).squeeze(-1)
        if not bool(going.any()):
            break
        if not bool(going.all()):
            at = here[going]
    return Solved(k, converged, slowest, n_iterations)
