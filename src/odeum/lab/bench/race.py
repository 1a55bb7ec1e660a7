"""Entrants take turns in one process; ratios are taken within a round, accuracy is told beside.

A machine that changes its speed meanwhile changes it for all. A turn of a short solve is several
calls, of which the median counts, so that what the one before left in the caches does not.
"""

import gc
import math
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from odeum.lab.bench.entrants.record import Answer, Entrant
from odeum.lab.bench.threads import threads

TURN = 0.05
"""Seconds that a turn of short solves takes."""

MOST_CALLS = 50
"""In a turn."""

LONG, FEW = 20.0, 3
"""Who has had so many seconds of turns gets no more of them, after a few."""

WRONG = 10.0
"""An entrant whose error is so many times odeum's has won nothing."""


@dataclass(frozen=True)
class Result:
    """How an entrant did.

    Attributes:
        name: of the entrant.
        seconds: of each round.
        ratios: of each round: these seconds over those of odeum.
        error: of the gradient where the workload has one, of states otherwise; relative.
        wrong: whether it is so much less accurate than odeum that its time says nothing.
        failure: why it could not take part; empty otherwise.
    """

    name: str
    seconds: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()
    error: float = math.nan
    wrong: bool = False
    failure: str = ""

    @property
    def ms(self) -> float:
        """Median milliseconds."""
        return 1e3 * statistics.median(self.seconds)

    @property
    def ratio(self) -> float:
        """How many times faster odeum is: the median of the rounds' ratios; NaN if it failed."""
        return statistics.median(self.ratios) if self.ratios else math.nan


@dataclass
class _Runner:
    """An entrant that is ready."""

    entrant: Entrant
    n_calls: int
    error: float
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)


def race(entrants: Sequence[Entrant], reference: Answer, n_rounds: int) -> list[Result]:
    """Lets everyone do the same work in turn.

    Args:
        entrants: who takes part; one is called "odeum".
        reference: what is right.
        n_rounds: turns for each.

    Returns:
        One result for each entrant, in their order. Who fails is left out of the rounds.
    """
    runners: dict[str, _Runner] = {}
    failures: dict[str, str] = {}
    for entrant in entrants:
        try:
            runners[entrant.name] = _ready(entrant, reference)
        except Exception as error:  # other people's code: what it raises is told, not known
            failures[entrant.name] = f"{type(error).__name__}: {error}".splitlines()[0]
    for i in range(n_rounds):
        seconds: dict[str, float] = {}
        for name, runner in runners.items():
            if i < FEW or sum(runner.seconds) < LONG:
                gc.collect()
                seconds[name] = _turn(runner)
        for name, turn in seconds.items():
            runners[name].seconds.append(turn)
            if (baseline := runners[name].entrant.baseline) in seconds:
                runners[name].ratios.append(turn / seconds[baseline])
    return [
        Result(entrant.name, failure=failures[entrant.name])
        if entrant.name in failures
        else _result(runners, entrant.name)
        for entrant in entrants
    ]


def error_of(answer: Answer, reference: Answer) -> float:
    """Relative, in the norm of all numbers: of the gradient if there is one, else of the states.

    Args:
        answer: of an entrant.
        reference: what is right; of states it may have the first rows only.

    Returns:
        The error; infinite where a number is not finite.

    Example:
        >>> error_of(Answer(np.full((1, 1, 1), 1.5)), Answer(np.ones((1, 1, 1))))
        0.5
    """
    if reference.gradient is not None and answer.gradient is not None:
        found, exact = answer.gradient, reference.gradient
    else:
        found, exact = answer.ys[:, : reference.ys.shape[1]], reference.ys
    if not np.isfinite(found).all():
        return math.inf
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def _ready(entrant: Entrant, reference: Answer) -> _Runner:
    """The fastest variant, warmed up; one that fails, such as for want of a compiler, is none."""
    runners = [_warm(entrant, reference)]
    for variant in entrant.variants:
        with suppress(Exception):
            runners.append(_warm(variant, reference))
    if len(runners) == 1:
        return runners[0]
    return min(runners, key=lambda runner: (math.isinf(runner.error), _turn(runner)))


def _warm(entrant: Entrant, reference: Answer) -> _Runner:
    with threads(entrant.n_threads):
        error = error_of(entrant.answer(entrant.run()), reference)
        seconds = _seconds(entrant)
    return _Runner(entrant, max(1, min(MOST_CALLS, int(TURN / seconds))), error)


def _turn(runner: _Runner) -> float:
    with threads(runner.entrant.n_threads):
        return statistics.median(_seconds(runner.entrant) for _ in range(runner.n_calls))


def _seconds(entrant: Entrant) -> float:
    start = time.perf_counter()
    entrant.run()
    return time.perf_counter() - start


def _result(runners: dict[str, _Runner], name: str) -> Result:
    runner = runners[name]
    baseline = runners.get(runner.entrant.baseline)
    # Written so that an error that is not a number is wrong too.
    wrong = baseline is not None and not runner.error <= WRONG * baseline.error
    return Result(name, tuple(runner.seconds), tuple(runner.ratios), runner.error, wrong)
