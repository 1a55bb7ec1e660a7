"""Calls of a kernel: memory for it, steps in parts where the tape fills, and its way back.

Small solves are over in microseconds, and as many go into every operation here: hence tensors and
plain arrays, whose addresses cost next to nothing.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch._utils import _unflatten_dense_tensors

from odeum.compile.emit.groups import RECORDED
from odeum.compile.emit.kernel import ARGUMENTS, SIZES, Spec
from odeum.compile.emit.module import MAX_THREADS
from odeum.compile.runtime.kernels import EntryPoint, Kernel
from odeum.compile.runtime.threads import NO_TEAM, team
from odeum.types import Tensor

MUCH = 16
"""A tape that has so many times the room that was needed shrinks."""

TRIES_AT_ONCE = 20_000
"""Tried steps of a thread before Python looks at what else there is to do, Ctrl-C above all."""

Array = np.ndarray
_CAPACITY, _UNFINISHED, _FAILED, _MOST = map(
    ARGUMENTS.index, ("capacity", "n_unfinished", "n_failed", "most_recorded")
)
_FIRST_CALL, _LAST_CALL, _YS, _TAPE, _THREADS, _GRADIENTS = map(
    ARGUMENTS.index, ("first_call", "last_call", "ys", "tape", "threads", "g_ys")
)
_N_COUNTS = ARGUMENTS.index("row_t") - ARGUMENTS.index("status")


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
    """Recorded steps of all threads.

    Attributes:
        memory: one record after the other, for each thread.
        capacity: records that each thread has room for.
        n_records: how many each has; None in the tape at hand, where the kernel counts.
    """

    memory: Tensor
    capacity: int
    n_records: Tensor | None = None


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

    Attributes:
        counts: of status, evaluations, accepted and rejected steps, outputs reached, evaluations
            on the way back, and nothing, [7, batch].
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
        n_rows, dim = y0.shape
        self._n_threads = n_threads = min(n_threads, -(-n_rows // kernel.rows_at_once), MAX_THREADS)
        self.counts = counts = torch.zeros((_N_COUNTS + 1, n_rows), dtype=torch.int64)
        # What threads know, then of each row a time and a step, a state and a derivative, with
        # eight bytes for every number.
        self._n_words = n_words = n_threads * kernel.block_size // 8
        n_of_rows = 2 * n_rows * (1 + dim)
        self._memory = memory = torch.zeros(n_words + n_of_rows, dtype=torch.int64)
        self._tapes: list[Tape] = []
        self._table = table = array("q", [x.data_ptr() for x in tensors] or [0])
        # Held for as long as the kernel may read them.
        self._held = (control, y0, ts, tensors)
        at_table, at_counts = table.buffer_info()[0], counts.data_ptr()
        at_blocks = memory.data_ptr()
        at_rows = at_blocks + 8 * n_words
        self._arguments = array(
            "q",
            (
                n_rows,
                ts.shape[0],
                n_threads,
                min(kernel.rows_at_once, -(-n_rows // n_threads)),  # dealt
                TRIES_AT_ONCE,
                control.max_steps,
                0,  # capacity
                0,  # n_unfinished
                0,  # n_failed
                0,  # most_recorded
                0,  # first_call
                0,  # last_call
                *(team() if n_threads > 1 and not kernel.needs_deep_stack else NO_TEAM),
                ts.data_ptr(),
                y0.data_ptr(),
                0,  # ys
                at_blocks,
                0,  # tape
                0,  # threads
                control.rtol,
                control.atol,
                control.sizes,
                at_table,
                at_table + 8 * kernel.n_shared,
                at_counts,
                at_counts + 8 * n_rows,
                at_counts + 16 * n_rows,
                at_counts + 24 * n_rows,
                at_counts + 32 * n_rows,
                at_counts + 40 * n_rows,
                at_rows,
                at_rows + 8 * n_rows,
                at_rows + 16 * n_rows,
                at_rows + 8 * n_rows * (2 + dim),
                *(0,) * 5,  # gradients
            ),
        )

    @property
    def n_failed(self) -> int:
        """How many rows did not arrive."""
        return self._arguments[_FAILED]

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
        kernel, arguments = self.kernel, self._arguments
        # Rows that have a lane one after the other.
        n_turns = -(-len(self.counts[0]) // (self._n_threads * kernel.rows_at_once))
        n_records = 0
        self._new_tape(kernel.usual_steps * n_turns)
        while self._call(kernel.forward):
            tape = self._tapes[-1]
            if arguments[_MOST] == tape.capacity:
                tape.n_records = self._recorded().clone()
                self._recorded()[:] = 0
                n_records += tape.capacity
                arguments[_MOST] = 0
                self._new_tape(2 * tape.capacity)
        n_records += arguments[_MOST]
        if len(self._tapes) > 1 or n_records * MUCH < self._tapes[0].capacity:
            usual = n_records // n_turns
            kernel.usual_steps = usual + usual // 4 + 8

    def _new_tape(self, capacity: int) -> None:
        n_bytes = self._n_threads * capacity * self.kernel.record_size
        memory = torch.empty(n_bytes, dtype=torch.uint8)
        self._tapes.append(Tape(memory, capacity))
        self._arguments[_TAPE], self._arguments[_CAPACITY] = memory.data_ptr(), capacity

    def backward(self, g_ys: Tensor) -> "Cotangents":
        """Pulls the solve back.

        Args:
            g_ys: cotangents of the states at the output times, [time, batch, dim], contiguous.
        """
        kernel, arguments = self.kernel, self._arguments
        assert kernel.backward is not None
        _, y0, ts, tensors = self._held
        n_threads = self._n_threads
        threads = torch.zeros((n_threads, kernel.thread_size), dtype=torch.uint8)
        g_y0 = torch.empty_like(y0)
        shared = [tensors[i] for i in kernel.shared_wanted]
        g_shared = y0.new_empty(kernel.n_numbers)
        g_row = [y0.new_empty((len(y0), *shape)) for shape in kernel.row_shapes]
        table = array("q", [x.data_ptr() for x in g_row] or [0])
        g_ts = None
        if kernel.spec.wants_times:
            own = () if kernel.spec.per_row_times else (n_threads,)
            g_ts = ts.new_zeros((*own, *ts.shape))
        arguments[_THREADS] = threads.data_ptr()
        addresses = (
            g_ys.data_ptr(),
            g_y0.data_ptr(),
            0 if g_ts is None else g_ts.data_ptr(),
            g_shared.data_ptr(),
            table.buffer_info()[0],
        )
        arguments[_GRADIENTS:] = array("q", addresses)
        at_hand = self._recorded().clone() if len(self._tapes) > 1 else None
        for i, tape in enumerate(reversed(self._tapes)):
            if at_hand is not None:
                self._recorded()[:] = at_hand if tape.n_records is None else tape.n_records
            arguments[_TAPE], arguments[_CAPACITY] = tape.memory.data_ptr(), tape.capacity
            arguments[_FIRST_CALL], arguments[_LAST_CALL] = i == 0, i == len(self._tapes) - 1
            self._call(kernel.backward)
        if at_hand is not None:
            self._recorded()[:] = at_hand
        if g_ts is not None and not kernel.spec.per_row_times:
            g_ts = g_ts.sum(0)
        g_tensors = [*_unflatten_dense_tensors(g_shared, shared), *g_row] if shared else g_row
        return Cotangents(g_y0, g_ts, g_tensors)

    def of_failed(self, row: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Where a row was that did not arrive: time and next step, state and derivative there."""
        _, y0, ts, _ = self._held
        n_rows, dim = y0.shape
        at = self._n_words
        found = []
        for like, n in ((ts, 1), (ts, 1), (y0, dim), (y0, dim)):
            numbers = self._memory[at : at + n_rows * n].view(like.dtype)[: n_rows * n]
            found.append(numbers.view(n_rows, n)[row])
            at += n_rows * n
        t, h, y, k = found
        if not self.counts[2:4, row].any():  # nothing was tried
            t, y = ts[0] if ts.ndim == 1 else ts[0, row], y0[row]
        return t, h, y, k

    def steps(self) -> "Steps":
        """Every accepted step, of each row in the order of time."""
        spec = self.kernel.spec
        _, y0, ts, _ = self._held
        parts = [self._steps_of(tape, spec, y0, ts) for tape in self._tapes]
        return Steps(*(torch.cat(columns) for columns in zip(*parts, strict=True)))

    def _steps_of(self, tape: Tape, spec: Spec, y0: Tensor, ts: Tensor) -> tuple[Tensor, ...]:
        layout, n_threads = spec.layout, self._n_threads
        memory = tape.memory.view(n_threads, tape.capacity, self.kernel.record_size)

        def field(name: str, dtype: torch.dtype, n: int) -> Tensor:
            """[threads, steps, lanes, n]."""
            start = spec.record.offsets[name]
            size = n * layout.n_rows * dtype.itemsize
            part = memory[:, :, start : start + size].contiguous().view(dtype)
            return part.view(n_threads, tape.capacity, n, layout.n_rows).movedim(2, -1)

        n_records = self._recorded() if tape.n_records is None else tape.n_records
        used = torch.arange(tape.capacity) < n_records[:, None]
        h = field("h", ts.dtype, 1)
        taken = (h[..., 0] != 0) & used[:, :, None]
        n = spec.derivatives.n
        ks = field("ks", y0.dtype, n * spec.dim)[taken].view(-1, n, spec.dim)
        return (
            field("rows", torch.int32, 1)[taken][:, 0].long(),
            field("t", ts.dtype, 1)[taken],
            field("t1", ts.dtype, 1)[taken],
            h[taken],
            field("y", y0.dtype, spec.dim)[taken],
            ks,
        )

    def _recorded(self) -> Tensor:
        """The number of records that each thread has in the tape at hand, [threads]."""
        first = self.kernel.numbers_at // 8 + RECORDED
        return self._memory[first : self._n_words : self.kernel.block_size // 8]

    def _call(self, entry: EntryPoint) -> int:
        """Calls an entry point; returns how many threads have not come to the end of their rows."""
        arguments = self._arguments
        arguments[_UNFINISHED] = 0
        entry(arguments.buffer_info()[0])
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
