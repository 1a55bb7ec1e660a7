"""The beginning of a group's solve: rows loaded, times checked, the first derivative and step."""

import math
from collections.abc import Sequence

from llvmlite import ir

from odeum.compile.emit.code import I32, Variable
from odeum.compile.emit.groups import GroupCode
from odeum.compile.emit.judging import Judge
from odeum.compile.emit.kernel import NO_TIMES, RUNNING
from odeum.compile.emit.lanes import gather, scatter
from odeum.compile.emit.stages import FieldCode, StageCode
from odeum.compile.emit.values import Value, fma, where
from odeum.solution import Status


class BeginningCode:
    """Writes the beginning.

    Args:
        group: the function.
        field: the field.
        stages: memory for evaluations.
        judge: chooses the first step.
    """

    def __init__(self, group: GroupCode, field: FieldCode, stages: StageCode, judge: Judge) -> None:
        self._group = group
        self._field = field
        self._stages = stages
        self._judge = judge

    def begin(self) -> None:
        """All of it."""
        group = self._group
        code, spec = group.code, group.spec
        group.choose_rows()
        self._load_rows()
        zero = group.integer(0)
        for register in group.registers:
            rows = group.rows(register)
            last = group.whole(group.n_times) - 1
            start, following, end = (
                group.output_times(index, rows) for index in (group.whole(0), group.whole(1), last)
            )
            group.block.set("t", start, register)
            group.block.set("end", end, register)
            group.block.set("next", following, register)
            group.block.set("stop", following if spec.lands_on_outputs else end, register)
            group.block.set("direction", start.constant(1.0).copysign(end - start), register)
            stops = group.integer(1)
            if not spec.lands_on_outputs:
                stops = last.to_int(I32)
            group.block.set("stop_index", stops, register)
            group.block.set("index", group.integer(1), register)
            for name in ("n_accepted", "n_rejected", "met_non_finite"):
                group.block.set(name, zero, register)
            group.block.set("n_evaluations", group.integer(1), register)
            for name in ("ratio", "ratio_before"):
                one = group.wide(code.value(ir.Constant(group.layout.real, 1.0)))
                group.block.set(name, one, register)
        y, k = group.block.where("y"), group.block.where("k")
        self._field.call(code, group.context, group.get("t"), y, k)
        finite = [a & b for a, b in zip(self._judge.finite(y), self._judge.finite(k), strict=True)]
        for register, startable in enumerate(finite):
            status = where(startable, group.integer(RUNNING), group.integer(Status.NON_FINITE))
            status = where(self._has_times(register), status, group.integer(NO_TIMES))
            group.block.set("status", status, register)
        self._first_step(finite)

    def _has_times(self, register: int) -> Value:
        """Whether output times are strictly monotone and finite."""
        group = self._group
        code, rows = group.code, group.rows(register)
        direction = group.block.get("direction", register)
        good = Variable(code, group.spec.integers)
        good.set(group.integer(1))
        with code.loop(group.n_times, start=1) as i:
            time = group.output_times(group.whole(i), rows)
            before = group.output_times(group.whole(code.builder.sub(i, code.integer(1))), rows)
            follows = (time - before) * direction > 0.0
            good.set(good.get() & follows.to_int(I32))
        reach = abs(group.block.get("t", register)) + abs(group.block.get("end", register))
        return (good.get() != 0) & (reach < math.inf)

    def _load_rows(self) -> None:
        """Initial states and row inputs, and the states at the first output."""
        group = self._group
        code, dim = group.code, group.spec.dim
        n = group.layout.registers
        y0, ys = group.arguments.address("y0"), group.arguments.address("ys")
        for register in group.registers:
            rows = group.rows(register)
            real = group.is_real(register)
            for d in code.each(dim, 1):
                at = rows * group.whole(dim) + group.whole(d)
                value = gather(code, y0, group.layout.real, at)
                group.block.set("y", value, code.add(code.times(d, n), register))
                scatter(code, value, ys, at, real)
            done = 0
            for index, node in enumerate(group.spec.program.row):
                table = group.arguments.entry("row", index)
                for e in code.each(node.size, 1):
                    at = rows * group.whole(node.size) + group.whole(e)
                    value = gather(code, table, group.layout.real, at)
                    place = code.add(code.times(code.add(e, done), n), register)
                    group.block.set("row", value, place)
                done += node.size

    def _first_step(self, startable: Sequence[Value]) -> None:
        group = self._group
        if group.spec.controller is None:
            fixed = group.wide(group.size("fixed"))
            group.set("h", [fixed.copysign(x) for x in group.get("direction")])
            return
        given = group.size("first")
        with group.code.when((given > 0.0).value):
            first = group.wide(given)
            group.set("h", [self._judge.bound(first.copysign(x)) for x in group.get("direction")])
        with group.code.when((given <= 0.0).value):
            t = group.get("t")
            span = [end - start for end, start in zip(group.get("end"), t, strict=True)]
            y, k = group.block.where("y"), group.block.where("k")

            def euler(h: list[Value]) -> ir.Value:
                for element, register in self._stages.elements():
                    state, slope = (group.code.load(x, group.layout.lane, element) for x in (y, k))
                    moved = fma(h[register].to_float(group.layout.real), slope, state)
                    group.code.store(moved, self._stages.y1, element)
                after = [a + b for a, b in zip(t, h, strict=True)]
                self._field.call(group.code, group.context, after, self._stages.y1, self._stages.ks)
                return self._stages.ks

            group.set("h", self._judge.first_steps(y, k, span, euler))
            for register, mask in enumerate(startable):
                group.count("n_evaluations", mask, register)
