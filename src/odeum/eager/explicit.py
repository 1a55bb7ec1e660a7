"""One explicit Runge-Kutta step on every row.

Reads a tableau and nothing else of a method: step sizes are the loop's business. Every operation
here gives a row the same bits whatever rows stand beside it, and is differentiable by autograd.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from odeum.eager.dense import Interpolation
from odeum.eager.field import RowField
from odeum.eager.stepper import Memory, Step
from odeum.tableaus import RKTableau
from odeum.tableaus.record import Row
from odeum.types import Tensor


@lru_cache(maxsize=64)
def stepper(tableau: RKTableau, dtype: torch.dtype, device: torch.device) -> "ExplicitStepper":
    """The stepper of a tableau; made once, for small solves are over before it would be made."""
    return ExplicitStepper(tableau, dtype, device)


@dataclass(frozen=True)
class Weights:
    """Weights of a sum of derivatives.

    Attributes:
        used: the derivatives whose weight is not zero.
        values: their weights, [1, used].
    """

    used: tuple[int, ...]
    values: Tensor

    @property
    def single(self) -> float | None:
        """The weight, where there is one only."""
        return float(self.values) if len(self.used) == 1 else None


def weights_of(coefficients: Row, like: Tensor) -> Weights:
    """Those of the coefficients that are not zero, in the dtype and on the device of ``like``."""
    used = tuple(i for i, weight in enumerate(coefficients) if weight)
    return Weights(used, like.new_tensor([[float(coefficients[i]) for i in used]]))


def combine(ks: list[Tensor], weights: Weights) -> Tensor:
    """``sum_j w_j k_j`` as one matrix product."""
    stacked = torch.stack([ks[i] for i in weights.used])
    return torch.mm(weights.values, stacked.flatten(1)).view_as(ks[0])


class ExplicitStepper:
    """A tableau in the dtype and on the device of a state; see :class:`Stepper`.

    Args:
        tableau: the method.
        dtype: the state's.
        device: the state's.
    """

    implicit = False

    def __init__(self, tableau: RKTableau, dtype: torch.dtype, device: torch.device) -> None:
        self._like = like = torch.empty(0, dtype=dtype, device=device)
        interpolant = tableau.interpolant
        self.order = tableau.order
        self.error_order = tableau.error_order if tableau.adaptive else None
        self.n_evaluations = tableau.n_stages - 1
        self.end_stage = tableau.n_stages - 1 if tableau.first_same_as_last else None
        self.n_extra = len(interpolant.extra_c)
        self.dense = Interpolation(interpolant.weights, tableau.end_weights, like)
        self._stages = [weights_of(coefficients, like) for coefficients in tableau.a[1:]]
        self._b = weights_of(tableau.b, like)
        self._b_error = [weights_of(weights, like) for weights in tableau.b_error or ()]
        self._extra_stages = [
            weights_of(coefficients, like) for coefficients in interpolant.extra_a
        ]
        self._nodes = self._column(tableau.c[1:])
        self._extra_nodes = self._column(interpolant.extra_c)
        self._single_weights = [weights.single for weights in self._stages]

    def _column(self, nodes: Row) -> Tensor:
        return self._like.new_tensor([float(c) for c in nodes]).view(-1, 1, 1)

    def step(
        self, field: RowField, t: Tensor, h: Tensor, y: Tensor, k0: Tensor, memory: Memory = ()
    ) -> Step:
        """Tries one step."""
        return self.record(field, t, h, y, k0, [], with_end=True)

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
        hy = h.to(y.dtype)
        fsal = self.end_stage is not None
        ks = [k0]
        y_stage = y
        times = self._times(t, h, self._nodes)
        for weights, single, t_stage in zip(self._stages, self._single_weights, times, strict=True):
            if single is not None:
                y_stage = torch.addcmul(y, hy, ks[weights.used[0]], value=single)
            else:
                y_stage = torch.addcmul(y, hy, combine(ks, weights))
            if with_end or not fsal or len(ks) < len(self._stages):
                ks.append(field(t_stage, y_stage))
        if not fsal:
            y_stage = torch.addcmul(y, hy, combine(ks, self._b))
        return Step(t, h, y, y_stage, ks)

    def _times(self, t: Tensor, h: Tensor, nodes: Tensor) -> Sequence[Tensor]:
        dtype = self._like.dtype
        times = t + nodes.to(t.dtype) * h if t.dtype != dtype else t + nodes * h
        return times.to(dtype).unbind(0)

    def errors(self, step: Step) -> list[Tensor]:
        """The difference from the embedded solution; DOP853 has a second."""
        h = step.h.to(step.y.dtype)
        return [combine(step.ks, weights) * h for weights in self._b_error]

    def derivatives(self, ks: list[Tensor], k1: Tensor | None) -> list[Tensor]:
        """The stages, and the derivative at the end where it is none of them."""
        return ks if self.end_stage is not None or k1 is None else [*ks, k1]

    def extra_derivatives(
        self,
        field: RowField,
        t: Tensor,
        h: Tensor,
        y: Tensor,
        derivatives: list[Tensor],
    ) -> list[Tensor]:
        """Further stages."""
        hy = h.to(y.dtype)
        ks = list(derivatives)
        times = self._times(t, h, self._extra_nodes)
        for weights, t_stage in zip(self._extra_stages, times, strict=True):
            ks.append(field(t_stage, torch.addcmul(y, hy, combine(ks, weights))))
        return ks[len(derivatives) :]
