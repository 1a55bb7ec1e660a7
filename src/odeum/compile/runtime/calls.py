"""Calls of a kernel: memory for it, steps in parts where the tape fills, and its way back."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from odeum.compile.emit.forward import DONE, RECORDED
from odeum.compile.emit.kernel import ARGUMENTS, SIZES
from odeum.compile.runtime.kernels import EntryPoint, Kernel
from odeum.types import Tensor

TRIES_AT_ONCE = 20_000
"""Tried steps of a group before Python looks at what else there is to do, Ctrl-C above all."""

Array = np.ndarray


@dataclass(frozen=True)
class Bounds:
    """Bounds on steps, as a kernel takes them.

    Attributes:
        first: first step; 0 where it is chosen.
        max: largest step.
        min: smallest step.
        fixed: the step size where steps are fixed; infinite to land on every output.
        max_steps: tried steps of a row.
    """

    first: float
    max: float
    min: float
    fixed: float
    max_steps: int

    def sizes(self) -> Array:
        """The sizes, as a kernel reads them."""
        return np.array([getattr(self, name) for name in SIZES])


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
        y0: initial states, [batch, dim]; contiguous, like all tensors here.
        ts: output times, [time] or [time, batch].
        shared: what all rows share, in the order of the kernel's inputs.
        row: what each row has of its own, [batch, *shape] each, likewise.
        tolerances: ``rtol`` and ``atol``, [dim] each, in the dtype of the state.
        bounds: on steps.
        n_threads: how many threads share the rows.

    Attributes:
        ys: states at the output times, [time, batch, dim]; NaN where a row never arrived.
        counts: status, evaluations, accepted and rejected steps, [4, batch].
    """

    def __init__(
        self,
        kernel: Kernel,
        y0: Tensor,
        ts: Tensor,
        shared: Sequence[Tensor],
        row: Sequence[Tensor],
        tolerances: tuple[Array, Array],
        bounds: Bounds,
        n_threads: int,
    ) -> None:
        self.kernel = kernel
        n_rows = len(y0)
        n_groups = -(-n_rows // kernel.rows_at_once)
        self._n_groups = n_groups
        self._n_threads = n_threads = min(n_threads, n_groups)
        self.ys = y0.new_empty(len(ts), *y0.shape)
        self.counts = torch.empty(4, n_rows, dtype=torch.int64)
        self._groups = np.zeros(n_groups * kernel.group_size, np.uint8)
        self._tapes: list[Tape] = []
        counts = self.counts.data_ptr()
        # Held for as long as the kernel may read them.
        self._y0, self._ts = y0, ts
        self._held = (shared, row, tolerances, bounds.sizes())
        self._tables = _table(shared), _table(row)
        self._arguments: dict[str, int] = {
            "n_rows": n_rows,
            "n_times": len(ts),
            "n_groups": n_groups,
            "n_threads": n_threads,
            "n_tries": TRIES_AT_ONCE,
            "max_steps": bounds.max_steps,
            "ts": ts.data_ptr(),
            "y0": y0.data_ptr(),
            "ys": self.ys.data_ptr(),
            "groups": _address(self._groups),
            "rtol": _address(tolerances[0]),
            "atol": _address(tolerances[1]),
            "sizes": _address(self._held[3]),
            "shared": _address(self._tables[0]),
            "row": _address(self._tables[1]),
            "status": counts,
            "n_evaluations": counts + 8 * n_rows,
            "n_accepted": counts + 16 * n_rows,
            "n_rejected": counts + 24 * n_rows,
        }

    def forward(self) -> None:
        """Solves, and keeps the steps where the kernel records them."""
        kernel = self.kernel
        done, recorded = self._numbers(DONE), self._numbers(RECORDED)
        tape: Tape | None = None
        while not done.all():
            if kernel.record_size and (tape is None or bool((recorded >= tape.capacity).any())):
                capacity = kernel.usual_steps if tape is None else 2 * tape.capacity
                memory = np.empty(self._n_groups * capacity * kernel.record_size, np.uint8)
                tape = Tape(memory, capacity, recorded)
                self._tapes.append(tape)
                recorded[:] = 0
            self._call(kernel.forward, tape)
            if tape is not None:
                tape.n_records = recorded.copy()
        if tape is not None:
            n_records = sum(int(part.n_records.max()) for part in self._tapes)
            kernel.usual_steps = n_records + n_records // 4 + 8

    def backward(self, g_ys: Tensor) -> "Cotangents":
        """Pulls the solve back.

        Args:
            g_ys: cotangents of the states at the output times, [time, batch, dim], contiguous.
        """
        kernel, spec = self.kernel, self.kernel.spec
        assert kernel.backward is not None
        threads = np.zeros(self._n_threads * kernel.thread_size, np.uint8)
        g_y0 = torch.zeros_like(self._y0)
        g_row = [
            self._y0.new_zeros(len(self._y0), *node.shape) for node in spec.program.wanted("row")
        ]
        g_ts = None
        if spec.wants_times:
            own = () if spec.per_row_times else (self._n_threads,)
            g_ts = self._ts.new_zeros(*own, *self._ts.shape)
        recorded = self._numbers(RECORDED)
        table = _table(g_row)
        tapes = self._tapes or [Tape(np.empty(0, np.uint8), 0, 0 * recorded)]
        for i, tape in enumerate(reversed(tapes)):
            recorded[:] = tape.n_records
            self._call(
                kernel.backward,
                tape,
                first_call=i == 0,
                last_call=i == len(tapes) - 1,
                threads=_address(threads),
                g_ys=g_ys.data_ptr(),
                g_y0=g_y0.data_ptr(),
                g_ts=0 if g_ts is None else g_ts.data_ptr(),
                g_row=_address(table),
            )
        if g_ts is not None and not spec.per_row_times:
            g_ts = g_ts.sum(0)
        totals = torch.from_numpy(threads).view(self._n_threads, -1)
        g_shared = [
            _summed(totals, offset, node.shape, n_lanes, self._y0.dtype)
            for node, offset, n_lanes in kernel.totals
        ]
        return Cotangents(g_y0, g_ts, g_shared, g_row)

    def of_row(self, name: str, row: int) -> Array:
        """What is known of a row: "t", "h", "y" or "k"; one number, or [dim]."""
        layout, fields = self.kernel.spec.layout, self.kernel.spec.group
        group, place = divmod(row, layout.n_rows)
        register, lane = divmod(place, layout.width)
        ts_dtype, dtype = (x.detach().numpy().dtype for x in (self._ts, self._y0))
        n = 1 if name in ("t", "h") else self.kernel.spec.dim
        start = group * self.kernel.group_size + fields.offsets[name]
        numbers = self._groups[start:].view(ts_dtype if name in ("t", "h") else dtype)
        values = numbers[: n * layout.registers * layout.width]
        return values.reshape(n, layout.registers, layout.width)[:, register, lane].copy()

    def _numbers(self, which: int) -> Array:
        """One of the numbers of every group, [groups]."""
        words = self._groups.view(np.int64)
        return words[self.kernel.numbers_at // 8 + which :: self.kernel.group_size // 8]

    def _call(self, entry: EntryPoint, tape: Tape | None, **others: int) -> None:
        arguments = self._arguments | others
        if tape is not None:
            arguments["tape"], arguments["capacity"] = _address(tape.memory), tape.capacity
        values = (ctypes.c_int64 * len(ARGUMENTS))(*[arguments.get(n, 0) for n in ARGUMENTS])
        entry(ctypes.addressof(values))


@dataclass(frozen=True)
class Cotangents:
    """Gradients of a solve's inputs.

    Attributes:
        y0: of the initial states, [batch, dim].
        ts: of the output times, in their shape; None where they are not wanted.
        shared: of what all rows share, those that are wanted.
        row: of what each row has of its own, those that are wanted.
    """

    y0: Tensor
    ts: Tensor | None
    shared: list[Tensor]
    row: list[Tensor]


def _summed(
    totals: Tensor, offset: int, shape: tuple[int, ...], n_lanes: int, dtype: torch.dtype
) -> Tensor:
    """A gradient, from what each thread and each lane added up of it."""
    size = int(np.prod(shape)) * n_lanes * dtype.itemsize
    parts = totals[:, offset : offset + size].contiguous().view(dtype)
    return parts.view(len(totals), -1, n_lanes).sum((0, 2)).view(shape)


def _address(x: Array) -> int:
    return int(x.__array_interface__["data"][0])


def _table(tensors: Sequence[Tensor]) -> Array:
    return np.array([x.data_ptr() for x in tensors] or [0], np.int64)


@lru_cache(maxsize=256)
def tolerance_array(value: float, dim: int, dtype: torch.dtype) -> Array:
    """One tolerance for every number of a state, [dim]."""
    return np.full(dim, value, np.float32 if dtype == torch.float32 else np.float64)
