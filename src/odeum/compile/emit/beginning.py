"""The beginning of a solve: of each row the times checked, the first derivative and step."""

import math
from collections.abc import Sequence

from llvmlite import ir

from odeum.compile.emit.code import I32, I64, Variable
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
        """All of it, for all rows of the thread."""
        group = self._group
        with group.each_block() as real:
            self._begin_block(real)

    def _begin_block(self, real: Sequence[Value]) -> None:
        group = self._group
        code, spec = group.code, group.spec
        self._load_states(real)
        group.load_row_inputs()
        for register in group.registers:
            rows = group.rows(register)
            last = group.whole(group.n_times) - 1
            start, end = (group.output_times(index, rows) for index in (group.whole(0), last))
            group.block.set("t", start, register)
            group.block.set("end", end, register)
            group.block.set("direction", start.constant(1.0).copysign(end - start), register)
            group.block.set("n_evaluations", group.integer(1), register)
        y, k = group.block.where("y"), group.block.where("k")
        self._field.call(code, group.context, group.get("t"), y, k)
        finite = [a & b for a, b in zip(self._judge.finite(y), self._judge.finite(k), strict=True)]
        self._first_step(finite)
        for register, startable in enumerate(finite):
            status = where(startable, group.integer(RUNNING), group.integer(Status.NON_FINITE))
            status = where(self._has_times(register), status, group.integer(NO_TIMES))
            rows, mask = group.rows(register), real[register]
            n_evaluations = group.block.get("n_evaluations", register)
            for name, count in (("status", status), ("n_evaluations", n_evaluations)):
                scatter(code, count.to_int(I64), group.arguments.address(name), rows, mask)
            h = group.block.get("h", register)
            scatter(code, h, group.arguments.address("row_h"), rows, mask)
            for d in code.each(spec.dim, 1):
                value = group.block.get(
                    "k", code.add(code.times(d, len(group.registers)), register)
                )
                at = rows * group.whole(spec.dim) + group.whole(d)
                scatter(code, value, group.arguments.address("row_k"), at, mask)

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

    def _load_states(self, real: Sequence[Value]) -> None:
        """Initial states, which are those at the first output."""
        group = self._group
        code, dim, n = group.code, group.spec.dim, len(group.registers)
        y0, ys = group.arguments.address("y0"), group.arguments.address("ys")
        for register in group.registers:
            for d in code.each(dim, 1):
                at = group.rows(register) * group.whole(dim) + group.whole(d)
                value = gather(code, y0, group.layout.real, at)
                group.block.set("y", value, code.add(code.times(d, n), register))
                scatter(code, value, ys, at, real[register])

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
