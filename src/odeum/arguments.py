"""The arguments of a solve: checked, and as the rest of the house takes them."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from odeum.eager.control import Tolerance
from odeum.eager.event import Event
from odeum.errors import InputError, unknown_name
from odeum.tree import Structure
from odeum.types import Tensor

ALLOWED = {
    "engine": ("auto", "eager", "fused"),
    "coupling": ("independent", "joint"),
    "on_failure": ("raise", "mask"),
}
"""What options that are one of a few words may be."""


def check_words(**options: str) -> None:
    """Refuses words that are none of those allowed.

    Example:
        >>> check_words(coupling="jiont")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        odeum.errors.InputError: unknown coupling 'jiont': did you mean 'joint'? ...
    """
    for name, given in options.items():
        if given not in ALLOWED[name]:
            raise unknown_name(name, str(given), ALLOWED[name])


def output_times(ts: Tensor, structure: Structure) -> Tensor:
    """Times no less precise than the state: their rounding would be an error of the solve."""
    if not isinstance(ts, torch.Tensor):
        ts = torch.as_tensor(ts, dtype=structure.dtype)
    return ts.to(structure.device, torch.promote_types(ts.dtype, structure.dtype))


def tolerance_of(
    rtol: float | Tensor, atol: float | Tensor, structure: Structure, copies: int
) -> Tolerance:
    """Tolerances checked and spread over a row's numbers.

    Example:
        >>> from odeum.tree import structure_of
        >>> tolerance_of(1e-6, 0.0, structure_of(torch.ones(2, 3)), copies=1).rtol
        1e-06
    """
    tiny = torch.finfo(structure.dtype).tiny
    spread = [_spread(name, value, structure) for name, value in (("rtol", rtol), ("atol", atol))]
    for name, value, lowest in zip(("rtol", "atol"), spread, (tiny, 0.0), strict=True):
        smallest = float(torch.as_tensor(value).min())
        if not lowest <= smallest < math.inf:
            allowed = "positive" if name == "rtol" else "zero or positive"
            raise InputError(
                f"{name} = {smallest:g}: give a {allowed} number; 1e-3 is loose, 1e-9 tight"
            )
    spread[0] = _resolved(spread[0], structure.dtype)
    relative, absolute = (x.repeat(copies) if isinstance(x, Tensor) else x for x in spread)
    # An absolute tolerance of zero must not divide an error of zero by zero.
    if isinstance(absolute, Tensor):
        return Tolerance(relative, absolute.clamp(min=tiny))
    return Tolerance(relative, max(absolute, tiny))


def _resolved(rtol: float | Tensor, dtype: torch.dtype) -> float | Tensor:
    """A relative tolerance no finer than the rounding of a state.

    Below it errors are those of rounding, which shorter steps do not lessen: a solve would creep
    until it ran out of steps. Like SciPy's, it warns and goes on; its limit of 100 roundings is
    not taken over, as single precision serves well at 1e-6.
    """
    finest = torch.finfo(dtype).eps / 2
    smallest = float(torch.as_tensor(rtol).min())
    if smallest >= finest:
        return rtol
    advice = "" if dtype == torch.float64 else "; for a finer one give y0 in float64"
    warnings.warn(
        f"rtol = {smallest:g} is finer than a state in {str(dtype).removeprefix('torch.')} can be "
        f"rounded: it is taken as {finest:.2g}{advice}",
        stacklevel=4,
    )
    return rtol.clamp(min=finest) if isinstance(rtol, Tensor) else finest


def _spread(name: str, value: Any, structure: Structure) -> float | Tensor:
    if not isinstance(value, torch.Tensor):
        try:
            return float(value)
        except (TypeError, ValueError):
            raise InputError(
                f"{name} is a {type(value).__name__}: give a number or a tensor"
            ) from None
    value = value.detach().to(structure.dtype).to(structure.device)
    try:
        return torch.cat([value.expand(shape).reshape(-1) for shape in structure.shapes])
    except RuntimeError:
        shapes = " and ".join(str(list(shape)) for shape in structure.shapes)
        raise InputError(
            f"{name} has shape {list(value.shape)}: it must broadcast against one row of the "
            f"state, {shapes}"
        ) from None


def events_of(events: Event | Sequence[Event] | None) -> list[Event]:
    """What to look for on the way."""
    if events is None:
        return []
    given: list[Any] = list(events) if isinstance(events, list | tuple) else [events]
    for event in given:
        if not isinstance(event, Event):
            raise InputError(
                f"events holds a {type(event).__name__}: give odeum.Event(fn, ...) or a list"
            )
    return given


def breaks_of(breaks: Tensor | Sequence[float] | None) -> Tensor:
    """Times at which the field jumps, ascending, [breaks]."""
    try:
        times = torch.as_tensor([] if breaks is None else breaks, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"breaks is a {type(breaks).__name__}: give a list of times") from None
    if times.ndim != 1 or not bool(times.isfinite().all()):
        raise InputError("breaks must be finite times, [breaks], shared by all rows")
    return times.detach().unique()
