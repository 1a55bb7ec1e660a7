"""The gradients by name, and which of them a solve is given."""

from collections.abc import Callable
from dataclasses import replace

from odeum.eager.problem import Outcome, Problem
from odeum.eager.recording import is_transformed, unrecorded
from odeum.eager.tangents import ExplicitZeros, OnLeaves, inner_derivatives_explained
from odeum.errors import InputError, unknown_name
from odeum.gradient import adjoint, discrete, forward, interpolated, reversible

Gradient = Callable[[Problem], Outcome]
"""Solves a problem so that backpropagation through its outcome gives the gradient."""


def without_gradient(problem: Problem) -> Outcome:
    """Solves a problem that nothing will be differentiated through."""
    with unrecorded():
        return problem.solve()


GRADIENTS: dict[str, Gradient] = {
    "discrete": discrete.solve,
    "adjoint": adjoint.solve,
    "interpolated": interpolated.solve,
    "reversible": reversible.Reversible(),
    "forward": forward.Forward(),
    "autograd": Problem.solve,
    "none": without_gradient,
}


def gradient_of(gradient: str | Gradient) -> Gradient:
    """A gradient from its name, or itself.

    Raises:
        InputError: for a name that none has.

    Example:
        >>> gradient_of("none") is without_gradient
        True
    """
    if callable(gradient):
        return gradient
    if gradient not in GRADIENTS:
        raise unknown_name("gradient", str(gradient), GRADIENTS)
    return GRADIENTS[gradient]


def _by_transform(problem: Problem) -> Outcome:
    if not is_transformed():  # dual numbers alone
        field = problem.field
        problem = replace(problem, field=field.with_field(OnLeaves(field.field)))
    with ExplicitZeros(), inner_derivatives_explained():
        return problem.solve()


def recorded_by_torch(gradient: Gradient) -> Gradient:
    """How the same gradient is had inside a transform, where torch itself differentiates."""
    if gradient in (without_gradient, _by_transform):
        return gradient
    if gradient is GRADIENTS["autograd"] or isinstance(gradient, discrete.Discrete):
        return _by_transform
    names = [name for name, known in GRADIENTS.items() if known is gradient]
    raise InputError(
        f"gradient={names[0] if names else gradient!r} has a backward pass of its own, which "
        "torch.func and forward-mode differentiation do not see: inside of them give "
        'gradient="discrete" (then torch records the steps), or differentiate with .backward()'
    )
