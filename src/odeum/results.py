"""What a solve hands back: rows in the user's structure. Knows nothing of how they were solved."""

from collections.abc import Callable

import torch
from torch.utils import _pytree as pytree

from odeum.eager.field import RowField
from odeum.eager.outputs import Interpolant
from odeum.eager.problem import Outcome, Problem
from odeum.errors import InputError
from odeum.phases import Firings
from odeum.solution import EventRecord, spread
from odeum.types import PyTree, Tensor


def states_of(rows: Tensor, field: RowField) -> PyTree:
    """The user's states in rows [time, rows, dim], without integrals."""
    return field.unflatten(field.state(rows))


def integrals_of(rows: Tensor, field: RowField) -> dict[str, Tensor]:
    """The integrals in rows [time, rows, dim], by name: [time, batch] each."""
    if field.integrals is None:
        return {}
    batch = field.structure.batch_shape
    values = rows[..., field.dim :].reshape(len(rows), *batch, len(field.integrals))
    return dict(zip(field.integrals.integrands, values.unbind(-1), strict=True))


def interpolant_of(outcome: Outcome, problem: Problem) -> Callable[[Tensor], PyTree]:
    """The user's states at any times, from the steps of a dense solve."""
    n_rows = len(problem.y0)
    interpolant = Interpolant(outcome.segments, problem.times().direction, problem.y0.detach())

    def evaluate(t: Tensor) -> PyTree:
        if t.ndim > 2 or (t.ndim == 2 and t.shape[1] != n_rows):
            raise InputError(
                f"a solution was called with times of shape {list(t.shape)}: give a number, [k] "
                f"times, or [k, batch] with one column for each of its {n_rows} rows"
            )
        columns = t.reshape(-1, 1).expand(-1, n_rows) if t.ndim < 2 else t
        states = states_of(interpolant(columns), problem.field)
        return pytree.tree_map(lambda x: x[0], states) if t.ndim == 0 else states

    return evaluate


def event_record_of(fired: Firings, problem: Problem) -> EventRecord:
    """What happened of one event, row by row in the order of time."""
    n_rows = len(problem.y0)
    count = torch.bincount(fired.rows, minlength=n_rows)
    # Chronological within a row: the order of a stable sort by rows.
    order = fired.rows.argsort(stable=True)
    first = count.cumsum(0) - count
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - first[fired.rows[order]]
    depth = max(int(count.max()), 1)
    times = fired.t.new_full((depth, n_rows), torch.nan)
    times = times.index_put((rank, fired.rows), fired.t)
    states = fired.y.new_full((depth, n_rows, problem.y0.shape[1]), torch.nan)
    states = states.index_put((rank, fired.rows), fired.y)
    batch = problem.field.structure.batch_shape
    times = times.expand(-1, *batch) if batch else times[:, 0]
    states = states_of(states, problem.field)
    return EventRecord(times=times, states=states, count=spread(count, batch))
