"""An algebraically reversible step made of two explicit Runge-Kutta steps, on every row.

Beside the state ``y`` goes a second solution ``z`` of the same problem. With ``F_h(t, x)`` the
state that the explicit method reaches from ``x``, a step is
``y1 = F_h(t, z) + lambda (y - z)``, ``z1 = z + y1 - F_-h(t + h, y1)``: from ``(y1, z1)`` follow
``z`` and ``y`` again, each by one explicit step. Knows nothing of gradients.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch

from odeum.control import Controller, I
from odeum.eager import explicit
from odeum.eager.control import Tolerance
from odeum.eager.dense import Interpolation
from odeum.eager.field import RowField
from odeum.eager.stepper import Memory, Step
from odeum.eager.steppers import stepper_of
from odeum.tableaus import RKTableau
from odeum.types import Tensor


@dataclass(frozen=True)
class ReversibleRungeKutta:
    """The reversible form of an explicit Runge-Kutta method.

    Attributes:
        tableau: the coefficients of the method.
        coupling: ``lambda``, how much of ``y - z`` is left after a step, in (0, 1).
        controller: constants of the step-size control.
    """

    tableau: RKTableau
    coupling: float
    controller: Controller = I

    @property
    def adaptive(self) -> bool:
        """Whether its steps follow a tolerance."""
        return self.tableau.adaptive


@lru_cache(maxsize=64)
def stepper(
    tableau: RKTableau, coupling: float, dtype: torch.dtype, device: torch.device
) -> "ReversibleStepper":
    """The stepper of a tableau, made once."""
    return ReversibleStepper(tableau, coupling, dtype, device)


class ReversibleStepper:
    """A tableau's reversible form; see :class:`~odeum.eager.stepper.Stepper`.

    A step's ``ks`` are the slope ``(1 - lambda) (z - y) / h``, the stages of the step from ``z``
    and ``f(t1, y1)``. Its memory is where it starts and ``z`` there and at its end, so that the
    next step knows whether this one was accepted. The dense output is the explicit method's from
    ``z``, shifted to start at ``y`` and to end at ``y1``; it has the same order.

    Args:
        tableau: the explicit method.
        coupling: ``lambda``, in (0, 1).
        dtype: the state's.
        device: the state's.

    Source:
        McCallum & Foster, Efficient, Accurate and Stable Gradients for Neural ODEs (2024).

    Example:
        >>> from odeum.tableaus import EXPLICIT
        >>> from odeum.tree import structure_of
        >>> y, t, h = torch.ones(1, 1), torch.zeros(1, 1), torch.full((1, 1), 0.1)
        >>> field = RowField(lambda t, y: -y, structure_of(y), None, joint=False)
        >>> halves = stepper(EXPLICIT["rk4"], 0.99, y.dtype, y.device)
        >>> step = halves.step(field, t, h, y, field(t, y), ())
        >>> halves.start_of(field, t, h, step.y1, step.memory[2])  # y and z
        (tensor([[1.]]), tensor([[1.]]))
    """

    implicit = False

    def __init__(
        self, tableau: RKTableau, coupling: float, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.coupling = coupling
        self._explicit = base = explicit.stepper(tableau, dtype, device)
        self._ends_with_stage = base.end_stage is not None
        self.n_stages = n_stages = tableau.n_stages
        self.order = base.order
        self.error_order = base.error_order
        self.n_evaluations = 2 * n_stages - self._ends_with_stage
        self.end_stage = n_stages + 1
        self.n_extra = base.n_extra + (not self._ends_with_stage)
        weights = tableau.interpolant.weights
        no_powers = [0] * (max(len(row) for row in weights) - 1)
        like = torch.empty(0, dtype=dtype, device=device)
        self._b = explicit.weights_of(tableau.b, like)
        self.dense = Interpolation([[1, *no_powers], *weights], [1, *tableau.end_weights], like)

    def step(
        self, field: RowField, t: Tensor, h: Tensor, y: Tensor, k0: Tensor, memory: Memory
    ) -> Step:
        """Tries one step."""
        z = y
        if memory:
            before, z_before, z_after = memory
            z = torch.where(t == before, z_before, z_after)
        forth = self.forth(field, t, h, z, with_end=True)
        y1 = forth.y1 + self.coupling * (y - z)
        back = self.back(field, t, h, y1)
        z1 = z + (y1 - back.y1)
        ks = [self.slope(h, y, z), *forth.ks, back.ks[0]]
        return Step(t, h, y, y1, ks, memory=(t, z, z1))

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

    def start_of(
        self, field: RowField, t: Tensor, h: Tensor, y1: Tensor, z1: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``y`` and ``z`` at the start of a step that ended at ``y1`` and ``z1``."""
        z = self.z_before(y1, z1, self.back(field, t, h, y1))
        return self.y_before(y1, z, self.forth(field, t, h, z, with_end=False)), z

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
        lost = step.memory[2] * 0
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
    return stepper(method.tableau, method.coupling, like.dtype, like.device)
