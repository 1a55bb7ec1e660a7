"""Integrals over time that give the gradients of parameters, ``int a df/dtheta dt``.

Summed by Gauss-Legendre quadrature over the steps of a backward solve: the adjoint is smooth inside
each, which ends at every observation. Knows no equation: it is told state and adjoint at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from odeum.eager.field import RowField
from odeum.eager.outputs import Segments
from odeum.gradient.totals import LeafGradients
from odeum.types import Tensor

NUMBERS_AT_ONCE = 2**16
"""Numbers in the states that one evaluation takes together."""

Split = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(rows [n], t [n, 1], solved [n, width]) -> (y [n, dim], a [n, dim])``."""


@dataclass(frozen=True)
class Nodes:
    """Where an integrand is wanted.

    Attributes:
        rows: rows of the batch, [n].
        t: times, [n, 1].
        solved: what the backward solve found there, [n, width].
        weights: of the integrand, [n, 1], signed and in units of time.
    """

    rows: Tensor
    t: Tensor
    solved: Tensor
    weights: Tensor


class ParameterIntegral:
    """The integrals of one backward solve, as far as it has come.

    Args:
        field: the user's field on the whole batch.
        leaves: tensors that want gradients and that the field uses.
        split: gives state and adjoint of what was solved.
        order: of the backward method; the quadrature is exact enough for it.
        like: states, [batch, dim].

    Attributes:
        of_leaves: gradients of ``leaves``.
        n_evaluations: evaluations of the field in each row, [batch].
    """

    def __init__(
        self, field: RowField, leaves: list[Tensor], split: Split, order: int, like: Tensor
    ) -> None:
        self.of_leaves = LeafGradients(leaves)
        self.n_evaluations = torch.zeros(len(like), dtype=torch.int64, device=like.device)
        self._field = field
        self._split = split
        self._nodes, self._weights = _gauss(order // 2 + 1, like.device)
        self._at_once = n_at_once(field, like)
        self._waiting: list[Nodes] = []
        self._n_waiting = 0

    def add(self, steps: Segments, rows: Tensor, size: Tensor) -> None:
        """Adds the integrals over steps.

        Args:
            steps: of the backward solve, their rows positions in ``rows``.
            rows: rows of the batch, [rows].
            size: what their adjoints are to be multiplied by, [rows, 1].
        """
        n_nodes = len(self._nodes)
        step = torch.arange(len(steps.rows), device=rows.device).repeat_interleave(n_nodes)
        # Steps go back in time: the integral from their ends to their starts is wanted.
        length = (steps.t - steps.t1)[step]
        node, weight = (
            x.to(length.dtype).repeat(len(steps.rows)).unsqueeze(-1)
            for x in (self._nodes, self._weights)
        )
        t = steps.t[step] - length * node
        position = steps.rows[step]
        solved = steps.evaluate(step, t.squeeze(-1))
        weights = (length * weight).to(size.dtype) * size[position]
        self._waiting.append(Nodes(rows[position], t, solved, weights))
        self._n_waiting += len(step)
        if self._n_waiting >= self._at_once:
            self.finish()

    def finish(self) -> None:
        """Evaluates what is left."""
        if not self._waiting:
            return
        waiting, self._waiting, self._n_waiting = self._waiting, [], 0
        rows, t, solved, weights = (
            torch.cat([getattr(nodes, name) for nodes in waiting])
            for name in ("rows", "t", "solved", "weights")
        )
        for i in range(0, len(rows), self._at_once):
            part = slice(i, i + self._at_once)
            y, a = self._split(rows[part], t[part], solved[part])
            with torch.enable_grad():
                f = self._field.select(rows[part])(t[part].to(y.dtype), y)
            self.of_leaves.pull([f], [a * weights[part]], [])
        # Rows may come several times.
        self.n_evaluations.index_add_(0, rows, torch.ones_like(rows))


@lru_cache(maxsize=16)
def _gauss(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the Gauss-Legendre quadrature over [0, 1], [n] each."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    exact = torch.empty(0, dtype=torch.float64, device=device)
    return exact.new_tensor((nodes + 1) / 2), exact.new_tensor(weights / 2)


def n_at_once(field: RowField, like: Tensor) -> int:
    """How many evaluations of a row are made in one call; [batch, dim] as ``like``."""
    if field.scalar_time:
        return 1
    n_rows, dim = like.shape
    return max(n_rows, NUMBERS_AT_ONCE // dim)
