"""The order in which rows are put together: those that start near each other.

Rows that are solved together take as long as the slowest of them, and rows that start near each
other take about as many steps. The order depends on the states alone, so that a solve done twice
is put together alike twice.
"""

from functools import lru_cache

import numpy as np

from odeum.types import Tensor

Array = np.ndarray

MIXED = 2
"""Groups up to which it does not matter which rows are together."""

HUGE = 1e15
"""Starts beyond which rows are not told apart: squares of larger ones overflow."""


def order_of(y0: Tensor, rows_at_once: int) -> Array:
    """The numbers of rows, in the order in which they fill groups, [batch].

    They are sorted into strips by the number in which their starts differ most, and within strips
    by the number that comes second.

    Args:
        y0: initial states, [batch, dim].
        rows_at_once: rows in a group.

    Example:
        >>> import torch
        >>> order_of(torch.tensor([[3.0], [1.0], [2.0]]), 1)
        array([0, 1, 2])
        >>> order_of(torch.arange(32.0, 0.0, -1.0)[:, None], 8)[:4]
        array([31, 30, 29, 28])
    """
    n_rows, dim = y0.shape
    n_groups = -(-n_rows // rows_at_once)
    if rows_at_once == 1 or n_groups <= MIXED:
        return _as_given(n_rows)
    # Starts that are no numbers, or huge, go anywhere.
    states = np.clip(np.nan_to_num(y0.detach().numpy()), -HUGE, HUGE)
    if dim == 1:
        return states[:, 0].argsort(kind="stable")
    first, second = 0, 1
    if dim > 2:
        first, second = states.var(0).argsort()[-2:]
    # Every other strip the other way round, so that neighbours stay neighbours where strips meet.
    strips, signs = _strips(n_rows, max(round(n_groups**0.5), 1))
    strip, sign = np.empty_like(strips), np.empty_like(signs)
    by_first = states[:, first].argsort(kind="stable")
    strip[by_first], sign[by_first] = strips, signs
    along = states[:, second] * sign
    along /= 1.0 + abs(along)
    return (strip + along).argsort(kind="stable")


@lru_cache(maxsize=64)
def _as_given(n_rows: int) -> Array:
    return np.arange(n_rows)


@lru_cache(maxsize=64)
def _strips(n_rows: int, n_strips: int) -> tuple[Array, Array]:
    """The strip of each rank, far enough from the next, and the way it is gone along."""
    strips = np.arange(n_rows) * n_strips // n_rows
    return 4.0 * strips, np.where(strips % 2, -1.0, 1.0)
