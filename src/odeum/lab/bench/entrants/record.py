"""What takes part in a comparison: a solve, ready to be called again and again."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from odeum.lab.bench.workloads import Case
from odeum.types import Tensor


@dataclass(frozen=True)
class Answer:
    """What a solve found.

    Attributes:
        ys: states, [time, batch, dim], float64.
        gradient: of the loss to all parameters, flat, float64; None where not asked for.
    """

    ys: np.ndarray
    gradient: np.ndarray | None = None


@dataclass(frozen=True)
class Entrant:
    """One way to do a workload.

    Attributes:
        name: library and mode, as tables show it.
        run: does all of the work, each time anew; it returns when the work is done.
        answer: what ``run`` found, made comparable; not timed.
        n_threads: of torch while it runs; None for as many as there are.
        baseline: the entrant of odeum that it is compared with.
        variants: other ways with the same name: the fastest is kept.
    """

    name: str
    run: Callable[[], Any]
    answer: Callable[[Any], Answer]
    n_threads: int | None = None
    baseline: str = "odeum"
    variants: tuple["Entrant", ...] = ()


def in_torch(
    name: str, case: Case, solve: Callable[[Case], Tensor], *, n_threads: int | None = None
) -> Entrant:
    """An entrant that solves with torch.

    Args:
        name: of the entrant.
        case: to solve.
        solve: states at the output times, [time, batch, dim].
        n_threads: of torch while it runs; None for as many as there are.
    """
    parameters = tuple(case.field.parameters())

    def learn() -> tuple[Tensor, tuple[Tensor, ...]]:
        ys = solve(case)
        loss = ys.square().mean()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        return ys, gradients

    def forward() -> tuple[Tensor, tuple[Tensor, ...]]:
        with torch.no_grad():
            return solve(case), ()

    def answer(found: tuple[Tensor, tuple[Tensor, ...]]) -> Answer:
        ys, gradients = found
        return Answer(ys.detach().double().numpy(), flat(g.numpy() for g in gradients))

    return Entrant(name, learn if case.workload.gradient else forward, answer, n_threads)


def flat(parts: Iterable[np.ndarray]) -> np.ndarray | None:
    """All numbers of some arrays in one, float64; None where there are no arrays."""
    found = [np.asarray(part, dtype=np.float64).ravel() for part in parts]
    return np.concatenate(found) if found else None
