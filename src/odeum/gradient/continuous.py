"""What the two continuous adjoints share: backpropagation solves an equation backwards in time.

The forward solve is anyone's. Knows neither the equation nor how it gets at the state: a plan
says that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from odeum.eager.outputs import Segments
from odeum.eager.problem import Outcome, Problem
from odeum.errors import InputError
from odeum.gradient.backwards import BackwardSolve, Equation
from odeum.gradient.inputs import Isolated, Weights
from odeum.gradient.observations import observations_of
from odeum.gradient.operation import Inputs, solved
from odeum.types import Tensor


@dataclass(frozen=True)
class Plan:
    """How a solve is to be differentiated.

    Attributes:
        gradient: its name.
        backward: the forward problem with the method and the tolerance of the backward solve.
        equation: makes the equation from the problem, as the backward pass finds it, and from
            what was kept.
        keep: what is to be kept of the steps of the forward solve; None where it need not keep
            them.
    """

    gradient: str
    backward: Problem
    equation: Callable[[Problem, Any], Equation]
    keep: Callable[[list[Segments]], Any] | None = None


def solve(problem: Problem, plan: Callable[[Problem], Plan]) -> Outcome:
    """Solves a problem so that backpropagation solves an adjoint equation.

    Args:
        problem: the problem.
        plan: how, given the problem cut off from where its tensors come from.
    """
    return solved(problem, lambda cut: _Run(cut, plan(cut.problem)))


def check_tolerances(options: Any) -> None:
    """Refuses tolerances that are no positive numbers.

    Args:
        options: with ``rtol`` and ``atol``, None where not given.

    Raises:
        InputError: for anything else.
    """
    for name in ("rtol", "atol"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            kind = type(options).__name__
            raise InputError(f"{kind}({name}={value}): give a positive number")


class _Run:
    """A solve and its adjoint; see :class:`odeum.gradient.operation.Run`."""

    needs_outputs = True

    def __init__(self, cut: Isolated, plan: Plan) -> None:
        self.gradient = plan.gradient
        self._cut = cut
        self._plan = plan
        self._weights = Weights(cut.problem.field.field)

    def solve(self) -> Outcome:
        """Solves it, and keeps of its steps what the plan wants."""
        problem, keep = self._cut.problem, self._plan.keep
        asked = problem if keep is None else replace(problem, dense=True)
        outcome = asked.solve(self._cut.k0)
        self._kept = None if keep is None else keep(outcome.segments)
        self._n_steps = outcome.stats.n_accepted
        self._marked = replace(outcome.marked, y=outcome.marked.y[:0])
        return outcome if problem.dense else replace(outcome, segments=[])

    def pull(
        self,
        outputs: Sequence[Tensor],
        g_ys: Tensor | None,
        g_marked: Tensor | None,
        *,
        wants_times: bool,
    ) -> Inputs:
        """Solves the adjoint."""
        ys, y_marked = outputs
        problem = self._plan.backward
        problem = replace(problem, field=problem.field.with_field(self._weights.restored()))
        equation = self._plan.equation(problem, self._kept)
        solver = BackwardSolve(problem, equation, self._cut.leaves, self._n_steps)
        marked = replace(self._marked, y=y_marked)
        g_y0 = solver.run(observations_of(problem, ys, marked, g_ys, g_marked))
        if g_ys is not None and problem.start is None:
            g_y0 = g_y0 + g_ys[0]
        of_times = solver.of_times(wanted=wants_times)
        if problem.on_backward is not None:
            problem.on_backward(solver.stats())
        return (g_y0, of_times.ts, of_times.start, *solver.g_leaves)
