"""The linear field ``z' = A z`` trained from many starts at once, as one ensemble in one solve.

Owns what happens to starts that blow up: a member whose solve fails or whose loss is not finite is
lost. A training of its own would end there with an error; here its gradient and, from then on, its
weights are not numbers, and the other members do not notice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from odeum.datasets import Trajectory
from odeum.eager.options import StepOptions
from odeum.lab.descent import Descent
from odeum.lab.train import Loss
from odeum.models import Ensemble, LinearField
from odeum.solution import Solution, Status
from odeum.types import Tensor

SOLVER: dict[str, Any] = {"method": "tsit5", "rtol": 1e-4, "atol": 1e-6}
JUDGED: dict[str, Any] = {"gradient": "none", "rtol": 1e-7, "atol": 1e-9}
"""Where a solution grows much, errors grow with it: contours of a landscape would be ragged."""

MAX_STEPS = 2000
"""A start that takes more, as one whose solution decays within a thousandth of a span, is lost: it
must not hold the others up."""


@dataclass(frozen=True, eq=False)
class Spans:
    """Pieces of one trajectory, of one length.

    Attributes:
        y0: the first row of each, [spans, dim].
        ts: times from the first row on, [time].
        targets: the rows, [time, spans, dim].
    """

    y0: Tensor
    ts: Tensor
    targets: Tensor


def cut(trajectory: Trajectory, firsts: Tensor, n_rows: int, device: torch.device) -> Spans:
    """Pieces of a trajectory that is sampled evenly.

    Args:
        trajectory: of one system.
        firsts: the row that each begins with, [spans].
        n_rows: of each.
        device: to put them on.
    """
    rows = firsts + torch.arange(n_rows)[:, None]
    targets = trajectory.y[rows].to(device)
    ts = (trajectory.t[:n_rows] - trajectory.t[0]).to(device)
    return Spans(targets[0], ts, targets)


def ensemble_of(weights: Tensor) -> Ensemble:
    """Linear fields with these matrices, [members, dim, dim]."""
    field = LinearField(weights.shape[-1]).to(weights)
    ensemble = Ensemble(
        [field] * len(weights),
        **SOLVER,
        on_failure="mask",
        step=StepOptions(max_steps=MAX_STEPS),
    )
    with torch.no_grad():
        weights_of(ensemble).copy_(weights)
    return ensemble


def weights_of(ensemble: Ensemble) -> Tensor:
    """The matrices of an ensemble, [members, dim, dim]: its one parameter."""
    return ensemble.stacked()["linear.weight"]


def solve_spans(ensemble: Ensemble, spans: Spans, **changes: Any) -> tuple[Tensor, Solution]:
    """The mean square error of every member over all spans, not a number where a solve failed.

    Args:
        ensemble: the members.
        spans: the same for all of them.
        changes: options of :func:`odeum.solve` in place of those of training.

    Returns:
        Losses [members], and the solution they are from.
    """
    y0 = spans.y0.expand(ensemble.n_members, *spans.y0.shape)
    solution = ensemble.solve(y0, spans.ts, **changes)
    ys = solution.ys.unflatten(1, y0.shape[:2])
    return (ys - spans.targets[:, None]).square().mean((0, 2, 3)), solution


def losses(weights: Tensor, spans: Spans) -> Tensor:
    """The loss of every matrix, [members], by one solve; not a number where a solve failed.

    Args:
        weights: matrices, [members, dim, dim].
        spans: what to be near to.

    Example:
        >>> t = torch.linspace(0, 1, 3, dtype=torch.float64)
        >>> data = Trajectory("still", t, torch.ones(3, 1, dtype=torch.float64))
        >>> spans = cut(data, torch.tensor([0]), 3, torch.device("cpu"))
        >>> losses(torch.tensor([[[0.0]], [[2000.0]]]).double(), spans)
        tensor([0., nan], dtype=torch.float64)
    """
    with torch.no_grad():
        return solve_spans(ensemble_of(weights), spans, **JUDGED)[0]


class Starts(nn.Module):
    """Trainings from many starts that go on side by side.

    Args:
        weights: matrices to start from, [members, dim, dim].
        followed: members whose way is kept, [followed].
        n_epochs: of the training.
        every: epochs between two points of a way.
        clip: largest norm of a member's gradient; None for plain gradient descent.

    Attributes:
        ensemble: the members as they are now.
        lost_at: the epoch in which each was lost, [members]; 0 for those that were not.
        ways: the followed members' matrices, [points, followed, dim, dim], the start first.
        ways_losses: their losses there, [points, followed].
    """

    lost_at: Tensor
    ways: Tensor
    ways_losses: Tensor
    followed: Tensor

    def __init__(
        self, weights: Tensor, followed: Tensor, n_epochs: int, every: int, clip: float | None
    ) -> None:
        super().__init__()
        self.ensemble = ensemble_of(weights)
        self.clip = clip
        self.n_epochs, self.every = n_epochs, every
        n_points = 1 + -(-n_epochs // every)
        device = weights.device
        self.register_buffer("followed", followed.to(device))
        self.register_buffer("lost_at", torch.zeros(len(weights), dtype=torch.long, device=device))
        # Part of the state: a study that is resumed still has the whole ways to draw.
        shape = (n_points, len(followed))
        self.register_buffer("ways", weights.new_full((*shape, *weights.shape[1:]), torch.nan))
        self.register_buffer("ways_losses", weights.new_full(shape, torch.nan))
        self._epoch = 0
        self._losses = weights.new_zeros(len(weights))

    @property
    def weights(self) -> Tensor:
        """The matrices as they are now, [members, dim, dim]."""
        return weights_of(self.ensemble)

    def descent(
        self,
        optimiser: torch.optim.Optimizer,
        batch: Callable[[int, torch.Generator], Spans],
        judged: Spans,
        learned_below: float,
    ) -> Descent:
        """How all members are trained: each by its own loss and its own gradient.

        Args:
            optimiser: of this module's parameters, which looks at each number by itself.
            batch: the spans of an epoch.
            judged: the spans on which losses are compared.
            learned_below: the loss from which on a member counts as one that has learned.
        """

        def draw(step: int, generator: torch.Generator) -> Spans:
            self._epoch = step + 1
            if step == 0:
                self._keep_point(0, losses(self.weights.detach(), judged))
            return batch(step, generator)

        def loss(spans: Spans) -> Loss:
            each, solution = solve_spans(self.ensemble, spans)
            self._losses = each.detach()
            total = torch.where(torch.isfinite(each), each, 0.0).sum()
            return Loss(
                total,
                int((solution.status != Status.SUCCESS).sum()),
                int(solution.stats.n_evaluations.max()),
                engine=solution.engine,
            )

        def evaluate() -> dict[str, float]:
            now = losses(self.weights, judged)
            self._keep_point(-(-self._epoch // self.every), now)
            return {
                "n_lost": float((~torch.isfinite(now)).sum()),
                "n_learned": float((now < learned_below).sum()),
            }

        return Descent(
            optimiser,
            self.n_epochs,
            draw,
            loss,
            adjust=self.mend_gradients,
            every=self.every,
            evaluate=evaluate,
        )

    def mend_gradients(self) -> None:
        """Mark lost members' gradients as no numbers, and clip each of the others' by itself."""
        gradient = self.weights.grad
        assert gradient is not None
        lost = ~torch.isfinite(self._losses)
        self.lost_at[lost & (self.lost_at == 0)] = self._epoch
        gradient[lost] = torch.nan
        if self.clip is not None:
            norm = _norms(gradient)
            gradient *= (self.clip / norm).clamp(max=1.0)[:, None, None]

    def _keep_point(self, point: int, now: Tensor) -> None:
        self.ways[point] = self.weights.detach()[self.followed]
        self.ways_losses[point] = now[self.followed]


def _norms(matrices: Tensor) -> Tensor:
    """Euclidean norms [n] of [n, dim, dim]; squares of what is above 1e154 would overflow."""
    largest = matrices.abs().amax((1, 2)).clamp(min=torch.finfo(matrices.dtype).tiny)
    return largest * torch.linalg.vector_norm(matrices / largest[:, None, None], dim=(1, 2))
