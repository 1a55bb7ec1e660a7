"""What the loop tells others: of each step that rows accepted, and of a row that failed."""

from dataclasses import dataclass

from odeum.solution import Status
from odeum.types import Tensor


@dataclass(frozen=True)
class Record:
    """One tried step of all running rows: what the exact gradient needs to take it again.

    Attributes:
        rows: the running rows, ascending, [steps].
        accept: which of them accepted it, [steps, 1]; None where all did.
        t: where the steps start, [steps, 1].
        h: their signed sizes, [steps, 1].
        t1: where they end, [steps, 1]; ``t`` where a row did not accept it.
        y: states at their starts, [steps, dim].
        stops: index of the output time each was cut to land on, [steps]; -1 where it was not cut.
            None where none was.
        finite: whether all derivatives were finite.
    """

    rows: Tensor
    accept: Tensor | None
    t: Tensor
    h: Tensor
    t1: Tensor
    y: Tensor
    stops: Tensor | None
    finite: bool

    def accepted(self) -> "Record":
        """The same of the rows that accepted the step alone."""
        if self.accept is None:
            return self
        at = self.accept.squeeze(-1).nonzero().squeeze(-1)
        rows, t, h, t1, y = (x[at] for x in (self.rows, self.t, self.h, self.t1, self.y))
        stops = None if self.stops is None else self.stops[at]
        return Record(rows, None, t, h, t1, y, stops, finite=True)


@dataclass(frozen=True)
class Failure:
    """Where a row failed, with the step size it would have tried next, state and derivative."""

    row: int
    status: Status
    t: float
    h: float
    n_tried: int
    y: Tensor
    k: Tensor
