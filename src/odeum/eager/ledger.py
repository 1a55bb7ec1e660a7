"""How rows of a batch ended and the work they took, added up over all loops of one solve."""

import torch

from odeum.eager.stepper import Work
from odeum.solution import Stats, Status
from odeum.types import Tensor

RUNNING = -1
"""In place of a Status: the row goes on."""

HANDED_OVER = -2
"""In place of a Status: the row goes on in another loop."""


class Ledger:
    """Status and work per row of a batch.

    Args:
        n_rows: rows in the batch.
        device: theirs.
        implicit: whether equations are solved, so that Jacobians are counted.
        n_evaluations: evaluations every row had before its first step.
        n_tried: steps that rows tried before, [batch], which count against their limit.
    """

    def __init__(
        self,
        n_rows: int,
        device: torch.device,
        *,
        implicit: bool,
        n_evaluations: int,
        n_tried: Tensor | None = None,
    ) -> None:
        rows = torch.zeros(n_rows, dtype=torch.int64, device=device)
        self._n_tried_before = rows if n_tried is None else n_tried
        self.status = torch.full_like(rows, Status.SUCCESS)
        self.stats = Stats(
            n_evaluations=rows + n_evaluations,
            n_accepted=rows.clone(),
            n_rejected=rows.clone(),
            n_jacobians=rows.clone() if implicit else None,
            n_factorisations=rows.clone() if implicit else None,
        )

    @property
    def n_rows(self) -> int:
        """Rows in the batch."""
        return len(self.status)

    def n_tried(self, rows: Tensor) -> Tensor:
        """Steps that rows have tried, [rows]."""
        before = self._n_tried_before[rows]
        return before + self.stats.n_accepted[rows] + self.stats.n_rejected[rows]

    def add_work(self, rows: Tensor, work: Work) -> None:
        """Counts what these rows had beyond others."""
        self.stats.n_evaluations[rows] += work.n_evaluations
        for total, n in (
            (self.stats.n_jacobians, work.n_jacobians),
            (self.stats.n_factorisations, work.n_factorisations),
        ):
            if total is not None:
                total[rows] += n

    def close(
        self, rows: Tensor, status: Tensor, *, n_evaluations: int, n_tried: int, n_rejected: Tensor
    ) -> None:
        """Writes down how rows left a loop, and what each had in it."""
        self.status[rows] = status
        self.stats.n_evaluations[rows] += n_evaluations
        self.stats.n_rejected[rows] += n_rejected
        self.stats.n_accepted[rows] += n_tried - n_rejected
