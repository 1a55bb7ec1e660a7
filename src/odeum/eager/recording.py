"""Whether torch takes down derivatives of what is computed, by either mode of differentiation.

Reverse mode records a graph where gradients are enabled; forward mode carries tangents along,
which ``torch.no_grad`` does not stop.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch._C._functorch import TransformType
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.autograd import forward_ad

_FIRST_DERIVATIVE = ContextVar("first_derivative", default=False)


def is_transformed() -> bool:
    """Whether a transform of ``torch.func`` is active: grad, jvp, vmap or what is made of them.

    Example:
        >>> float(torch.func.grad(lambda x: x * is_transformed())(torch.tensor(2.0)))
        1.0
    """
    return torch._C._functorch.maybe_current_level() is not None


def n_derivatives() -> int:
    """How often what is computed now may be differentiated, one inside the other.

    A graph of reverse mode can be differentiated twice, and nobody knows yet whether it will be.

    Example:
        >>> n_derivatives()
        2
        >>> with first_derivative():
        ...     n_derivatives()
        1
    """
    by_graph = 1 if _FIRST_DERIVATIVE.get() else 2
    return n_transforms() + by_graph * torch.is_grad_enabled()


def n_transforms() -> int:
    """How many transforms of ``torch.func`` differentiate, one inside the other.

    Example:
        >>> hessian = torch.func.hessian(lambda x: n_transforms() * x**2 / 2)
        >>> float(hessian(torch.tensor(1.0)))
        2.0
    """
    kinds = (TransformType.Grad, TransformType.Jvp)
    return sum(level.key() in kinds for level in retrieve_all_functorch_interpreters())


@contextmanager
def first_derivative() -> Iterator[None]:
    """The graph of what is computed inside is differentiated once and given up."""
    token = _FIRST_DERIVATIVE.set(True)
    try:
        yield
    finally:
        _FIRST_DERIVATIVE.reset(token)


def carries_tangents() -> bool:
    """Whether tensors may carry the tangents of forward mode.

    Example:
        >>> with forward_ad.dual_level():
        ...     carries_tangents()
        True
    """
    return forward_ad._current_level >= 0 and torch._C._is_fwd_grad_enabled()


def is_recorded() -> bool:
    """Whether anything computed now may be differentiated later.

    Example:
        >>> with unrecorded():
        ...     is_recorded()
        False
    """
    return torch.is_grad_enabled() or carries_tangents()


@contextmanager
def unrecorded() -> Iterator[None]:
    """Nothing computed inside is differentiated, by either mode."""
    with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
        yield
