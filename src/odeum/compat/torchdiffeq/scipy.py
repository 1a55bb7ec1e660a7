"""``scipy_solver``: SciPy's solvers, which odeum has as methods of its own."""

import math

from odeum.api import solve
from odeum.compat.torchdiffeq.call import Call
from odeum.compat.torchdiffeq.errors import StepError
from odeum.compat.torchdiffeq.options import ScipyOptions, read
from odeum.eager.options import StepOptions
from odeum.errors import SolveError
from odeum.types import Tensor


def scipy_states(call: Call) -> Tensor:
    """The states at the output times, [time, dim]; no gradient reaches them, as in torchdiffeq."""
    options = read(ScipyOptions, call.options)
    try:
        solution = solve(
            call.field,
            call.y0,
            call.t,
            method=f"scipy:{options.solver}",
            rtol=call.rtol,
            atol=call.atol,
            gradient="none",
            step=StepOptions(
                min=options.min_step or None,
                max=None if options.max_step == math.inf else options.max_step,
            ),
        )
    except SolveError as error:
        raise StepError(str(error)) from error
    return solution.ys
