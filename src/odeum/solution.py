"""What a solve returns: the states, and for each row how it went."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntEnum

import torch
from torch.utils import _pytree as pytree

from odeum.errors import InputError
from odeum.types import PyTree, Tensor


class Status(IntEnum):
    """How a row's solve ended.

    Example:
        >>> Status(0)
        <Status.SUCCESS: 0>
    """

    SUCCESS = 0
    EVENT = 1
    MAX_STEPS = 2
    STEP_TOO_SMALL = 3
    NON_FINITE = 4
    NOT_CONVERGED = 5
    ZENO = 6


@dataclass
class Stats:
    """Work done, per row, shaped like ``status``.

    Attributes:
        n_evaluations: evaluations of the field.
        n_accepted: steps taken.
        n_rejected: steps tried and discarded.
        n_jacobians: Jacobians of the field, where the method needs them; else None.
        n_factorisations: matrices factorised, likewise.
        backward: the work of the backward solve, once it has run.
    """

    n_evaluations: Tensor
    n_accepted: Tensor
    n_rejected: Tensor
    n_jacobians: Tensor | None = None
    n_factorisations: Tensor | None = None
    backward: "Stats | None" = None

    def spread(self, batch_shape: tuple[int, ...]) -> "Stats":
        """The same for rows as the user counts them: see :func:`spread`."""
        return self._changed(lambda _, count: spread(count, batch_shape))

    def scattered(self, rows: Tensor, n_rows: int) -> "Stats":
        """The same for a batch of which these are some rows; nothing for the others."""
        return self._changed(lambda _, count: count.new_zeros(n_rows).index_copy(0, rows, count))

    def plus(self, other: "Stats") -> "Stats":
        """The work of both."""
        return self._changed(lambda name, count: count + getattr(other, name))

    def add_backward(self, work: "Stats") -> None:
        """Adds the work of a backward solve; a solve in phases has one for each."""
        self.backward = work if self.backward is None else self.backward.plus(work)

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Stats":
        """The same with every count changed."""
        return self._changed(lambda _, count: change(count))

    def _changed(self, change: Callable[[str, Tensor], Tensor]) -> "Stats":
        changed = replace(self, backward=None)
        for name in _COUNTS:
            count = getattr(self, name)
            if count is not None:
                setattr(changed, name, change(name, count))
        return changed


_COUNTS = ("n_evaluations", "n_accepted", "n_rejected", "n_jacobians", "n_factorisations")


def spread(values: Tensor, batch_shape: tuple[int, ...]) -> Tensor:
    """Values per solved row, [rows], as values per row of the user's batch.

    A joint solve has one row for the whole batch, a [dim] state one row and no batch.

    Example:
        >>> spread(torch.tensor([7]), (3,)), spread(torch.tensor([7]), ())
        (tensor([7, 7, 7]), tensor(7))
    """
    return values.expand(batch_shape) if batch_shape else values[0]


@dataclass(frozen=True)
class EventRecord:
    """What happened of one event.

    Attributes:
        times: when it happened, [firings, batch], NaN where a row had fewer; at least one row
            of ``times``, so that ``times[0]`` is always the first firing.
        states: the states then, before any jump, the structure of ``y0`` with a leading axis of
            firings; NaN likewise.
        count: how often it happened, [batch].
    """

    times: Tensor
    states: PyTree
    count: Tensor

    @property
    def time(self) -> Tensor:
        """When it first happened, [batch]; NaN where it did not."""
        return self.times[0]

    @property
    def state(self) -> PyTree:
        """The state when it first happened, the structure of ``y0``."""
        return pytree.tree_map(lambda x: x[0], self.states)

    @property
    def fired(self) -> Tensor:
        """Whether it happened, [batch]."""
        return self.count > 0


@dataclass
class Solution:
    """A solved initial value problem.

    Attributes:
        ts: the output times as given, [time] or [time, batch].
        ys: states at those times, the structure of ``y0`` with a leading time axis; NaN after the
            failure of a row that failed, and after the event that stopped one.
        status: a code of :class:`Status` per row, [batch]; 0-dimensional for a [dim] state.
        stats: evaluations and steps per row.
        engine: the engine that ran.
        engine_reason: why that one.
        integrals: those asked for, by name: from ``ts[0]`` to each output time, [time, batch], or
            [time] for a [dim] state; NaN where ``ys`` is.
        events: what happened of each event, in the order they were given.

    Example:
        >>> import odeum
        >>> y0, ts = torch.ones(1, 1), torch.tensor([0.0, 1.0])
        >>> sol = odeum.solve(lambda t, y: -y, y0, ts, dense=True)
        >>> bool(sol.status == Status.SUCCESS), tuple(sol(0.5).shape)
        (True, (1, 1))
    """

    ts: Tensor
    ys: PyTree
    status: Tensor
    stats: Stats
    engine: str
    engine_reason: str
    integrals: dict[str, Tensor] = field(default_factory=dict)
    events: list[EventRecord] = field(default_factory=list)
    interpolate: Callable[[Tensor], PyTree] | None = field(default=None, repr=False)

    def __call__(self, t: Tensor | float) -> PyTree:
        """The state at any time inside the span, by the method's own dense output.

        Args:
            t: a number or 0-dimensional tensor, [k] shared times, or [k, batch] per row.

        Returns:
            The structure of ``y0``, with a leading axis ``k`` unless ``t`` is a scalar; NaN
            outside the span that the row was solved over.

        Raises:
            InputError: if the solve did not keep its dense output.
        """
        if self.interpolate is None:
            raise InputError(
                "this solution kept only its states at ts: pass dense=True to odeum.solve "
                "to evaluate it at other times"
            )
        return self.interpolate(torch.as_tensor(t, dtype=self.ts.dtype, device=self.ts.device))
