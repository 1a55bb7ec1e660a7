"""The accepted steps of a batch, sorted so that a backward sweep reads them front to back.

Rows are ranked by their number of steps, most first. The i-th steps of all rows that have one
form group i; its rows are the first so many ranks, so a group's row data are plain slices.
"""

from dataclasses import dataclass

import torch

from odeum.solve.loop import Accepted
from odeum.types import Tensor


@dataclass(frozen=True)
class Group:
    """The i-th accepted step of every row that took so many.

    Attributes:
        n_rows: number of rows, the first of the ranking.
        t: where the steps start, [rows, 1].
        h: their signed sizes, [rows, 1].
        t1: where they end, [rows, 1].
        y: states at their starts, [rows, dim].
        stops: index of the output time each was cut to land on, [rows]; -1 where it was not cut.
        first: position of the group's first step among all sorted steps.
    """

    n_rows: int
    t: Tensor
    h: Tensor
    t1: Tensor
    y: Tensor
    stops: Tensor
    first: int


class Tape:
    """All accepted steps of a solve, sorted by step number and rank of their row.

    Args:
        records: the steps as they were taken; may be emptied.
        n_rows: number of rows in the batch.

    Attributes:
        rows: the row of each sorted step, [steps].
        order: where each sorted step stood among the records, [steps].
        ranking: rows, by number of steps, [batch]; rows that took none come last.
    """

    def __init__(self, records: list[Accepted], n_rows: int) -> None:
        rows = torch.cat([record.rows for record in records])
        n_steps = torch.bincount(rows, minlength=n_rows)
        self.ranking = torch.argsort(n_steps, descending=True, stable=True)
        rank = torch.empty_like(self.ranking)
        rank[self.ranking] = torch.arange(n_rows, device=rank.device)
        # Steps of one row come in the order of time: a stable sort by row numbers them.
        by_row = torch.argsort(rows, stable=True)
        number = torch.empty_like(rows)
        start = n_steps.cumsum(0) - n_steps
        number[by_row] = torch.arange(len(rows), device=rows.device) - start[rows[by_row]]
        self.order = torch.argsort(number * n_rows + rank[rows])
        self.rows = rows[self.order]
        stops = [
            torch.full_like(record.rows, -1) if record.stops is None else record.stops
            for record in records
        ]
        self._sizes = torch.bincount(number).tolist()
        self.t, self.h, self.t1, self._y = (
            torch.cat([getattr(record, name) for record in records])[self.order]
            for name in ("t", "h", "t1", "y")
        )
        self._stops = torch.cat(stops)[self.order]

    def __len__(self) -> int:
        return len(self.rows)

    def groups(self) -> list[Group]:
        """The groups, first steps first."""
        columns = (x.split(self._sizes) for x in (self.t, self.h, self.t1, self._y, self._stops))
        groups, first = [], 0
        for t, h, t1, y, stops in zip(*columns, strict=True):
            groups.append(Group(len(t), t, h, t1, y, stops, first))
            first += len(t)
        return groups
