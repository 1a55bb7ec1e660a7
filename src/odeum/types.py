"""Shapes and Protocols that the whole library shares.

Axes are ``time``, ``batch`` (rows: independent systems) and ``dim`` (a row's flattened state).
"""

from typing import Any, Protocol

import torch

Tensor = torch.Tensor
PyTree = Any
"""A tensor, or a tuple, list or dict of pytrees."""


class Field(Protocol):
    """A vector field ``dy/dt = f(t, y)`` or ``f(t, y, args)``.

    ``y`` and the returned derivative share one structure and its shapes; ``t`` is shaped
    ``[batch, 1, ..., 1]`` when rows are solved independently, 0-dimensional otherwise.
    """

    def __call__(self, t: Tensor, y: PyTree, *args: PyTree) -> PyTree:
        """The derivative of ``y`` at time ``t``."""
        ...
