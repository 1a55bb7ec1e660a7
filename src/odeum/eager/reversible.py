"""An algebraically reversible step made of two explicit Runge-Kutta steps, on every row.

Beside the state ``y`` goes a second solution ``z`` of the same problem. With ``F_h(t, x)`` the
state that the explicit method reaches from ``x``, a step is
``y1 = F_h(t, z) + lambda (y - z)``, ``z1 = z + y1 - F_-h(t + h, y1)``: from ``(y1, z1)`` follow
``z`` and ``y`` again, each by one explicit step. Knows nothing of gradients.
"""

from dataclasses import dataclass

import torch

from odeum.eager import explicit
from odeum.eager.control import Tolerance, norm
from odeum.eager.dense import Interpolation
from odeum.eager.field import RowField
from odeum.eager.stepper import Memory, Step
from odeum.eager.steppers import stepper_of
from odeum.methods import ExplicitRungeKutta
from odeum.types import Tensor


@dataclass(frozen=True, kw_only=True)
class ReversibleRungeKutta(ExplicitRungeKutta):
    """The reversible form of an explicit Runge-Kutta method.

    Where a field contracts, ``y`` and ``z`` come apart at the rate of the contraction. So they
    are joined again, ``z = y``, as soon as that exceeds the error allowed in one step.

    Attributes:
        coupling: ``lambda``, how much of ``y - z`` is left after a step, in (0, 1).
        interval: steps after which they are joined in any case.
        tolerance: how far they may come apart.
    """

    coupling: float
    interval: int
    tolerance: Tolerance


@dataclass(frozen=True)
class Pair:
    """What goes beside the state from step to step.

    Attributes:
        t: where the last step started, [rows, 1]; a row that is there still has rejected it.
        z0: the second solution there, [rows, dim].
        age0: steps since it was the state itself, [rows, 1].
        z1: the second solution at the step's end, [rows, dim].
        z: the one to go on with: ``z1``, or the state where the two are joined, [rows, dim].
        age: steps since they were, [rows, 1].
    """

    t: Tensor
    z0: Tensor
    age0: Tensor
    z1: Tensor
    z: Tensor
    age: Tensor

    def memory(self) -> Memory:
        """The same as a stepper hands it on."""
        return (self.t, self.z0, self.age0, self.z1, self.z, self.age)


class ReversibleStepper:
    """A tableau's reversible form; see :class:`~odeum.eager.stepper.Stepper`.

    A step's ``ks`` are the slope ``(1 - lambda) (z - y) / h``, the stages of the step from ``z``
    and ``f(t1, y1)``; its memory is a :class:`Pair`. The dense output is the explicit method's
    from ``z``, shifted to start at ``y`` and to end at ``y1``; it has the same order.

    Args:
        method: the method.
        like: states, [rows, dim].

    Source:
        McCallum & Foster, Efficient, Accurate and Stable Gradients for Neural ODEs (2024).

    Example:
        >>> from odeum.tableaus import EXPLICIT
        >>> from odeum.tree import structure_of
        >>> y, t, h = torch.ones(1, 1), torch.zeros(1, 1), torch.full((1, 1), 0.1)
        >>> field = RowField(lambda t, y: -y, structure_of(y), None, joint=False)
        >>> method = ReversibleRungeKutta(
        ...     EXPLICIT["rk4"], coupling=0.99, interval=100, tolerance=Tolerance(1e-3, 1e-3)
        ... )
        >>> halves = ReversibleStepper(method, y)
        >>> step = halves.step(field, t, h, y, field(t, y), ())
        >>> z = halves.z_before(step.y1, Pair(*step.memory).z1, halves.back(field, t, h, step.y1))
        >>> z, halves.y_before(step.y1, z, halves.forth(field, t, h, z, with_end=False))
        (tensor([[1.]]), tensor([[1.]]))
    """

    implicit = False

    def __init__(self, method: ReversibleRungeKutta, like: Tensor) -> None:
        like = like.detach()
        tableau = method.tableau
        self.coupling = method.coupling
        self._interval = method.interval
        self._tolerance = method.tolerance
        self._explicit = base = explicit.stepper(tableau, like.dtype, like.device)
        self._ends_with_stage = base.end_stage is not None
        self.n_stages = tableau.n_stages
        self.order = base.order
        self.error_order = base.error_order
        self.n_evaluations = 2 * tableau.n_stages - self._ends_with_stage
        self.end_stage: int | None = tableau.n_stages + 1
        self.n_extra = base.n_extra + (not self._ends_with_stage)
        weights = tableau.interpolant.weights
        no_powers = [0] * (max(len(row) for row in weights) - 1)
        self._b = explicit.weights_of(tableau.b, like)
        self.dense = Interpolation([[1, *no_powers], *weights], [1, *tableau.end_weights], like)

    def step(
        self, field: RowField, t: Tensor, h: Tensor, y: Tensor, k0: Tensor, memory: Memory
    ) -> Step:
        """Tries one step."""
        z, age = y, torch.zeros_like(t, dtype=torch.int64)
        if memory:
            last = Pair(*memory)
            rejected = t == last.t
            z = torch.where(rejected, last.z0, last.z)
            age = torch.where(rejected, last.age0, last.age)
        forth = self.forth(field, t, h, z, with_end=True)
        y1 = forth.y1 + self.coupling * (y - z)
        back = self.back(field, t, h, y1)
        z1 = z + (y1 - back.y1)
        apart = self._gap(field.state(y1), field.state(z1))
        joined = (apart > 1) | (age + 1 >= self._interval)
        z_next = torch.where(joined, y1, z1)
        age_next = torch.where(joined, 0, age + 1)
        ks = [self.slope(h, y, z), *forth.ks, back.ks[0]]
        return Step(t, h, y, y1, ks, memory=Pair(t, z, age, z1, z_next, age_next).memory())

    def _gap(self, y: Tensor, z: Tensor) -> Tensor:
        """How far the solutions are apart, over what is allowed, [rows, 1]."""
        return norm((y - z) / self._tolerance.scale(y.abs()))

    def forth(self, field: RowField, t: Tensor, h: Tensor, z: Tensor, *, with_end: bool) -> Step:
        """The explicit step from ``z``, [rows, dim].

        Args:
            field: the field on these rows.
            t: times, [rows, 1].
            h: signed step sizes, [rows, 1].
            z: the second solution there, [rows, dim].
            with_end: whether a last stage is wanted that is only the derivative at the end.
        """
        k = field(t.to(z.dtype), z)
        return self._explicit.record(field, t, h, z, k, [], with_end=with_end)

    def back(self, field: RowField, t: Tensor, h: Tensor, y1: Tensor) -> Step:
        """The explicit step by ``-h`` from ``y1`` at ``t + h``, [rows, dim]."""
        t1 = t + h
        k1 = field(t1.to(y1.dtype), y1)
        return self._explicit.record(field, t1, -h, y1, k1, [], with_end=False)

    def z_before(self, y1: Tensor, z1: Tensor, back: Step) -> Tensor:
        """``z`` at the start of a step."""
        return z1 + (back.y1 - y1)

    def y_before(self, y1: Tensor, z: Tensor, forth: Step) -> Tensor:
        """``y`` at the start of a step."""
        return z + (y1 - forth.y1) / self.coupling

    def slope(self, h: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """What takes the dense output of the step from ``z`` to that from ``y``, [rows, dim]."""
        return (1 - self.coupling) * (z - y) / h.to(y.dtype)

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
        """Never asked for: a step cannot be taken again without ``z``."""
        raise AssertionError("reversible steps are not recorded by autograd")

    def errors(self, step: Step) -> list[Tensor]:
        """Those of the explicit step from ``z``; of none whose ``z`` is not finite at its end."""
        _, *stages, _ = step.ks
        lost = Pair(*step.memory).z1 * 0
        explicit_step = Step(step.t, step.h, step.y, step.y1, stages)
        return [error + lost for error in self._explicit.errors(explicit_step)]

    def derivatives(self, ks: list[Tensor], k1: Tensor | None) -> list[Tensor]:
        """All but ``f(t1, y1)``: the dense output is that of the step from ``z``."""
        return ks[: self.end_stage]

    def extra_derivatives(
        self,
        field: RowField,
        t: Tensor,
        h: Tensor,
        y: Tensor,
        derivatives: list[Tensor],
    ) -> list[Tensor]:
        """Further derivatives along the step from ``z``."""
        hy = h.to(y.dtype)
        slope, *stages = derivatives
        z = y + hy * slope / (1 - self.coupling)
        ks = list(stages)
        if not self._ends_with_stage:
            z1 = torch.addcmul(z, hy, explicit.combine(stages, self._b))
            ks.append(field((t + h).to(y.dtype), z1))
        return ks[len(stages) :] + self._explicit.extra_derivatives(field, t, h, z, ks)


@stepper_of.register
def _(
    method: ReversibleRungeKutta, like: Tensor, tolerance: Tolerance | None, field: RowField
) -> ReversibleStepper:
    return ReversibleStepper(method, like)
