"""What the landscape experiment surveys: data, starts along lines, and spans to judge them on.

Owns what a start is and how it is trained, beside the others (by `starts`) and alone. What is drawn
and told of it is not known here.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch

from odeum.api import solve
from odeum.datasets import Trajectory, sample
from odeum.errors import InputError, SolveError
from odeum.lab import specs
from odeum.lab.experiments.starts import SOLVER, Spans, Starts, cut, losses
from odeum.lab.study import Study
from odeum.models import LinearField
from odeum.systems import spiral
from odeum.types import Tensor

FOLLOWED: dict[str, list[tuple[int, Sequence[float]]]] = {
    "extreme": [(0, (-15.0, 18.0))],
    "near": [(1, (-4.0, -2.0, 2.0, 4.0)), (2, (-4.0, -2.0, 2.0, 4.0)), (4, (-4.0, -2.0, 2.0, 4.0))],
}
"""Starts whose ways are kept, to be drawn: pairs of a sweep's number and shifts."""


@dataclass(frozen=True)
class LandscapeOptions:
    """Options of ``landscape``.

    Raises:
        InputError: for a value outside its range.
    """

    epochs: Annotated[int, "optimiser steps of every training"] = 500
    learning_rate: Annotated[float, "of stochastic gradient descent"] = 0.01
    momentum: Annotated[float, "of stochastic gradient descent"] = 0.95
    clip: Annotated[float, "largest gradient norm of the trainings that are clipped"] = 1.0
    n_spans: Annotated[int, "spans of the trajectory in every batch"] = 8
    longest: Annotated[float, "longest span, in units of time; the shortest is a quarter"] = 2.0
    n_times: Annotated[int, "observations of the trajectory"] = 200
    noise: Annotated[float, "standard deviation of the noise; the spiral starts at radius 2"] = 0.02
    n_slice: Annotated[int, "points along each side of a slice"] = 81
    thin: Annotated[int, "take every so-many-th start of each sweep"] = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "n_spans", "thin"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give at least 1")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}: give a positive number")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum is {self.momentum}: give a number from 0 to below 1")
        if self.noise < 0:
            raise InputError(f"noise is {self.noise}: give a number of at least 0")
        if self.n_slice < 2:
            raise InputError(f"n_slice is {self.n_slice}: give at least 2")
        gap = span_of_time() / (self.n_times - 1) if self.n_times > 1 else torch.inf
        if not 4 * gap <= self.longest <= span_of_time() / 2:
            raise InputError(
                f"longest is {self.longest} and n_times {self.n_times}: give spans of at least "
                f"four observations and at most half the trajectory's {span_of_time():g}"
            )


@dataclass(frozen=True, eq=False)
class Sweep:
    """Starts along a line.

    Attributes:
        name: of the line, as figures and tables have it.
        pattern: which entries are shifted, 0 or 1, [2, 2].
        alpha: by how much, [starts].
    """

    name: str
    pattern: Tensor
    alpha: Tensor

    def starts(self, start: Tensor) -> Tensor:
        """The matrices, [starts, 2, 2]."""
        return start + self.alpha[:, None, None] * self.pattern


def sweeps(thin: int = 1) -> list[Sweep]:
    """The five sweeps; whole, they have 375 starts, both ends of every range among them.

    Args:
        thin: take every so-many-th start of each.

    Example:
        >>> [len(sweep.alpha) for sweep in sweeps()]
        [81, 81, 81, 31, 101]
    """
    everything = torch.ones(2, 2, dtype=torch.float64)
    first, second = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    return [
        Sweep("all entries", everything, _range(-20, 20, 80)[::thin]),
        Sweep("first column", first.expand(2, 2), _range(-20, 20, 80)[::thin]),
        Sweep("second column", second.expand(2, 2), _range(-20, 20, 80)[::thin]),
        Sweep("all entries, 17 to 23", everything, _range(17, 23, 30)[::thin]),
        Sweep("all entries, −5 to 5", everything, _range(-5, 5, 100)[::thin]),
    ]


class Survey:
    """The data, the starts, and what losses are judged on.

    Attributes:
        trajectory: what is learned from.
        judged: the spans that losses are compared on, spread over it.
        still: the loss of a solution that is zero.
        learned_below: a start has learned where its loss is below: all but 1% is explained.
        start: the matrix that is shifted, [2, 2].
        sweeps: by how much, and along which lines.
        starts: all matrices to start from, [members, 2, 2].
        every: epochs between two points that are kept of a way.
        reference: the least shifted member, which is trained alone, too.
        followed: the members whose ways are kept, by what they are drawn as.
    """

    def __init__(self, options: LandscapeOptions, study: Study) -> None:
        self.options, self.study = options, study
        data = sample(
            spiral(), n_times=options.n_times, noise=options.noise, seed=study.setting.seed
        )
        self.trajectory: Trajectory = data.trajectories[0]
        gap = span_of_time() / (options.n_times - 1)
        self.longest = round(options.longest / gap) + 1
        self.shortest = max(2, round(options.longest / gap / 4) + 1)
        self.judged = self.cut(torch.arange(0, options.n_times - self.longest + 1, 12))
        self.still = float(self.judged.targets.square().mean())
        self.learned_below = self.still / 100
        field = specs.draw_weights(lambda: LinearField(2), study.setting.seed)
        self.start = field.linear.weight.detach().double().to(study.device)
        self.sweeps = sweeps(options.thin)
        self.starts = torch.cat([x.starts(self.start.cpu()) for x in self.sweeps]).to(study.device)
        self.every = max(1, min(5, options.epochs // 4))
        alphas = torch.cat([sweep.alpha for sweep in self.sweeps])
        self.reference = int(alphas.abs().argmin())
        self.followed = {kind: self._members(*where) for kind, where in FOLLOWED.items()}

    def cut(self, firsts: Tensor, n_rows: int | None = None) -> Spans:
        """Spans of the trajectory, of the longest kind if not told otherwise."""
        return cut(self.trajectory, firsts, n_rows or self.longest, self.study.device)

    def batch(self, step: int, generator: torch.Generator) -> Spans:
        """Spans that begin anywhere, all of one random length: the same for every start."""
        n_rows = int(torch.randint(self.shortest, self.longest + 1, (), generator=generator))
        n_firsts = self.options.n_times - n_rows + 1
        firsts = torch.randint(n_firsts, (self.options.n_spans,), generator=generator)
        return self.cut(firsts, n_rows)

    def optimiser(self, parameters: Any) -> torch.optim.Optimizer:
        """Stochastic gradient descent as the options say."""
        options = self.options
        return torch.optim.SGD(parameters, lr=options.learning_rate, momentum=options.momentum)

    def train(self, kind: str, clip: float | None) -> tuple[Starts, float]:
        """All starts trained side by side, and how many seconds it took."""
        members = [i for members in self.followed.values() for i in members]
        followed = torch.tensor(members, dtype=torch.long)
        trained = Starts(self.starts, followed, self.options.epochs, self.every, clip)
        descent = trained.descent(
            self.optimiser(trained.parameters()), self.batch, self.judged, self.learned_below
        )
        return trained, self.study.learn(kind, trained, descent).seconds

    def train_alone(self) -> dict[str, Any]:
        """The least shifted start trained by itself, as anyone would: how long, and to where."""
        field = LinearField(2).to(self.start)
        with torch.no_grad():
            field.linear.weight.copy_(self.starts[self.reference])
        optimiser = self.optimiser(field.parameters())
        generator = torch.Generator().manual_seed(self.study.setting.seed)
        # A kernel is compiled in the second solve: what is to be measured comes after.
        for _ in range(2):
            solve(field, self.judged.y0, self.judged.ts, **SOLVER).ys.sum().backward()
        began = time.perf_counter()
        for step in range(self.options.epochs):
            spans = self.batch(step, generator)
            optimiser.zero_grad()
            try:
                ys = solve(field, spans.y0, spans.ts, **SOLVER).ys
            except SolveError:
                field.linear.weight.data.fill_(torch.nan)
                break
            (ys - spans.targets).square().mean().backward()
            optimiser.step()
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "weights": field.linear.weight.detach()}

    def rows(self, kind: str) -> list[int]:
        """Where the followed starts of a kind stand among all that are followed."""
        first = 0 if kind == "extreme" else len(self.followed["extreme"])
        return list(range(first, first + len(self.followed[kind])))

    def judge(self, weights: Tensor) -> Tensor:
        """The losses of matrices [n, 2, 2] by which they are compared, [n]."""
        return losses(weights.detach(), self.judged).cpu()

    def _members(self, *wanted: tuple[int, Sequence[float]]) -> list[int]:
        """Members of sweeps, by number, that have one of these shifts."""
        found, first = [], 0
        for place, sweep in enumerate(self.sweeps):
            shifts = [x for which, shifts in wanted if which == place for x in shifts]
            for i, alpha in enumerate(sweep.alpha.tolist()):
                if any(abs(alpha - shift) < 1e-9 for shift in shifts):
                    found.append(first + i)
            first += len(sweep.alpha)
        return found

    def split(self, values: Tensor) -> list[Tensor]:
        """Values of all members, [members], sweep by sweep."""
        return list(values.split([len(sweep.alpha) for sweep in self.sweeps]))


def _range(first: float, last: float, n: int) -> Tensor:
    """``n`` equal steps, both ends among them; exact where the numbers are."""
    return torch.tensor([first + (last - first) * i / n for i in range(n + 1)], dtype=torch.float64)


def true_matrix() -> Tensor:
    """The matrix of the spiral, [2, 2]."""
    return torch.tensor(spiral().constants["a"], dtype=torch.float64)


def span_of_time() -> float:
    """How long the trajectory is."""
    begin, end = spiral().span
    return end - begin
