"""Linear systems, one per row: never a matrix over the batch."""

from copy import copy

import torch

from odeum.types import Tensor


class Factorised:
    """The LU factorisation of a matrix per row.

    Args:
        matrix: [rows, n, n].
    """

    def __init__(self, matrix: Tensor) -> None:
        self._lu, self._pivots, _ = torch.linalg.lu_factor_ex(matrix)

    @property
    def size(self) -> int:
        """The number of unknowns, n."""
        return self._lu.shape[-1]

    @staticmethod
    def shifted(reach: Tensor, jacobians: Tensor) -> "Factorised":
        """``1 - reach J`` of every row.

        Args:
            reach: [rows, 1].
            jacobians: [rows, n, n].
        """
        eye = torch.eye(jacobians.shape[-1], dtype=jacobians.dtype, device=jacobians.device)
        return Factorised(eye - reach.unsqueeze(-1) * jacobians)

    def solve(self, x: Tensor) -> Tensor:
        """The solution for right-hand sides [rows, n]."""
        return torch.linalg.lu_solve(self._lu, self._pivots, x.unsqueeze(-1)).squeeze(-1)

    def select(self, at: Tensor) -> "Factorised":
        """The same of some of the rows."""
        part = copy(self)
        part._lu, part._pivots = (x.index_select(0, at) for x in (self._lu, self._pivots))
        return part

    def replaced(self, at: Tensor, other: "Factorised | None") -> "Factorised":
        """The same with the rows ``at`` taken from another one."""
        assert other is not None
        merged = copy(self)
        merged._lu = self._lu.index_copy(0, at, other._lu)
        merged._pivots = self._pivots.index_copy(0, at, other._pivots)
        return merged
