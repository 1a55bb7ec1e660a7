"""A call of ``odeint`` with its arguments checked: what every family of methods starts from."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from odeum.compat.torchdiffeq.errors import ArgumentError, ArgumentTypeError
from odeum.compat.torchdiffeq.layout import Layout, State, layout_of
from odeum.compat.torchdiffeq.options import Method, Options, method_named, warn_of_unread
from odeum.eager.field import RowField
from odeum.errors import InputError
from odeum.tree import structure_of
from odeum.types import Tensor

CALLBACKS = ("callback_step", "callback_accept_step", "callback_reject_step")

Callback = Callable[[Tensor, State, Tensor], Any]
Func = Callable[[Tensor, Any], Any]
FlatField = Callable[..., Tensor]
Norm = Callable[[Any], Any]


@dataclass(frozen=True)
class Call:
    """An initial value problem for one vector of real numbers.

    Attributes:
        field: ``f(t [], y [dim]) -> [dim]``.
        layout: the user's state.
        y0: the initial state, [dim].
        t: output times, [time], increasing or decreasing.
        rtol: relative tolerance; a number or [dim].
        atol: absolute tolerance in units of ``y``, likewise.
        method: the method.
        options: the user's.
        norm: a number from a state of scaled errors.
        callbacks: the user's, by name.
    """

    field: FlatField
    layout: Layout
    y0: Tensor
    t: Tensor
    rtol: float | Tensor
    atol: float | Tensor
    method: Method
    options: Options
    norm: Norm
    callbacks: dict[str, Callback]

    @property
    def direction(self) -> int:
        """+1 where time increases, -1 where it decreases."""
        return -1 if len(self.t) > 1 and bool(self.t[0] > self.t[1]) else 1

    @property
    def smallest_atol(self) -> float:
        """The absolute tolerance of the most demanding number."""
        return float(torch.as_tensor(self.atol).min())

    def row_field(self, field: FlatField | None = None) -> RowField:
        """The field, or another in its place, as odeum's engine calls it: on a batch of one row."""
        flat = self.field if field is None else field

        def on_row(t: Tensor, y: Tensor) -> Tensor:
            return flat(t.reshape(()), y.squeeze(0)).unsqueeze(0)

        return RowField(on_row, structure_of(self.y0.unsqueeze(0)), None, joint=False)

    def tell(self, name: str, t: Tensor, y: Tensor, h: Tensor) -> None:
        """Calls a callback of the user's, if there is one, with the size of a step."""
        if name in self.callbacks:
            self.callbacks[name](t, self.layout.unflatten(y), h.abs())


def prepare(
    func: Func,
    y0: Any,
    t: Tensor,
    rtol: Any,
    atol: Any,
    method: str | None,
    options: Options | None,
) -> Call:
    """Checks the arguments of ``odeint``.

    Raises:
        InputError: for one that cannot be used.
    """
    layout = layout_of(y0)
    if not callable(func):
        raise InputError(f"func is a {type(func).__name__}: give a function func(t, y)")
    chosen, options = method_named(method), dict(options or {})
    flat = layout.flatten(y0)
    _check_times(t)
    if t.device != flat.device:
        warnings.warn(f"t is on {t.device} and y0 on {flat.device}: t is moved", stacklevel=4)
        t = t.to(flat.device)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return layout.flatten_derivative(func(t, layout.unflatten(y)))

    call = Call(
        field=field,
        layout=layout,
        y0=flat,
        t=t,
        rtol=layout.tolerance("rtol", rtol),
        atol=layout.tolerance("atol", atol),
        method=chosen,
        options=options,
        norm=options.get("norm", mixed_norm if layout.is_tuple else rms_norm),
        callbacks=callbacks_of(func),
    )
    warn_of_ignored(call)
    return call


def warn_of_ignored(call: Call) -> None:
    """Warns of options that the method does not read, and of callbacks that it does not call."""
    warn_of_unread(call.method, call.options)
    uncalled = sorted(set(call.callbacks) - call.method.callbacks)
    if uncalled:
        warnings.warn(
            f"method {call.method.name!r} does not call {', '.join(uncalled)}", stacklevel=5
        )


def callbacks_of(func: Func, suffix: str = "") -> dict[str, Callback]:
    """The callbacks that a function carries as attributes, by torchdiffeq's names for them."""
    found = {name: getattr(func, name + suffix, None) for name in CALLBACKS}
    return {name: callback for name, callback in found.items() if callback is not None}


def rms_norm(x: Tensor) -> Tensor:
    """Root mean square of all elements.

    Example:
        >>> rms_norm(torch.tensor([3 + 4j, 0]))
        tensor(3.5355)
    """
    return torch.linalg.vector_norm(x) / math.sqrt(x.numel())


def mixed_norm(tensors: tuple[Tensor, ...]) -> Tensor | float:
    """The largest of the root mean squares of several tensors; 0 for none."""
    return max((rms_norm(x) for x in tensors if x.numel()), default=0.0)


def _check_times(t: Any) -> None:
    if not isinstance(t, Tensor):
        raise ArgumentError(f"t is a {type(t).__name__}: give a tensor of times")
    if not t.is_floating_point():
        raise ArgumentTypeError(f"t has dtype {t.dtype}: give floating-point times, t.double()")
    if t.ndim != 1 or not len(t):
        raise ArgumentError(
            f"t has shape {list(t.shape)}: give [time], the first is where y0 holds"
        )
    steps = t.detach().diff()
    if not bool((steps > 0).all() | (steps < 0).all()):
        raise ArgumentError("t is not strictly monotone: sort the times and drop duplicates")
