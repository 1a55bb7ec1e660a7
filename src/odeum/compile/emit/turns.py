"""Rows taking turns in the lanes of a thread: one that has ended makes room for the next."""

import math

from llvmlite import ir

from odeum.compile.emit.code import I32, I64, Variable
from odeum.compile.emit.groups import TAKEN, GroupCode
from odeum.compile.emit.kernel import IDLE, RUNNING
from odeum.compile.emit.values import Value
from odeum.solution import Status

_COUNTS = ("n_evaluations", "n_accepted", "n_rejected")


class TurnCode:
    """Writes it.

    Args:
        group: the function.
    """

    def __init__(self, group: GroupCode) -> None:
        self._group = group
        self._code = group.code

    def take(self) -> None:
        """Writes down rows that have ended, and gives their lanes to rows that wait."""
        group, code = self._group, self._code
        with code.loop(group.layout.n_rows) as place:
            status = group.lane("status", place)
            with code.when((status >= 0).value):
                self._leave(place)
                group.set_lane("status", place, status.constant(IDLE))
            with code.when((group.lane("status", place) == IDLE).value):
                self._next_row(place)

    # A row that leaves its lane

    def _leave(self, place: ir.Value) -> None:
        group, code = self._group, self._code
        row, status = group.lane("rows", place), group.lane("status", place)
        for name in ("status", *_COUNTS):
            self._put(name, row, group.lane(name, place).to_int(I64))
        self._put_reached(row, group.lane("index", place).to_int(I64))
        # On the way back every step is taken again, and the first evaluation.
        n_steps = group.lane("n_accepted", place).to_int(I64)
        each = group.spec.derivatives.n_without_extra - 1
        self._put("n_back", row, n_steps * each + (n_steps > 0).to_int(I64))
        with code.when((status != int(Status.SUCCESS)).value):
            for name, field in (("row_t", "t"), ("row_h", "h")):
                self._put(name, row, group.lane(field, place))
            for name, field in (("row_y", "y"), ("row_k", "k")):
                with code.loop(group.spec.dim) as d:
                    at = group.entry_of(row, group.spec.dim, d)
                    value = group.lane(field, place, d)
                    code.store(value, group.arguments.address(name), at)
            group.arguments.count("n_failed", code.integer(1))

    def _put(self, name: str, row: Value, value: Value) -> None:
        self._code.store(value, self._group.arguments.address(name), row.value)

    def _put_reached(self, row: Value, n: Value) -> None:
        """How many outputs a row has reached; NaN at the others."""
        group, code, dim = self._group, self._code, self._group.spec.dim
        self._put("n_reached", row, n)
        nothing = code.value(ir.Constant(group.layout.real, math.nan))
        with code.loop(group.n_times, start=n.value) as i:
            first = (code.value(i) * code.value(group.n_rows) + row) * dim
            with code.loop(dim) as d:
                at = code.builder.add(first.value, d)
                code.store(nothing, group.arguments.address("ys"), at)

    # A row that gets one

    def _next_row(self, place: ir.Value) -> None:
        group, code = self._group, self._code
        vacant = Variable(code, I64)
        vacant.set(code.value(code.integer(1)))
        with code.forever() as leave:
            leave.unless((vacant.get() == 1).value)
            taken = code.value(group.number(TAKEN))
            leave.unless((taken < group.n_own).value)
            group.set_number(TAKEN, (taken + 1).value)
            row = group.own_row(taken)
            status = code.load(group.arguments.address("status"), I64, row.value)
            with code.when((status == RUNNING).value):
                self._enter(row, place)
                vacant.set(vacant.get() - 1)
            with code.when((status != RUNNING).value):
                self._refuse(row)

    def _refuse(self, row: Value) -> None:
        """A row that cannot start reaches its first output alone."""
        none = row.constant(0)
        for name in ("n_accepted", "n_rejected", "n_back"):
            self._put(name, row, none)
        self._put_reached(row, none + 1)
        self._group.arguments.count("n_failed", self._code.integer(1))

    def _enter(self, row: Value, place: ir.Value) -> None:
        group, code, spec = self._group, self._code, self._group.spec
        last = code.value(group.n_times) - 1
        zero = code.value(ir.Constant(I32, 0))
        start, following, end = (
            group.output_time_of(index, row) for index in (last.constant(0), last.constant(1), last)
        )
        size = code.load(group.arguments.address("row_h"), spec.time, row.value)
        n_evaluations = code.load(group.arguments.address("n_evaluations"), I64, row.value)
        values = {
            "rows": row,
            "t": start,
            "h": size,
            "end": end,
            "stop": following if spec.lands_on_outputs else end,
            "next": following,
            "direction": start.constant(1.0).copysign(end - start),
            "stop_index": zero + 1 if spec.lands_on_outputs else last.to_int(I32),
            "index": zero + 1,
            "status": zero + RUNNING,
            "n_evaluations": n_evaluations.to_int(I32),
            "n_accepted": zero,
            "n_rejected": zero,
            "met_non_finite": zero,
            "ratio": code.value(ir.Constant(group.layout.real, 1.0)),
            "ratio_before": code.value(ir.Constant(group.layout.real, 1.0)),
        }
        for name, value in values.items():
            group.set_lane(name, place, value)
        for name, source in (("y", "y0"), ("k", "row_k")):
            with code.loop(spec.dim) as d:
                at = group.entry_of(row, spec.dim, d)
                value = code.load(group.arguments.address(source), group.layout.real, at)
                group.set_lane(name, place, value, d)
        group.load_row_inputs_of(row, place)
