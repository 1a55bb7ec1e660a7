"""Calls of a kernel: memory for it, steps in parts where the tape fills, and its way back."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from odeum.compile.emit.groups import RECORDED
from odeum.compile.emit.kernel import ARGUMENTS, SIZES, Spec
from odeum.compile.emit.module import MAX_THREADS
from odeum.compile.runtime.kernels import EntryPoint, Kernel
from odeum.compile.runtime.order import order_of
from odeum.types import Tensor

TRIES_AT_ONCE = 20_000
"""Tried steps of a group before Python looks at what else there is to do, Ctrl-C above all."""

Array = np.ndarray
_ArgumentArray = ctypes.c_int64 * len(ARGUMENTS)
_CAPACITY, _UNFINISHED, _FAILED, _FIRST_CALL, _LAST_CALL, _YS, _TAPE, _THREADS, _GRADIENTS = (
    ARGUMENTS.index(name)
    for name in (
        *("capacity", "n_unfinished", "n_failed", "first_call", "last_call"),
        *("ys", "tape", "threads", "g_ys"),
    )
)


class Control:
    """What is the same for all solves of a kind: tolerances and bounds on steps.

    Args:
        rtol: relative tolerance of every number of a state, [dim], in the dtype of the state.
        atol: absolute tolerance, likewise.
        first: first step; 0 where it is chosen.
        max: largest step.
        min: smallest step.
        fixed: the step size where steps are fixed; infinite to land on every output.
        max_steps: tried steps of a row.
    """

    def __init__(
        self,
        rtol: Array,
        atol: Array,
        *,
        first: float,
        max: float,
        min: float,
        fixed: float,
        max_steps: int,
    ) -> None:
        sizes = {"first": first, "max": max, "min": min, "fixed": fixed}
        self._sizes = np.array([sizes[name] for name in SIZES])
        self._held = (rtol, atol)
        self.max_steps = max_steps
        self.rtol, self.atol, self.sizes = (_address(x) for x in (rtol, atol, self._sizes))


@dataclass
class Tape:
    """Recorded steps of all groups.

    Attributes:
        memory: one record after the other, for each group.
        capacity: records that each group has room for.
        n_records: how many each has, [groups].
    """

    memory: Array
    capacity: int
    n_records: Array


class Solve:
    """One solve by a kernel.

    Args:
        kernel: the machine code.
        control: tolerances and bounds on steps.
        y0: initial states, [batch, dim]; contiguous, like all tensors here.
        ts: output times, [time] or [time, batch].
        tensors: what all rows share, then what each row has of its own, [batch, *shape], in the
            order of the kernel's inputs.
        n_threads: how many threads share the rows.
    """

    def __init__(
        self,
        kernel: Kernel,
        control: Control,
        y0: Tensor,
        ts: Tensor,
        tensors: Sequence[Tensor],
        n_threads: int,
    ) -> None:
        self.kernel = kernel
        n_rows, n_times = y0.shape[0], ts.shape[0]
        self._n_groups = n_groups = -(-n_rows // kernel.rows_at_once)
        self._n_threads = n_threads = min(n_threads, n_groups, MAX_THREADS)
        # Counts first, then groups: one piece of memory, for small solves are over soon.
        self._start_of_groups = 32 * n_rows
        self._memory = memory = np.zeros(32 * n_rows + n_groups * kernel.group_size, np.uint8)
        self._tapes: list[Tape] = []
        self._table = (ctypes.c_int64 * (len(tensors) + 1))(*[x.data_ptr() for x in tensors])
        self._order = order_of(y0, kernel.rows_at_once)
        # Held for as long as the kernel may read them.
        self._held = (control, y0, ts, tensors)
        counts, table = _address(memory), ctypes.addressof(self._table)
        self._arguments = _ArgumentArray(
            n_rows,
            n_times,
            n_groups,
            n_threads,
            TRIES_AT_ONCE,
            control.max_steps,
            0,  # capacity
            0,  # n_unfinished
            0,  # n_failed
            0,  # first_call
            0,  # last_call
            ts.data_ptr(),
            y0.data_ptr(),
            0,  # ys
            counts + self._start_of_groups,
            0,  # tape
            0,  # threads
            control.rtol,
            control.atol,
            control.sizes,
            table,
            table + 8 * kernel.n_shared,
            _address(self._order),
            counts,
            counts + 8 * n_rows,
            counts + 16 * n_rows,
            counts + 24 * n_rows,
        )

    @property
    def counts(self) -> Array:
        """Status, evaluations, accepted and rejected steps, [4, batch]."""
        return self._memory[: self._start_of_groups].view(np.int64).reshape(4, -1)

    @property
    def n_failed(self) -> int:
        """In how many registers of rows one did not arrive."""
        return self._arguments[_FAILED]

    @property
    def _groups(self) -> Array:
        return self._memory[self._start_of_groups :]

    def forward(self) -> Tensor:
        """Solves, and keeps the steps where the kernel records them.

        Returns:
            States at the output times, [time, batch, dim]; NaN where a row never arrived. They are
            not held here: what autograd makes of them holds this solve, and would never be freed.
        """
        _, y0, ts, _ = self._held
        ys = y0.new_empty((ts.shape[0], *y0.shape))
        self._arguments[_YS] = ys.data_ptr()
        if self.kernel.record_size:
            self._forward_recorded()
        else:
            while self._call(self.kernel.forward):
                pass
        return ys

    def _forward_recorded(self) -> None:
        kernel, recorded = self.kernel, self._recorded()
        tape = self._new_tape(kernel.usual_steps)
        while self._call(kernel.forward):
            tape.n_records = recorded.copy()
            if (recorded >= tape.capacity).any():
                recorded[:] = 0
                tape = self._new_tape(2 * tape.capacity)
        tape.n_records = recorded.copy()
        n_records = sum(int(part.n_records.max(initial=0)) for part in self._tapes)
        kernel.usual_steps = n_records + n_records // 4 + 8

    def _new_tape(self, capacity: int) -> Tape:
        memory = np.empty(self._n_groups * capacity * self.kernel.record_size, np.uint8)
        tape = Tape(memory, capacity, np.zeros(0))
        self._tapes.append(tape)
        self._arguments[_TAPE], self._arguments[_CAPACITY] = _address(memory), capacity
        return tape

    def backward(self, g_ys: Tensor) -> "Cotangents":
        """Pulls the solve back.

        Args:
            g_ys: cotangents of the states at the output times, [time, batch, dim], contiguous.
        """
        kernel, arguments = self.kernel, self._arguments
        assert kernel.backward is not None
        _, y0, ts, _ = self._held
        threads = np.zeros(self._n_threads * kernel.thread_size, np.uint8)
        g_y0 = torch.empty_like(y0)
        g_shared = torch.empty(sum(kernel.sizes), dtype=y0.dtype)
        g_row = [y0.new_empty(len(y0), *shape) for shape in kernel.row_shapes]
        table = (ctypes.c_int64 * (len(g_row) + 1))(*[x.data_ptr() for x in g_row])
        g_ts = None
        if kernel.spec.wants_times:
            own = () if kernel.spec.per_row_times else (self._n_threads,)
            g_ts = ts.new_zeros(*own, *ts.shape)
        arguments[_THREADS] = _address(threads)
        arguments[_GRADIENTS : _GRADIENTS + 5] = [
            g_ys.data_ptr(),
            g_y0.data_ptr(),
            0 if g_ts is None else g_ts.data_ptr(),
            g_shared.data_ptr(),
            ctypes.addressof(table),
        ]
        recorded = self._recorded()
        for i, tape in enumerate(reversed(self._tapes)):
            recorded[:] = tape.n_records
            arguments[_TAPE], arguments[_CAPACITY] = _address(tape.memory), tape.capacity
            arguments[_FIRST_CALL], arguments[_LAST_CALL] = i == 0, i == len(self._tapes) - 1
            self._call(kernel.backward)
        if g_ts is not None and not kernel.spec.per_row_times:
            g_ts = g_ts.sum(0)
        shared = []
        if kernel.sizes:
            parts = g_shared.split(kernel.sizes)
            shared = [part.view(shape) for part, shape in zip(parts, kernel.shapes, strict=True)]
        return Cotangents(g_y0, g_ts, [*shared, *g_row])

    def of_row(self, name: str, row: int) -> Tensor:
        """What is known of a row: "t", "h", "y" or "k"; [1] or [dim]."""
        layout, fields = self.kernel.spec.layout, self.kernel.spec.group
        _, y0, ts, _ = self._held
        group, place = divmod(int((self._order == row).nonzero()[0][0]), layout.n_rows)
        register, lane = divmod(place, layout.width)
        like, n = (ts, 1) if name in ("t", "h") else (y0, self.kernel.spec.dim)
        start = group * self.kernel.group_size + fields.offsets[name]
        size = n * layout.n_rows * like.dtype.itemsize
        values = torch.from_numpy(self._groups[start : start + size].copy()).view(like.dtype)
        return values.view(n, layout.registers, layout.width)[:, register, lane]

    def steps(self) -> "Steps":
        """Every accepted step, of each row in the order of time."""
        spec = self.kernel.spec
        _, y0, ts, _ = self._held
        parts = [self._steps_of(tape, spec, y0, ts) for tape in self._tapes]
        return Steps(*(torch.cat(columns) for columns in zip(*parts, strict=True)))

    def _steps_of(self, tape: Tape, spec: Spec, y0: Tensor, ts: Tensor) -> tuple[Tensor, ...]:
        layout, n_groups = spec.layout, self._n_groups
        memory = tape.memory.reshape(n_groups, tape.capacity, self.kernel.record_size)

        def field(name: str, like: Tensor, n: int) -> Tensor:
            """[groups, steps, registers, lanes, n]."""
            start = spec.record.offsets[name]
            size = n * layout.n_rows * like.dtype.itemsize
            part = torch.from_numpy(memory[:, :, start : start + size].copy()).view(like.dtype)
            shape = (n_groups, tape.capacity, n, layout.registers, layout.width)
            return part.view(shape).movedim(2, -1)

        places = torch.arange(n_groups * layout.n_rows)
        rows = torch.from_numpy(self._order)[places.clamp(max=len(y0) - 1)]
        places, rows = (x.view(n_groups, 1, layout.registers, -1) for x in (places, rows))
        used = torch.arange(tape.capacity) < torch.from_numpy(tape.n_records)[:, None]
        h = field("h", ts, 1)
        taken = (h[..., 0] != 0) & used[:, :, None, None] & (places < len(y0))
        n = spec.derivatives.n
        ks = field("ks", y0, n * spec.dim)[taken].view(-1, n, spec.dim)
        return (
            rows.expand_as(taken)[taken],
            field("t", ts, 1)[taken],
            field("t1", ts, 1)[taken],
            h[taken],
            field("y", y0, spec.dim)[taken],
            ks,
        )

    def _recorded(self) -> Array:
        """The number of records that each group has in the tape at hand, [groups]."""
        words = self._groups.view(np.int64)
        return words[self.kernel.numbers_at // 8 + RECORDED :: self.kernel.group_size // 8]

    def _call(self, entry: EntryPoint) -> int:
        """Calls an entry point; returns the number of groups that have not come to their ends."""
        arguments = self._arguments
        arguments[_UNFINISHED] = 0
        entry(ctypes.addressof(arguments))
        return arguments[_UNFINISHED]


@dataclass(frozen=True)
class Steps:
    """Accepted steps with what their interpolant needs.

    Attributes:
        rows: the row of each, [steps].
        t: where they start, [steps, 1].
        t1: where they end, [steps, 1].
        h: their signed sizes, [steps, 1].
        y: states at their starts, [steps, dim].
        ks: derivatives, [steps, derivatives, dim].
    """

    rows: Tensor
    t: Tensor
    t1: Tensor
    h: Tensor
    y: Tensor
    ks: Tensor


@dataclass(frozen=True)
class Cotangents:
    """Gradients of a solve's inputs.

    Attributes:
        y0: of the initial states, [batch, dim].
        ts: of the output times, in their shape; None where they are not wanted.
        tensors: of what all rows share, then of what each row has of its own: those wanted.
    """

    y0: Tensor
    ts: Tensor | None
    tensors: list[Tensor]


def _address(x: Array) -> int:
    return int(x.__array_interface__["data"][0])
