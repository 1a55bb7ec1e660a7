"""What takes steps: the Protocol that every family of methods meets, and what a step is.

A stepper knows coefficients and the field; step sizes, acceptance and time are the loop's.
Steppers hold no state of a solve: what they carry from one step to the next is handed to them.
"""

from dataclasses import dataclass
from typing import Protocol

from odeum.eager.dense import Interpolation
from odeum.eager.field import RowField
from odeum.eager.linear import Factorised
from odeum.types import Tensor

Memory = tuple[Tensor, ...]
"""What a stepper carries from step to step besides the derivative, each [rows, ...]."""


@dataclass(frozen=True)
class Work:
    """Work that differs from row to row, [rows] each."""

    n_evaluations: Tensor
    n_jacobians: Tensor
    n_factorisations: Tensor


@dataclass(frozen=True)
class Step:
    """A tried step of every row: from ``(t, y)`` by ``h`` to ``y1`` with stages ``ks``.

    Attributes:
        t: where it starts, [rows, 1].
        h: its signed size, [rows, 1].
        y: the state there, [rows, dim].
        y1: the state at its end, [rows, dim].
        ks: derivatives, [rows, dim] each.
        k0: the derivative at its start, [rows, dim], where an error estimate weighs it.
        solved: rows whose stage equations were solved, [rows, 1]; None where there are none.
        matrix: ``1 - h gamma J``, factorised, that filters the error estimate; None where it
            needs no filter.
        work: evaluations beyond ``Stepper.n_evaluations``, and the work of solving equations.
        memory: handed to the next step of the same rows.
    """

    t: Tensor
    h: Tensor
    y: Tensor
    y1: Tensor
    ks: list[Tensor]
    k0: Tensor | None = None
    solved: Tensor | None = None
    matrix: Factorised | None = None
    work: Work | None = None
    memory: Memory = ()


class Stepper(Protocol):
    """A method on rows of a state.

    Attributes:
        order: order of convergence.
        error_order: power of the step size with which the error estimate shrinks; None where
            there is no estimate.
        n_evaluations: evaluations of the field in every row's step, the one at its start aside.
        end_stage: which of a step's ``ks`` is the derivative at its end, to start the next one
            from; None where it must be evaluated.
        n_extra: derivatives that only the dense output needs.
        dense: the continuous extension.
        implicit: whether a step solves equations: it is then recorded for backpropagation by
            ``record``, from its solution.
    """

    order: int
    error_order: int | None
    n_evaluations: int
    end_stage: int | None
    n_extra: int
    dense: Interpolation
    implicit: bool

    def step(
        self, field: RowField, t: Tensor, h: Tensor, y: Tensor, k0: Tensor, memory: Memory
    ) -> Step:
        """Tries one step.

        Args:
            field: the field on these rows.
            t: times, [rows, 1].
            h: signed step sizes, [rows, 1].
            y: states, [rows, dim].
            k0: derivatives there, [rows, dim].
            memory: that of the last step of these rows; empty before the first.
        """
        ...

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
        """A step taken before, again, for autograd to record.

        Args:
            field: the field on these rows.
            t: times, [rows, 1].
            h: signed step sizes, [rows, 1].
            y: states, [rows, dim].
            k0: derivatives there, [rows, dim].
            ks: the derivatives found then, where the method is implicit.
            with_end: whether a last stage is wanted that is only the derivative at the end.
        """
        ...

    def errors(self, step: Step) -> list[Tensor]:
        """Estimates of the local error, [rows, dim] each, in units of ``y``.

        A second one, of lower order, damps the first.
        """
        ...

    def derivatives(self, ks: list[Tensor], k1: Tensor | None) -> list[Tensor]:
        """What the dense output weighs: a step's ``ks`` with the derivative at its end."""
        ...

    def extra_derivatives(
        self,
        field: RowField,
        t: Tensor,
        h: Tensor,
        y: Tensor,
        derivatives: list[Tensor],
    ) -> list[Tensor]:
        """The ``n_extra`` derivatives that come after ``derivatives`` in the dense output."""
        ...
