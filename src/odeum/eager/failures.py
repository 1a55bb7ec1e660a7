"""What to tell a user whose solve failed: where, why, and what to try."""

import torch

from odeum.eager.records import Failure
from odeum.errors import SolveError
from odeum.solution import Status

_REASONS = {
    Status.MAX_STEPS: "it took {n_tried} steps without arriving, and would go on by {h:.1e}",
    Status.STEP_TOO_SMALL: "its step shrank to {h:.1e}, too small to go on",
    Status.NON_FINITE: "the field or the state became NaN or infinite",
    Status.NOT_CONVERGED: "the equations of an implicit step of {h:.1e} could not be solved",
    Status.ZENO: "its events follow one another ever faster, without end",
}

_ADVICE = {
    Status.MAX_STEPS: (
        'If the problem is stiff, method="rodas5p" or "auto" takes far fewer; if not, try a larger '
        "rtol, bound the field (a tanh in its last layer), or allow more with "
        "step=odeum.StepOptions(max_steps=...)"
    ),
    Status.STEP_TOO_SMALL: (
        "The solution may blow up in finite time, or the field jump or be stiff there: shorten "
        "the span, bound the field (a tanh in its last layer), name times at which it jumps with "
        'breaks=[...], use a larger rtol, or method="auto"'
    ),
    Status.NON_FINITE: (
        "Check the field at that state (a division, log or sqrt outside its domain?), and y0 and "
        "the parameters for NaN; a state that grows without bound wants a shorter span or a "
        "bounded field (a tanh in its last layer)"
    ),
    Status.NOT_CONVERGED: (
        "Take smaller steps with step=odeum.StepOptions(fixed=...), or a method that adapts them, "
        "as kvaerno5 or rodas5p"
    ),
    Status.ZENO: (
        "A jump must lead away from where its event happens; let the row stop (terminal=True) "
        "once what bounces has come to rest"
    ),
}

_ADVICE_IF_IMPLICIT = {
    Status.MAX_STEPS: (
        "A stiff method that needs so many meets a field that jumps, is noisy, or has a tolerance "
        "tighter than it needs: name times at which it jumps with breaks=[...], try a larger rtol, "
        "or allow more with step=odeum.StepOptions(max_steps=...)"
    ),
    Status.STEP_TOO_SMALL: (
        "The solution may blow up in finite time, or the field jump there: shorten the span, "
        "bound the field (a tanh in its last layer), name times at which it jumps with "
        "breaks=[...], or use a larger rtol"
    ),
}
"""Where it is another: stiffness is no reason for a stiff method to fail."""


def solve_error(failure: Failure, n_rows: int) -> SolveError:
    """The error for a row that failed.

    Args:
        failure: where it stopped.
        n_rows: number of rows in the batch, named where there are several.
    """
    where = f"row {failure.row} of {n_rows}" if n_rows > 1 else "the solve"
    reason = _REASONS[failure.status].format(n_tried=failure.n_tried, h=abs(failure.h))
    advice = _ADVICE[failure.status]
    if failure.implicit:
        advice = _ADVICE_IF_IMPLICIT.get(failure.status, advice)
    keep = " To keep the rows that succeed, pass on_failure='mask'." if n_rows > 1 else ""
    return SolveError(
        f"{where} stopped at t = {failure.t:.6g}: {reason}. {_suspect(failure)} {advice}.{keep}"
    )


def _suspect(failure: Failure) -> str:
    """The component that looks worst: the first that is not finite, or the fastest."""
    for name, values in (("y", failure.y), ("dy/dt", failure.k)):
        wrong = (~values.isfinite()).nonzero().flatten()
        if len(wrong):
            i = int(wrong[0])
            return f"There {name}[{i}] = {float(values[i])}."
    i = int(torch.argmax(failure.k.abs()))
    where = "Before that step" if failure.status is Status.NON_FINITE else "There"
    y, k = float(failure.y[i]), float(failure.k[i])
    return f"{where} y[{i}] = {y:.4g} changes at {k:.4g} per time."
