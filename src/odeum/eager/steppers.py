"""The stepper of each kind of method."""

from functools import singledispatch

from odeum.eager import explicit
from odeum.eager.control import Tolerance
from odeum.eager.field import RowField
from odeum.eager.implicit import ImplicitStepper
from odeum.eager.multistep import AdamsStepper
from odeum.eager.rosenbrock import RosenbrockStepper
from odeum.eager.stepper import Stepper
from odeum.eager.symplectic import SymplecticStepper
from odeum.methods import (
    Adams,
    ExplicitRungeKutta,
    FixedStep,
    ImplicitRungeKutta,
    OneStep,
    Rosenbrock,
    Symplectic,
)
from odeum.types import Tensor


@singledispatch
def stepper_of(
    method: OneStep | FixedStep, like: Tensor, tolerance: Tolerance | None, field: RowField
) -> Stepper:
    """The stepper of a method.

    Args:
        method: the method.
        like: a state, for its dtype and device.
        tolerance: the error allowed in a step; None where steps are fixed.
        field: the field, for the structure of the state.

    Raises:
        InputError: where the method cannot take such a state.
    """
    raise AssertionError(f"no stepper for {method}")


@stepper_of.register
def _(
    method: ExplicitRungeKutta, like: Tensor, tolerance: Tolerance | None, field: RowField
) -> Stepper:
    return explicit.stepper(method.tableau, like.dtype, like.device)


@stepper_of.register
def _(
    method: ImplicitRungeKutta, like: Tensor, tolerance: Tolerance | None, field: RowField
) -> Stepper:
    return ImplicitStepper(method.tableau, like, tolerance, method.jacobian)


@stepper_of.register
def _(method: Rosenbrock, like: Tensor, tolerance: Tolerance | None, field: RowField) -> Stepper:
    return RosenbrockStepper(method.tableau, like, method.jacobian)


@stepper_of.register
def _(method: Symplectic, like: Tensor, tolerance: Tolerance | None, field: RowField) -> Stepper:
    return SymplecticStepper(method.tableau, like, field)


@stepper_of.register
def _(method: Adams, like: Tensor, tolerance: Tolerance | None, field: RowField) -> Stepper:
    return AdamsStepper(method, like)
