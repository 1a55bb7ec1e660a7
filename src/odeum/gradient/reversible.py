"""The exact gradient of reversible steps, in memory that the number of steps hardly adds to.

Owns the options; eager/reversible.py takes the steps, way_back.py undoes them and pulls them back.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from odeum import methods
from odeum.eager.problem import Outcome, Problem
from odeum.eager.reversible import ReversibleRungeKutta
from odeum.errors import InputError
from odeum.gradient.inputs import Isolated, Weights
from odeum.gradient.operation import Inputs, solved
from odeum.gradient.way_back import Trail, WayBack
from odeum.types import Tensor

GROWTH = 10.0
"""Factor by which the coupling alone may let rounding grow before the solutions are joined."""


@dataclass(frozen=True)
class Reversible:
    """``gradient="reversible"`` with options of its own.

    The solve is of another kind: a second solution goes beside the first, and each step of the
    two can be undone. It has the order of the explicit Runge-Kutta method it is made of, takes
    twice its evaluations a step, and the gradient of its steps is exact. Going back, rounding
    grows by ``1 / coupling`` a step and as the field contracts; where the field contracts, the
    solutions come apart. So they are joined where they differ by more than the error allowed in
    one step (also where steps are fixed), and every ``interval`` steps; two states are kept
    there. If rounding has grown too far nevertheless, the gradient is refused. Dense output
    carries no gradient.

    Attributes:
        coupling: how much of the difference of the two solutions is left after a step, in (0, 1).
            Nearer to 1, rounding grows less; farther, they come apart less.
        interval: most steps from one joint to the next; where None, those in which the coupling
            alone lets rounding grow 10 times, 229 for 0.99.

    Raises:
        InputError: for a number out of range; when solving, for methods of another kind.

    Source:
        McCallum & Foster, Efficient, Accurate and Stable Gradients for Neural ODEs (2024).

    Example:
        >>> import torch
        >>> import odeum
        >>> y0 = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
        >>> gradient = odeum.gradient.Reversible(coupling=0.999)
        >>> sol = odeum.solve(lambda t, y: -y, y0, torch.tensor([0.0, 1.0]), gradient=gradient)
        >>> sol.ys[-1].sum().backward()
        >>> y0.grad
        tensor([[0.3679]], dtype=torch.float64)
    """

    coupling: float = 0.99
    interval: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.coupling < 1:
            raise InputError(
                f"Reversible(coupling={self.coupling}): give a number between 0 and 1, as 0.99"
            )
        if self.interval is not None and self.interval < 1:
            raise InputError(f"Reversible(interval={self.interval}): give 1 or more steps, or None")

    def __call__(self, problem: Problem) -> Outcome:
        """Solves a problem so that backpropagation goes back through its steps."""
        problem = replace(problem, method=self._reversible(problem))
        return solved(problem, _Run)

    def _reversible(self, problem: Problem) -> ReversibleRungeKutta:
        method = problem.method
        if not isinstance(method, methods.ExplicitRungeKutta):
            raise InputError(
                "the reversible gradient needs an explicit Runge-Kutta method: use "
                'method="tsit5" or another of those, or gradient="discrete"'
            )
        return ReversibleRungeKutta(
            method.tableau,
            method.controller,
            coupling=self.coupling,
            interval=self.interval or max(1, int(math.log(GROWTH) / -math.log(self.coupling))),
            tolerance=problem.tolerance,
        )


class _Run:
    """A solve and the way back; see :class:`odeum.gradient.operation.Run`."""

    gradient = "reversible"
    needs_outputs = False

    def __init__(self, cut: Isolated) -> None:
        self._cut = cut
        self._trail = Trail(cut.problem.y0)
        self._weights = Weights(cut.problem.field.field)

    def solve(self) -> Outcome:
        """Solves it, and remembers the way."""
        return self._cut.problem.solve(self._cut.k0, self._trail)

    def pull(
        self,
        outputs: Sequence[Tensor],
        g_ys: Tensor | None,
        g_marked: Tensor | None,
        *,
        wants_times: bool,
    ) -> Inputs:
        """Goes the way back."""
        problem = self._cut.problem
        problem = replace(problem, field=problem.field.with_field(self._weights.restored()))
        way = WayBack(problem, self._trail, self._cut.leaves, wants_times)
        g_y0 = way.run(g_ys, g_marked)
        if problem.on_backward is not None:
            problem.on_backward(way.stats())
        of_times = way.of_times
        return (g_y0, of_times.ts, of_times.start, *way.of_leaves.gradients)
