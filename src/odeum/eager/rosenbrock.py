"""One Rosenbrock step on every row: each stage is one linear system with the row's own Jacobian.

The Jacobian is part of the method: it is evaluated at every step, and backpropagation goes
through it.
"""

import torch

from odeum.eager.dense import Interpolation
from odeum.eager.explicit import combine, weights_of
from odeum.eager.field import RowField
from odeum.eager.jacobian import (
    JacobianFunction,
    integrand_slopes,
    jacobian,
    slope_in_time,
)
from odeum.eager.linear import Factorised
from odeum.eager.recording import is_recorded
from odeum.eager.stepper import Memory, Step, Work
from odeum.tableaus import RosenbrockTableau
from odeum.types import Tensor


class RosenbrockStepper:
    """A Rosenbrock method in the dtype and on the device of a state; see :class:`Stepper`.

    Its memory holds each row's Jacobian, and where it was evaluated: a step that is tried again
    needs no new one.

    Args:
        tableau: the method.
        like: the state.
        given: the user's Jacobian, where there is one.
    """

    implicit = True

    def __init__(
        self, tableau: RosenbrockTableau, like: Tensor, given: JacobianFunction | None
    ) -> None:
        like = like.detach().new_empty(0)
        self.order = tableau.order
        self.error_order: int | None = tableau.error_order
        self.n_evaluations = 0
        self.end_stage: int | None = None
        self.n_extra = 0
        self.dense = Interpolation(tableau.interpolant.weights, tableau.end_weights, like)
        self._given = given
        self._gamma = float(tableau.gamma)
        self._nodes = [float(node) for node in tableau.nodes]
        self._d = [float(d) for d in tableau.d]
        self._a = [weights_of(row, like) for row in tableau.a]
        self._c = [weights_of(row, like) for row in tableau.c]
        self._m = weights_of(tableau.m, like)
        self._m_error = weights_of(tableau.m_error, like)

    def step(
        self, field: RowField, t: Tensor, h: Tensor, y: Tensor, k0: Tensor, memory: Memory
    ) -> Step:
        """Tries one step."""
        ones = torch.ones(len(y), dtype=torch.int64, device=y.device)
        if memory and not is_recorded():
            matrices, slopes, evaluated = memory
            at = (evaluated != t).squeeze(-1).nonzero().squeeze(-1)
            new = torch.zeros_like(ones)
            if len(at):
                part = field if len(at) == len(y) else field.part(at)
                found = self._derivatives_of(part, t[at], y[at])
                matrices, slopes = (
                    old.index_copy(0, at, x)
                    for old, x in zip((matrices, slopes), found, strict=True)
                )
                new[at] = 1
        else:
            matrices, slopes = self._derivatives_of(field, t, y)
            new = ones
        step = self._stages(field, t, h, y, k0, matrices, slopes)
        # The field itself was evaluated at every stage but the first, and for its slope in time.
        work = Work(new + (len(self._nodes) - 1), new, ones)
        memory = (matrices.detach(), slopes.detach(), t.detach())
        return Step(t, h, y, step.y1, step.ks, work=work, memory=memory)

    def _derivatives_of(self, field: RowField, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """``df/dy`` and ``df/dt``, and below them those of the integrands."""
        ty, state, alone = t.to(y.dtype), field.state(y), field.without_integrals()
        matrices = jacobian(alone, ty, state, self._given)
        slopes = slope_in_time(alone, ty, state)
        if field.integrals is None:
            return matrices, slopes
        by_state, by_time = integrand_slopes(field, ty, state)
        return torch.cat([matrices, by_state], 1), torch.cat([slopes, by_time], 1)

    def _stages(
        self,
        field: RowField,
        t: Tensor,
        h: Tensor,
        y: Tensor,
        k0: Tensor,
        matrices: Tensor,
        slopes: Tensor,
    ) -> Step:
        hy = h.to(y.dtype)
        dim = matrices.shape[-1]
        matrix = Factorised.shifted(self._gamma * hy, matrices[:, :dim])
        below = self._gamma * hy.unsqueeze(-1) * matrices[:, dim:]
        ks: list[Tensor] = []
        for node, d, a, c in zip(self._nodes, self._d, self._a, self._c, strict=True):
            if not ks:
                right = k0
            else:
                y_stage = torch.addcmul(y, hy, combine(ks, a)) if a.used else y
                right = field((t + node * h).to(y.dtype), y_stage)
            if c.used:
                right = right + combine(ks, c)
            if d:
                right = torch.addcmul(right, hy, slopes, value=d)
            ks.append(_solved(matrix, below, self._gamma * right))
        return Step(t, h, y, torch.addcmul(y, hy, combine(ks, self._m)), ks)

    def record(
        self,
        field: RowField,
        t: Tensor,
        h: Tensor,
        y: Tensor,
        k0: Tensor,
        ks: list[Tensor],
        *,
        with_end: bool,
    ) -> Step:
        """Takes one step; what was found before is not needed."""
        return self._stages(field, t, h, y, k0, *self._derivatives_of(field, t, y))

    def errors(self, step: Step) -> list[Tensor]:
        """The difference from the embedded solution."""
        return [combine(step.ks, self._m_error) * step.h.to(step.y.dtype)]

    def derivatives(self, ks: list[Tensor], k1: Tensor | None) -> list[Tensor]:
        """The stages."""
        return ks

    def extra_derivatives(
        self,
        field: RowField,
        t: Tensor,
        h: Tensor,
        y: Tensor,
        derivatives: list[Tensor],
    ) -> list[Tensor]:
        """None: the stages are enough."""
        return []


def _solved(matrix: Factorised, below: Tensor, right: Tensor) -> Tensor:
    """The state's part of a stage, and the integrals' that follow from it."""
    dim = below.shape[-1]
    k = matrix.solve(right[:, :dim])
    if dim == right.shape[1]:
        return k
    return torch.cat([k, right[:, dim:] + (below @ k.unsqueeze(-1)).squeeze(-1)], -1)
