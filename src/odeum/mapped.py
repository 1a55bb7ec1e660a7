"""A solve inside ``torch.func.vmap``: the mapped axis becomes rows of a larger batch.

A time loop decides by values, and tensors under a vmap have none to decide by. So what is mapped
is laid out as rows, each with its own steps, and only the user's functions are called as the vmap
would call them. Knows nothing of how rows are solved.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch.utils import _pytree as pytree

from odeum.eager.event import Event
from odeum.eager.field import RowField
from odeum.eager.recording import is_transformed, unrecorded
from odeum.eager.tangents import inner_derivatives_explained
from odeum.eager.vmap import Captured, Map, map_of, mapped_levels
from odeum.errors import InputError, SolveError
from odeum.methods import Auto
from odeum.solution import EventRecord, Solution
from odeum.types import PyTree, Tensor


@dataclass(frozen=True)
class Layout:
    """How the rows of a solve lie under a vmap, each entry with its own, and how all lie as one.

    Attributes:
        map: the vmap.
        field: the user's field on the rows of an entry.
        y0: the states that all rows start from, in the structure of ``y0``, [rows, ...].
        ts: their output times, [time, rows].
    """

    map: Map
    field: RowField
    y0: PyTree
    ts: Tensor

    @staticmethod
    def of(found: Map, field: RowField, y0: PyTree, ts: Tensor) -> "Layout":
        """The layout of a solve.

        Args:
            found: the vmap.
            field: the user's field on the rows of an entry.
            y0: the user's initial state.
            ts: the user's output times, [time] or [time, batch].
        """
        bare = Layout(found, field, y0, ts)
        return Layout(found, field, pytree.tree_map(bare.rows, y0), bare.row_times(ts))

    @property
    def n_each(self) -> int:
        """Rows of an entry."""
        return 1 if self.field.scalar_time else self.field.structure.batch_shape[0]

    def rows(self, x: Tensor) -> Tensor:
        """[rows, ...] from what each entry has for its rows, [batch, ...], or for its only one."""
        return self._joined(self.map.exposed(x))

    def _joined(self, x: Tensor) -> Tensor:
        return x if self.field.scalar_time else x.flatten(0, 1)

    @cached_property
    def _captured(self) -> "Captured":
        return Captured(self.map)

    def row_times(self, t: Tensor) -> Tensor:
        """[time, rows] from times of each entry, [time] or [time, batch]."""
        columns = t if t.ndim == 2 else t.unsqueeze(1).expand(-1, self.n_each)
        return self.map.exposed(columns.transpose(0, 1)).flatten(0, 1).transpose(0, 1)

    def entries(self, x: Tensor) -> Tensor:
        """What each entry has for its rows, [batch, ...], from [rows, ...]."""
        return self.map.hidden(x.unflatten(0, (self.map.size, self.n_each)))

    def restored(self, x: Tensor, axis: int = 0) -> Tensor:
        """:meth:`entries` as the user has them, from a tensor where rows are at that axis."""
        x = self.entries(x.movedim(axis, 0))
        return x[0] if self.field.scalar_time else x.movedim(0, axis)

    def lifted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A user's function on all rows, called for some: ``f(t, y, numbers of the rows)``."""

        def on_rows(t: Tensor, y: PyTree, numbers: Tensor) -> Any:
            if bool((numbers.diff() <= 0).any()):
                again = _seen_before(numbers)
                if bool(again.any()):
                    return _in_two(on_rows, again, (t, y, numbers))
            # Times and states in one tensor: what takes them under the vmap costs by the call.
            points = torch.cat([t.reshape(len(numbers), 1), self._flat(y)], 1)
            points = torch.cat([points, self._start]).index_select(0, self._sources(numbers))
            values = self._on_entries(function, points)
            return pytree.tree_map(lambda x: x.index_select(0, numbers), values)

        return on_rows

    def _on_entries(self, function: Callable[..., Any], points: Tensor) -> PyTree:
        """A user's function at times and states of all rows, [rows, 1 + dim]."""

        def on_entry(points: Tensor) -> PyTree:
            t, y = points.split([1, points.shape[1] - 1], 1)
            return function(*self.field.inputs(t, y.contiguous()))

        if self.map.below_gradients:
            points_each = points.unflatten(0, (self.map.size, self.n_each))
            values = self._captured.mapped(on_entry, points_each)
            if not any(self.map.level in mapped_levels(x) for x in pytree.tree_leaves(values)):
                return pytree.tree_map(self._joined, values)
        return pytree.tree_map(self.rows, on_entry(self.entries(points)))

    def _flat(self, y: PyTree) -> Tensor:
        """[rows, dim] from states in the structure of ``y0``, [rows, ...]."""
        flat = self.field.structure.flatten(y)
        return flat.reshape(len(pytree.tree_leaves(y)[0]), -1)

    @cached_property
    def _start(self) -> Tensor:
        """Times and states that all rows start from, [rows, 1 + dim]."""
        y0 = self._flat(self.y0).detach()
        return torch.cat([self.ts[0].detach().unsqueeze(1).to(y0.dtype), y0], 1)

    def _sources(self, numbers: Tensor) -> Tensor:
        """Where each row takes its state from: those called for, then the starts of all, [rows].

        A user's function is called on all rows. Those that are not called for stand where another
        of their entry does, which is as harmless as it is for that one, or where they start.
        """
        n_rows = self.map.size * self.n_each
        every = torch.arange(n_rows, device=numbers.device)
        called = torch.full_like(every, -1).index_copy(0, numbers, every[: len(numbers)])
        by_entry = called.view(self.map.size, self.n_each)
        others = by_entry.amax(1, keepdim=True).expand_as(by_entry).reshape(-1)
        starts = every + len(numbers)
        return torch.where(called >= 0, called, torch.where(others >= 0, others, starts))


def _seen_before(numbers: Tensor) -> Tensor:
    """Which of the numbers came earlier already, [k]."""
    ordered, order = numbers.sort(stable=True)
    again = torch.zeros_like(numbers, dtype=torch.bool)
    again[order[1:]] = ordered[1:] == ordered[:-1]
    return again


def _in_two(function: Callable[..., Any], second: Tensor, inputs: tuple[Any, ...]) -> Any:
    """A function of rows called for some, and then for the others."""
    parts = [at.nonzero().squeeze(-1) for at in (~second, second)]
    values = [
        function(*pytree.tree_map(lambda x, at=at: x.index_select(0, at), inputs)) for at in parts
    ]
    back = torch.cat(parts).argsort()
    return pytree.tree_map(lambda *x: torch.cat(x).index_select(0, back), *values)


def map_to_solve(field: RowField, y0: PyTree, ts: Tensor, shared: PyTree) -> Map | None:
    """The vmap to solve for: that over initial states, times, or what the field makes of them.

    Args:
        field: the user's field on the rows of an entry.
        y0: the user's initial state.
        ts: the user's output times.
        shared: what all entries must have in common.

    Raises:
        InputError: where that is mapped, or the field differentiates inside as no transform allows.
    """
    if not is_transformed():
        return None
    if map_of(shared) is not None:
        raise InputError(
            "rtol, atol or breaks are mapped by torch.func.vmap: all entries share them"
        )
    flat = field.structure.flatten(y0)
    flat = flat.reshape(1, -1) if field.joint else flat
    t0 = (ts[0] if ts.ndim == 2 else ts[:1]).unsqueeze(-1).expand(len(flat), 1)
    with unrecorded(), inner_derivatives_explained():
        return map_of(y0, ts, field(t0.to(flat.dtype), flat))


@contextmanager
def rows_explained(layout: Layout) -> Iterator[None]:
    """A failure of a row says how rows lie."""
    try:
        yield
    except SolveError as error:
        n_each, size = layout.n_each, layout.map.size
        error.add_note(
            f"torch.func.vmap makes {size * n_each} rows of {size} entries with {n_each} each: "
            f"row i is row i % {n_each} of entry i // {n_each}"
        )
        raise


def lifted_method(method: Any, layout: Layout) -> Any:
    """A method whose Jacobian, where the user gave one, is that of all rows."""
    if isinstance(method, Auto):
        return replace(method, stiff=lifted_method(method.stiff, layout))
    given = getattr(method, "jacobian", None)
    return method if given is None else replace(method, jacobian=layout.lifted(given))


def lifted_event(event: Event, layout: Layout) -> Event:
    """An event of all rows."""
    jump = event.jump and layout.lifted(lambda *inputs: event.call("jump", inputs))
    return replace(event, fn=layout.lifted(lambda *inputs: event.call("fn", inputs)), jump=jump)


def unlifted(solution: Solution, layout: Layout, ts: Tensor) -> Solution:
    """The solution of all rows, as the vmap has it.

    Args:
        solution: that of all rows.
        layout: how they lie.
        ts: the user's output times.
    """
    batch_shape = layout.field.structure.batch_shape

    def counts(x: Tensor) -> Tensor:
        x = layout.restored(x)
        return x.expand(batch_shape) if layout.field.joint else x

    def record(fired: EventRecord) -> EventRecord:
        times = layout.restored(fired.times, 1)
        if layout.field.joint and batch_shape:
            times = times.unsqueeze(-1).expand(-1, *batch_shape)
        states = pytree.tree_map(lambda x: layout.restored(x, 1), fired.states)
        return EventRecord(times=times, states=states, count=counts(fired.count))

    def interpolate(t: Tensor) -> PyTree:
        assert solution.interpolate is not None
        flat = solution.interpolate(layout.row_times(t.reshape(-1) if t.ndim == 0 else t))
        states = pytree.tree_map(lambda x: layout.restored(x, 1), flat)
        return pytree.tree_map(lambda x: x[0], states) if t.ndim == 0 else states

    return replace(
        solution,
        ts=ts,
        ys=pytree.tree_map(lambda x: layout.restored(x, 1), solution.ys),
        status=counts(solution.status),
        stats=solution.stats.changed(counts),
        events=[record(fired) for fired in solution.events],
        interpolate=None if solution.interpolate is None else interpolate,
    )
