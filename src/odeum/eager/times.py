"""The output times: where each row starts and ends, and which outputs lie inside which step."""

import torch

from odeum.errors import InputError
from odeum.types import Tensor


class Times:
    """Output times of a batch, shared or per row, each row increasing or decreasing.

    Args:
        ts: [time] shared or [time, batch] per row.
        n_rows: the number of rows.
        start: where rows start, [batch, 1]; at the first output time where None.
        end: where they end, [batch, 1]; at the last output time where None.

    Attributes:
        n_times: number of output times.
        start: where each row starts, [batch, 1].
        end: where it ends, [batch, 1].
        starts_at_output: whether rows start at the first output time.
        direction: +1 or -1 per row, [batch, 1].
        increasing: whether time increases in every row.

    Raises:
        InputError: where ``ts`` has another shape, fewer than two times, or is not monotone.

    Example:
        >>> times = Times(torch.tensor([0.0, 0.5, 1.0]), n_rows=2)
        >>> t, t1 = torch.tensor([[0.0], [0.4]]), torch.tensor([[0.6], [1.0]])
        >>> times.hits(torch.tensor([0, 1]), t, t1)
        (tensor([0, 1, 1]), tensor([1, 1, 2]))
    """

    def __init__(
        self, ts: Tensor, n_rows: int, start: Tensor | None = None, end: Tensor | None = None
    ) -> None:
        _check(ts, n_rows)
        self.ts = ts
        self.per_row = ts.ndim == 2
        self.n_times = len(ts)
        columns = ts if self.per_row else ts[:, None].expand(-1, n_rows)
        self.starts_at_output = start is None
        self.start = columns[0].unsqueeze(-1) if start is None else start
        self.end = columns[-1].unsqueeze(-1) if end is None else end
        steps = ts.detach().diff(dim=0)
        signs = steps.sign()
        _check_monotone(ts, steps, signs)
        self.direction = signs[0].view(-1, 1).expand(n_rows, 1)
        self.increasing = bool((signs > 0).all())
        ascending = ts.detach() * signs[0]
        self._ascending = ascending.t().contiguous() if self.per_row else ascending

    def at(self, index: Tensor, rows: Tensor) -> Tensor:
        """Output times of those indices and rows, [k]."""
        return self.ts[index, rows] if self.per_row else self.ts[index]

    def stop(self, index: Tensor, rows: Tensor) -> Tensor:
        """Output times of those indices and rows, or the rows' ends where they are nearer, [k, 1].

        For the last index it is the end.
        """
        outputs, ends = self.at(index, rows).unsqueeze(-1), self.end[rows]
        nearer = (outputs - ends).detach() * self.direction[rows] < 0
        return torch.where(nearer, outputs, ends)

    def counts(self, rows: Tensor, t: Tensor, t1: Tensor) -> tuple[Tensor, Tensor]:
        """Index of the first output after ``t``, and the number of outputs in ``(t, t1]``."""
        direction = self.direction[rows]
        bounds = torch.cat([t.detach() * direction, t1.detach() * direction], -1)
        if self.per_row:
            found = torch.searchsorted(self._ascending[rows], bounds, right=True)
        else:
            found = torch.searchsorted(self._ascending, bounds, right=True)
        return found[:, 0], found[:, 1] - found[:, 0]

    def hits(self, rows: Tensor, t: Tensor, t1: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs inside steps.

        Args:
            rows: the row of each step, [steps].
            t: where they start, [steps, 1].
            t1: where they end, [steps, 1].

        Returns:
            For each output with ``t < output <= t1``: the step's position, and the output's index.
        """
        first, count = self.counts(rows, t, t1)
        step = torch.repeat_interleave(count)
        before = count.cumsum(0) - count
        index = torch.arange(len(step), device=step.device) + (first - before)[step]
        return step, index

    def add_to(self, totals: Tensor, index: Tensor, rows: Tensor, values: Tensor) -> None:
        """Adds numbers [k] to those of the output times of indices and rows, laid out as ``ts``."""
        at = (index, rows) if self.per_row else (index,)
        totals.index_put_(at, values, accumulate=True)

    def has_interior(self, rows: Tensor, t: Tensor, t1: Tensor) -> Tensor:
        """Which steps have an output strictly inside, [steps]."""
        return self.counts(rows, t, torch.nextafter(t1, t))[1] > 0


def spacing(t: Tensor, end: Tensor) -> Tensor:
    """Distance of times from the next larger number; near zero, from that of roundings of an end.

    Example:
        >>> spacing(torch.tensor([1.0, 0.0]), torch.tensor([4.0, 4.0]))
        tensor([1.1921e-07, 5.6843e-14])
    """
    t, end = t.detach().abs(), end.detach().abs()
    reach = torch.maximum(t, torch.finfo(t.dtype).eps * end)
    return torch.nextafter(reach, torch.full_like(reach, torch.inf)) - reach


def _check(ts: Tensor, n_rows: int) -> None:
    if ts.ndim not in (1, 2) or (ts.ndim == 2 and ts.shape[1] != n_rows):
        raise InputError(
            f"ts has shape {list(ts.shape)}: give [time] shared by all rows, or [time, batch] "
            f"with one column per row ({n_rows} here)"
        )
    if len(ts) < 2:
        raise InputError(
            f"ts holds {len(ts)} time{'s' * (len(ts) != 1)}: give at least two, "
            "the first is where y0 holds"
        )
    if not bool(torch.isfinite(ts).all()):
        raise InputError("ts holds NaN or infinite times: give finite ones")


def _check_monotone(ts: Tensor, steps: Tensor, signs: Tensor) -> None:
    wrong = (signs != signs[0]) | (signs == 0)
    if bool(wrong.any()):
        where = wrong.nonzero()[0].tolist()
        i, row = where[0], where[1:]
        before, after = (float(ts.detach()[(j, *row)]) for j in (i, i + 1))
        raise InputError(
            f"ts is not strictly monotone: ts[{i}] = {before:g} is followed by "
            f"ts[{i + 1}] = {after:g}{f' in row {row[0]}' if row else ''}; "
            "sort the times and drop duplicates"
        )
