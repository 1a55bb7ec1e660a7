"""Turns what users hold (tensors on any device, arrays, lists) into float64 arrays of known shape.

Owns the shape rule of the pictures: ``[time, batch, dim]``, missing axes added.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from odeum.errors import InputError

Paths = tuple[np.ndarray, np.ndarray]
"""Times [time, batch] and states [time, batch, dim]."""


def to_numpy(values: Any) -> np.ndarray:
    """``values`` as a float64 array, whatever device or graph they came from.

    Example:
        >>> to_numpy(torch.ones(2, requires_grad=True))
        array([1., 1.])
    """
    if isinstance(values, torch.Tensor):
        return values.detach().to("cpu", torch.float64).numpy()
    return np.asarray(values, dtype=np.float64)


def states(ys: Any) -> np.ndarray:
    """States as [time, batch, dim] from [time], [time, dim] or [time, batch, dim].

    Raises:
        InputError: ``ys`` has no axes or more than three.

    Example:
        >>> states([[1.0, 2.0]]).shape
        (1, 1, 2)
    """
    ys = to_numpy(ys)
    if ys.ndim == 1:
        return ys[:, None, None]
    if ys.ndim == 2:
        return ys[:, None, :]
    if ys.ndim == 3:
        return ys
    raise InputError(
        f"states are shaped {list(ys.shape)}: a picture takes [time], [time, dim] or "
        "[time, batch, dim]; flatten what a row holds first"
    )


def paths(ts: Any, ys: Any) -> Paths:
    """Times as [time, batch] beside states as [time, batch, dim].

    Args:
        ts: [time] shared, or [time, batch].
        ys: [time], [time, dim] or [time, batch, dim].

    Returns:
        The pair, broadcast against each other.

    Raises:
        InputError: the shapes do not belong together.

    Example:
        >>> ts, ys = paths([0.0, 1.0], [[1.0, 2.0], [3.0, 4.0]])
        >>> ts.shape, ys.shape
        ((2, 1), (2, 1, 2))
    """
    times, values = to_numpy(ts), states(ys)
    if times.ndim == 1:
        times = times[:, None]
    if times.ndim != 2 or len(times) != len(values) or times.shape[1] not in (1, values.shape[1]):
        raise InputError(
            f"times are shaped {list(np.shape(ts))} and states {list(np.shape(ys))}: give ts "
            "[time] or [time, batch] and ys with the same leading time axis"
        )
    return np.broadcast_to(times, values.shape[:2]), values


def labelled(values: Any, label: str | None) -> dict[str | None, Any]:
    """A mapping label -> values as it is, or the one entry ``{label: values}``.

    Raises:
        InputError: a mapping came together with ``label``, or is empty.
    """
    if not isinstance(values, Mapping):
        return {label: values}
    if label is not None:
        raise InputError(f"label={label!r} beside a mapping: the mapping's keys are the labels")
    if not values:
        raise InputError("an empty mapping was given: nothing to draw")
    return dict(values)
