"""Where a solve was looked at: outputs and marks in the order in which a backward solve meets them.

Knows times and rows, and no equation.
"""

from dataclasses import dataclass

import torch

from odeum.eager.problem import Problem
from odeum.eager.records import Marked
from odeum.types import Tensor


@dataclass(frozen=True)
class Observations:
    """States that have cotangents, the last of each row first.

    Attributes:
        rows: the row of each, [n].
        index: the index of its output time, -1 for marks, [n].
        t: its time, [n].
        before: that of the row's observation before it, or where the row starts, [n].
        y: the state, [n, dim].
        g: its cotangent, [n, dim].
        rank: how many observations of its row come after it, [n].
    """

    rows: Tensor
    index: Tensor
    t: Tensor
    before: Tensor
    y: Tensor
    g: Tensor
    rank: Tensor


def observations_of(
    problem: Problem, ys: Tensor, marked: Marked, g_ys: Tensor | None, g_marked: Tensor | None
) -> Observations:
    """Everything that a solve was seen at after its start, and that its rows have reached.

    Args:
        problem: what was solved.
        ys: states at the output times, [time, batch, dim].
        marked: states at marks.
        g_ys: cotangents of the first; zero where None.
        g_marked: cotangents of the second; marks are left out where None.
    """
    times = problem.times()
    every = torch.arange(len(problem.y0), device=ys.device)
    first, count = times.counts(every, times.start, times.end)
    output = torch.arange(times.n_times, device=ys.device).unsqueeze(-1)
    reached = (output >= first) & (output < first + count) & ys.isfinite().all(-1)
    index, rows = reached.nonzero(as_tuple=True)
    g = torch.zeros_like(ys) if g_ys is None else g_ys
    parts = [(rows, index, times.at(index, rows), ys[index, rows], g[index, rows])]
    if g_marked is not None:
        no_index = torch.full_like(marked.rows, -1)
        parts.append((marked.rows, no_index, marked.t, marked.y, g_marked))
    rows, index, t, y, g = (torch.cat(part) for part in zip(*parts, strict=True))
    backwards = (t * times.direction[rows].squeeze(-1)).argsort(descending=True, stable=True)
    order = backwards[rows[backwards].argsort(stable=True)]
    rows, index, t, y, g = (x[order] for x in (rows, index, t, y, g))
    n_of_row = torch.bincount(rows, minlength=len(every))
    rank = torch.arange(len(rows), device=ys.device) - (n_of_row.cumsum(0) - n_of_row)[rows]
    is_first = rank == n_of_row[rows] - 1
    before = torch.where(is_first, times.start[rows].squeeze(-1), t.roll(-1))
    return Observations(rows, index, t, before, y, g, rank)
