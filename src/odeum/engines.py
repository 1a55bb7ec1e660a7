"""Which engine solves a problem: the fused one where it can and once it pays, else the eager one.

Compiling a kernel takes about a second, an eager solve milliseconds. So under ``engine="auto"`` a
kernel is compiled for a field that is met the second time, or whose first solve turns out to be
long; one that is in memory or on disk is used at once.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from odeum.eager.problem import Outcome, Problem
from odeum.errors import InputError, TraceError
from odeum.gradient import adjoint, discrete
from odeum.gradient.registry import Gradient, without_gradient
from odeum.solution import Solution
from odeum.types import Tensor

if TYPE_CHECKING:
    from odeum.compile.engine import Prepared

Made = TypeVar("Made")

LONG = 1000
"""Tried steps after which a solve is better compiled than waited for."""

CHECK_INTERVAL = 16
"""Tried steps between the eager loop's reports of progress."""


@dataclass(frozen=True)
class Solved:
    """A solved problem.

    Attributes:
        outcome: what came out.
        engine: which engine ran.
        reason: why that one.
        prepared: what the fused engine made of the problem, where it ran.
    """

    outcome: Outcome
    engine: str
    reason: str
    prepared: "Prepared | None" = None


class _TakesLong(Exception):
    """An eager solve has tried so many steps that a kernel is worth compiling."""


def kind_of(engine: str, field: Any, y0: Any, ts: Any, *options: Any) -> Any:
    """What solves alike have in common; None where a solve must be looked at from the ground up.

    Args:
        engine: the one asked for.
        field: the user's field.
        y0: the user's initial state.
        ts: the user's output times.
        options: everything else.
    """
    if engine == "eager" or (engine == "auto" and not compiles_unasked()):
        return None
    return _again().kind_of(field, y0, ts, *options)


def solve_again(*arguments: Any, raises: bool) -> Solution | None:
    """Solves what is like a solve before, see :func:`odeum.compile.again.solve`."""
    return _again().solve(*arguments, raises=raises)


@cache
def _again() -> ModuleType:
    from odeum.compile import again  # loaded when used: it brings LLVM

    return again


def remember(kind: Any, solved: Solved, gradient: Gradient) -> None:
    """Keeps what a solve by the fused engine leaves behind for others like it."""
    if solved.prepared is not None:
        _again().remember(kind, solved.prepared, gradient=gradient is not without_gradient)


def compiles_unasked() -> bool:
    """Whether ``engine="auto"`` may compile: not where the environment says otherwise."""
    return os.environ.get("ODEUM_ENGINE") != "eager"


def solve(problem: Problem, gradient: Gradient, engine: str) -> Solved:
    """Solves a problem without events or breaks.

    Args:
        problem: the problem.
        gradient: how it is differentiated.
        engine: "auto", "eager" or "fused".

    Raises:
        TraceError: where the fused engine is asked for and cannot take the problem.
    """
    if engine == "auto" and not compiles_unasked():
        return _eagerly(problem, gradient, "the environment says ODEUM_ENGINE=eager")
    if engine == "eager":
        return _eagerly(problem, gradient, 'asked for with engine="eager"')
    if engine == "fused":
        return _fused(_prepared(problem, gradient), gradient, 'asked for with engine="fused"')
    prepared = _attempted(lambda: _prepared(problem, gradient))
    if isinstance(prepared, str):
        return _eagerly(problem, gradient, prepared)
    if prepared.is_large:
        why = "the field is large, and torch's own kernels take all rows at once"
        return _eagerly(problem, gradient, why)
    reason = "the field is compiled"
    if not prepared.is_ready():
        watched = replace(problem, on_progress=_Patience(problem.on_progress))
        try:
            why = "a field is compiled when it is solved a second time"
            return _eagerly(watched, gradient, why)
        except _TakesLong:
            reason = f"the field is compiled, for its first solve takes more than {LONG} steps"
    kernel = _attempted(prepared.kernel)
    if isinstance(kernel, str):
        return _eagerly(problem, gradient, kernel)
    return _fused(prepared, gradient, reason)


def _attempted(make: Callable[[], Made]) -> Made | str:
    """What is made, or why it cannot be: whatever goes wrong, the eager engine still solves."""
    try:
        return make()
    except TraceError as error:
        return str(error)
    except InputError:
        raise
    except Exception as error:
        return f"the field could not be compiled: {type(error).__name__}: {error}"


def _eagerly(problem: Problem, gradient: Gradient, reason: str) -> Solved:
    return Solved(gradient(problem), "eager", reason)


def _fused(prepared: "Prepared", gradient: Gradient, reason: str) -> Solved:
    if not _solves_backwards(gradient):
        return Solved(prepared.solve(), "fused", reason, prepared)
    outcome = gradient(replace(prepared.problem, native=_natively))
    return Solved(outcome, "fused", f"{reason}; the adjoint is solved by the eager engine")


def _solves_backwards(gradient: Gradient) -> bool:
    """Whether a gradient wants nothing of the forward solve but states."""
    return gradient is adjoint.solve or isinstance(gradient, adjoint.Adjoint)


def _natively(problem: Problem) -> Outcome:
    return _prepared(problem, without_gradient).solve()


def _prepared(problem: Problem, gradient: Gradient) -> "Prepared":
    exact = gradient == discrete.solve
    if not (exact or gradient is without_gradient or _solves_backwards(gradient)):
        raise refusal('the fused engine has gradient="discrete", "adjoint" and "none"')
    from odeum.compile import engine as fused  # loaded when used: it brings LLVM

    why = fused.why_not(problem)
    if why is not None:
        raise refusal(why)
    return fused.Prepared(problem, gradient=exact)


def refusal(why: str) -> TraceError:
    """The error for a solve that the fused engine cannot take, whatever its field is."""
    return TraceError(f'{why}: leave engine="auto", or give "eager"', operation="solve")


class _Patience:
    """Counts the steps of an eager solve, and has enough of them at some point."""

    def __init__(self, on_progress: Callable[[Tensor, Tensor], None] | None) -> None:
        self._on_progress = on_progress
        self._n_reports = 0

    def __call__(self, rows: Tensor, t: Tensor) -> None:
        self._n_reports += 1
        if self._n_reports * CHECK_INTERVAL >= LONG:
            raise _TakesLong
        if self._on_progress is not None:
            self._on_progress(rows, t)
