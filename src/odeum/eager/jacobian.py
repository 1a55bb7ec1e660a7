"""Jacobians of the field, one per row.

Rows do not depend on one another, so that one tangent per dimension, the same in every row, gives
all of them: never a matrix over the batch.
"""

import warnings
from collections.abc import Callable
from functools import cache
from threading import RLock
from typing import Any

import torch

from odeum.eager.field import RowField
from odeum.eager.recording import carries_tangents, is_transformed
from odeum.errors import InputError
from odeum.types import Tensor

FORWARD_MODE = RLock()
"""Held while forward mode is on: torch counts its levels for all threads together."""

JacobianFunction = Callable[..., Tensor]
"""``f(t, y)`` or ``f(t, y, args)``, called as the field is, returning [batch, dim, dim]."""


def jacobian(field: RowField, t: Tensor, y: Tensor, given: JacobianFunction | None) -> Tensor:
    """``df_i/dy_j``, [rows, dim, dim], recorded by autograd where that is enabled.

    Args:
        field: the field on these rows.
        t: times, [rows, 1], in the dtype of the state.
        y: states, [rows, dim].
        given: the user's function, where there is one.

    Raises:
        InputError: where autograd does not get through the field, or the user's function returns
            another shape.
    """
    if given is not None:
        return _given(field, t, y, given)
    n_rows, dim = y.shape
    tangents = torch.eye(dim, dtype=y.dtype, device=y.device)

    def along(tangent: Tensor) -> Tensor:
        return torch.func.jvp(lambda y: field(t, y), (y,), (tangent.expand(n_rows, dim),))[1]

    return _differentiated(
        lambda: torch.func.vmap(along, randomness="same")(tangents).permute(1, 2, 0),
        lambda: _reverse(lambda y: field(t, y), y),
    )


def slope_in_time(field: RowField, t: Tensor, y: Tensor) -> Tensor:
    """``df/dt``, [rows, dim], recorded by autograd where that is enabled.

    Args:
        field: the field on these rows.
        t: times, [rows, 1], in the dtype of the state.
        y: states, [rows, dim].
    """
    t = t.clone()  # times shared by rows may share their memory, which forward mode refuses
    return _differentiated(
        lambda: torch.func.jvp(lambda t: field(t, y), (t,), (torch.ones_like(t),))[1],
        lambda: _reverse(lambda t: field(t, y), t).squeeze(-1),
    )


def integrand_slopes(field: RowField, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of the integrands of a field, which has some.

    Args:
        field: the field on these rows.
        t: times, [rows, 1], in the dtype of the state.
        y: states, [rows, dim].

    Returns:
        By the state, [rows, integrals, dim], and by time, [rows, integrals]; recorded by autograd
        where that is enabled.
    """

    def integrands(t: Tensor, y: Tensor) -> Tensor:
        return field(t, y)[:, field.dim :]

    t = t.clone()
    by_state = _reverse(lambda y: integrands(t, y), y)
    return by_state, _reverse(lambda t: integrands(t, y), t).squeeze(-1)


def _differentiated(forward: Callable[[], Tensor], reverse: Callable[[], Tensor]) -> Tensor:
    """Forward mode; reverse mode for fields that it does not get through."""
    load_forward_mode()
    try:
        with FORWARD_MODE:
            return forward()
    except (RuntimeError, NotImplementedError) as error:
        reason = error
    try:
        return reverse()
    except RuntimeError as error:
        raise InputError(
            f"the field's Jacobian cannot be had by autograd ({reason}): write the field in torch "
            "operations, or give its Jacobian with odeum.methods.get(name, jacobian=...)"
        ) from error


@cache
def load_forward_mode() -> None:
    """Has torch load its rules now: it does so on first use, with a warning about its own code."""
    one = torch.ones(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.sin, (one,), (one,))


def _reverse(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``df_i/dx_j`` of every row, [rows, i, j]."""
    if is_transformed() or carries_tangents():
        return torch.func.jacrev(lambda x: function(x).sum(0))(x).permute(1, 0, 2)
    recorded = torch.is_grad_enabled()
    with torch.enable_grad():
        if not (recorded and x.requires_grad):
            x = x.detach().requires_grad_()
        value = function(x)
        if not value.requires_grad:
            return x.new_zeros(*value.shape, x.shape[1])
        rows = [
            torch.autograd.grad(
                component.sum(), x, retain_graph=True, create_graph=recorded, materialize_grads=True
            )[0]
            for component in value.unbind(-1)
        ]
    return torch.stack(rows, 1)


def _given(field: RowField, t: Tensor, y: Tensor, function: JacobianFunction) -> Tensor:
    value: Any = function(*field.inputs(t, y))
    n_rows, dim = y.shape
    wanted = (n_rows, dim, dim) if field.structure.batch_shape else (dim, dim)
    allowed = (wanted, (n_rows, dim, dim))
    if not isinstance(value, torch.Tensor) or tuple(value.shape) not in allowed:
        given = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise InputError(
            f"jacobian returned {given} for a state of shape {list(y.shape)}: return "
            f"[batch, dim, dim], here {list(wanted)}, with df_i/dy_j at [..., i, j]"
        )
    return value.reshape(n_rows, dim, dim)
