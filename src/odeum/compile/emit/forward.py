"""The time loop on one group of rows: every lane has its own time, step and acceptance.

Mirrors odeum.eager.loop: the same steps, statuses and counts. All that a group needs to go on lies
in its block, so that the loop can stop anywhere and be called again.
"""

from collections.abc import Sequence

from llvmlite import ir

from odeum.compile.emit.beginning import BeginningCode
from odeum.compile.emit.blocks import Block
from odeum.compile.emit.code import I32, I64, Variable
from odeum.compile.emit.groups import BEGUN, DONE, RECORDED, TRIED, GroupCode
from odeum.compile.emit.judging import Judge, Verdict, larger
from odeum.compile.emit.kernel import NOT_CUT, RUNNING, Spec
from odeum.compile.emit.lanes import scatter
from odeum.compile.emit.outputs import OutputCode
from odeum.compile.emit.stages import FieldCode, StageCode
from odeum.compile.emit.values import DOUBLE, FLOAT, Value, where
from odeum.solution import Status

CHECK_INTERVAL = 16
"""Tried steps between looks at what need not be looked at every time; as in the eager loop."""


class ForwardCode(GroupCode):
    """Writes the solve of one group, as far as it is to go in one call."""

    def __init__(self, function: ir.Function, spec: Spec, field: FieldCode) -> None:
        super().__init__(function, spec)
        self._field = field
        self._derivatives = spec.derivatives
        self._stages = StageCode(self.code, spec)
        self._judge = Judge(self.code, spec, self.arguments)
        self._output_code = OutputCode(self, self._stages)
        with self.code.when(self._is_zero(self.number(BEGUN))):
            BeginningCode(self, field, self._stages, self._judge).begin()
            self.set_number(BEGUN, 1)
        self._run()
        self.code.finish()

    def _is_zero(self, number: ir.Value) -> ir.Value:
        return self.code.builder.icmp_signed("==", number, ir.Constant(number.type, 0))

    def _running(self) -> list[Value]:
        return [status == RUNNING for status in self.get("status")]

    def _run(self) -> None:
        code, builder = self.code, self.code.builder
        left = Variable(code, I64)
        left.set(code.value(self.arguments.number("n_tries")))
        with code.forever() as leave:
            leave.unless(code.any_of(self._running()))
            leave.unless((left.get() > 0).value)
            if self.spec.keeps_steps:
                room = self.arguments.number("capacity")
                leave.unless(builder.icmp_signed("<", self.number(RECORDED), room))
            left.set(left.get() - 1)
            exhausted = builder.icmp_signed(
                ">=", self.number(TRIED), self.arguments.number("max_steps")
            )
            with code.when(exhausted):
                for register, running in enumerate(self._running()):
                    self.set_where("status", running, self.integer(Status.MAX_STEPS), register)
            leave.unless(code.any_of(self._running()))
            self.set_number(TRIED, builder.add(self.number(TRIED), code.integer(1)))
            self._attempt()
        unfinished = code.any_of(self._running())
        self.arguments.count("n_unfinished", builder.zext(unfinished, I64))
        with code.when(builder.not_(unfinished)):
            self.set_number(DONE, 1)
            self._write_down()

    def _attempt(self) -> None:
        code, spec, stages = self.code, self.spec, self._stages
        running = self._running()
        t, stop = self.get("t"), self.get("stop")
        remaining = [a - b for a, b in zip(stop, t, strict=True)]
        # Stretched by up to a hundredth rather than leaving a sliver for one more step.
        landing = [
            abs(h) * 1.01 >= abs(left) for h, left in zip(self.get("h"), remaining, strict=True)
        ]
        h = [
            where(mask, left, size)
            for mask, left, size in zip(landing, remaining, self.get("h"), strict=True)
        ]
        y = self.block.where("y")
        self._take_stages(t, h, y)
        memory = list(zip(self.get("ratio"), self.get("ratio_before"), strict=True))
        verdicts = self._judge.verdicts(stages, y, self.as_states(h), memory)
        accept = [a.accept & b for a, b in zip(verdicts, running, strict=True)]
        for register, mask in enumerate(running):
            self.count("n_evaluations", mask, register, self._derivatives.n_stages - 1)
            self.count("n_accepted", accept[register], register)
            self.count("n_rejected", mask & ~verdicts[register].accept, register)
        t1 = [
            where(ok, where(lands, target, start + size), start)
            for ok, lands, target, start, size in zip(accept, landing, stop, t, h, strict=True)
        ]
        finished = [
            ok & lands & (target == end)
            for ok, lands, target, end in zip(accept, landing, stop, self.get("end"), strict=True)
        ]
        for register, mask in enumerate(finished):
            self.set_where("status", mask, self.integer(Status.SUCCESS), register)
        self._resize(verdicts, accept, running, h)
        self._complete(t, h, y, t1, accept, finished)
        if spec.keeps_steps:
            self._record(t, h, y, t1, accept, landing)
        self._output_code.reach(t, h, y, t1, accept)
        self._move(t1, accept, landing, finished)
        check = code.builder.and_(self.number(TRIED), code.integer(CHECK_INTERVAL - 1))
        with code.when(self._is_zero(check)):
            self._check_in(running, accept)

    def _take_stages(self, t: Sequence[Value], h: Sequence[Value], y: ir.Value) -> None:
        code, stages, derivatives = self.code, self._stages, self._derivatives
        hy = self.as_states(h)
        for element, _ in stages.elements():
            code.store(
                code.load(self.block.where("k"), self.layout.lane, element), stages.ks, element
            )
        for j in range(1, derivatives.n_stages):
            stages.advance_to(y, hy, derivatives.rows[j], stages.y1)
            times = stages.times(t, h, j)
            self._field.call(code, self.context, times, stages.y1, stages.k_at(j))
        if not derivatives.first_same_as_last:
            stages.advance_to(y, hy, derivatives.b, stages.y1)

    def _resize(
        self,
        verdicts: Sequence[Verdict],
        accept: Sequence[Value],
        running: Sequence[Value],
        h: Sequence[Value],
    ) -> None:
        """The next step sizes; without control, a step that is not finite ends the row."""
        if self.spec.controller is None:
            for register, mask in enumerate(running):
                failed = mask & ~accept[register]
                self.set_where("status", failed, self.integer(Status.NON_FINITE), register)
            return
        last = self._stages.k_at(self._derivatives.n_stages - 1)
        finite = self._judge.finite(last)
        finite_end = self._judge.finite(self._stages.y1)
        for register, verdict in enumerate(verdicts):
            assert verdict.factor is not None
            assert verdict.ratio is not None
            size = self._judge.bound(h[register] * verdict.factor.to_float(self.spec.time))
            self.block.set("h", size, register)
            rejected = running[register] & ~accept[register]
            met = ~(finite[register] & finite_end[register])
            self.set_where("met_non_finite", rejected, met.to_int(I32), register)
            if self.spec.controller.has_memory:
                before = self.block.get("ratio", register)
                self.block.set("ratio_before", before, register)
                self.set_where("ratio", verdict.accept, verdict.ratio, register)

    def _record(
        self,
        t: Sequence[Value],
        h: Sequence[Value],
        y: ir.Value,
        t1: Sequence[Value],
        accept: Sequence[Value],
        landing: Sequence[Value],
    ) -> None:
        """Keeps the step, unless every lane rejected it."""
        code, fields = self.code, self.spec.record
        with code.when(code.any_of(accept)):
            n_recorded = self.number(RECORDED)
            group = code.builder.udiv(self.first_row, code.integer(self.layout.n_rows))
            position = code.builder.add(
                code.builder.mul(group, self.arguments.number("capacity")), n_recorded
            )
            at = code.builder.mul(position, code.integer(fields.size))
            record = Block(code, fields, code.offset(self.arguments.address("tape"), at))
            for register, ok in enumerate(accept):
                record.set("t", t[register], register)
                none = h[register].constant(0.0)
                record.set("h", where(ok, h[register], none), register)
                stop = where(
                    landing[register],
                    self.block.get("stop_index", register),
                    self.integer(NOT_CUT),
                )
                record.set("stop_index", stop, register)
                if self.spec.dense:
                    record.set("t1", t1[register], register)
            for element, _ in self._stages.elements():
                record.set("y", code.load(y, self.layout.lane, element), element)
                record.set("k", self.block.get("k", element), element)
            if self.spec.dense:
                n = self._derivatives.n * self.spec.dim * self.layout.registers
                for i in code.each(n, 4):
                    record.set("ks", code.load(self._stages.ks, self.layout.lane, i), i)
            self.set_number(RECORDED, code.builder.add(n_recorded, code.integer(1)))

    def _inside(self, t1: Sequence[Value], accept: Sequence[Value]) -> list[Value]:
        """Lanes whose steps are looked into: where an output lies strictly inside, or all are."""
        if self.spec.dense:
            return list(accept)
        return [
            ok & (output * direction < end * direction)
            for ok, output, direction, end in zip(
                accept, self.get("next"), self.get("direction"), t1, strict=True
            )
        ]

    def _complete(
        self,
        t: Sequence[Value],
        h: Sequence[Value],
        y: ir.Value,
        t1: Sequence[Value],
        accept: Sequence[Value],
        finished: Sequence[Value],
    ) -> None:
        """The derivative at the end, and those that only the dense output needs."""
        code, stages, derivatives = self.code, self._stages, self._derivatives
        inside = self._inside(t1, accept)
        if not derivatives.first_same_as_last:
            wanted = [
                ok & (~last | within)
                for ok, last, within in zip(accept, finished, inside, strict=True)
            ]
            with code.when(code.any_of(wanted)):
                k1 = stages.k_at(derivatives.end)
                self._field.call(code, self.context, t1, stages.y1, k1)
                for register, mask in enumerate(wanted):
                    self.count("n_evaluations", mask, register)
        if derivatives.n_extra:
            with code.when(code.any_of(inside)):
                room = code.room(self.layout.lane, self.spec.dim * self.layout.registers)
                hy = self.as_states(h)
                for j in range(derivatives.n_without_extra, derivatives.n):
                    stages.advance_to(y, hy, derivatives.rows[j], room)
                    times = stages.times(t, h, j)
                    self._field.call(code, self.context, times, room, stages.k_at(j))
                for register, mask in enumerate(inside):
                    self.count("n_evaluations", mask, register, derivatives.n_extra)

    def _move(
        self,
        t1: Sequence[Value],
        accept: Sequence[Value],
        landing: Sequence[Value],
        finished: Sequence[Value],
    ) -> None:
        code, stages, lane_type = self.code, self._stages, self.layout.lane
        self.set("t", t1)
        k1 = stages.k_at(self._derivatives.end)
        for element, register in stages.elements():
            for name, source in (("y", stages.y1), ("k", k1)):
                new = code.load(source, lane_type, element)
                old = self.block.get(name, element)
                self.block.set(name, where(accept[register], new, old), element)
        if not self.spec.lands_on_outputs:
            return
        for register in self.registers:
            landed = accept[register] & landing[register] & ~finished[register]
            index = self.block.get("stop_index", register) + landed.to_int(I32)
            self.block.set("stop_index", index, register)
            stop = self.output_times(index.to_int(I64), self.rows(register))
            self.block.set("stop", stop, register)

    def _check_in(self, running: Sequence[Value], accept: Sequence[Value]) -> None:
        """Ends rows whose steps have become too small, or that nothing can help."""
        finite = self._judge.finite(self.block.where("k"))
        for register in self.registers:
            rejected = running[register] & ~accept[register]
            hopeless = self._too_small(register)
            if self.spec.controller is not None:
                hopeless = hopeless | (rejected & ~finite[register])
            still = self.block.get("status", register) == RUNNING
            met = self.block.get("met_non_finite", register) != 0
            reason = where(
                met, self.integer(Status.NON_FINITE), self.integer(Status.STEP_TOO_SMALL)
            )
            self.set_where("status", hopeless & still, reason, register)

    def _too_small(self, register: int) -> Value:
        """Whether the next step is below what moves the time, or what the user allows."""
        t, end, h = (self.block.get(name, register) for name in ("t", "end", "h"))
        near = spacing(t, end) * 10.0
        return abs(h) < larger(near, self.wide(self.size("min")))

    def _write_down(self) -> None:
        """How rows ended and the work they took; NaN for states never reached."""
        for register in self.registers:
            rows, real = self.rows(register), self.is_real(register)
            self._output_code.leave_out(rows, real, register)
            failed = real & (self.block.get("status", register) != int(Status.SUCCESS))
            self.arguments.count("n_failed", self.code.builder.zext(self.code.any(failed), I64))
            for name in ("status", "n_evaluations", "n_accepted", "n_rejected"):
                value = self.block.get(name, register).to_int(I64)
                scatter(self.code, value, self.arguments.address(name), rows, real)


def spacing(t: Value, end: Value) -> Value:
    """Distance of times from the next larger number; near zero, as for roundings of an end."""
    eps = {FLOAT: 2.0**-23, DOUBLE: 2.0**-52}[t.element]
    integer = {FLOAT: I32, DOUBLE: I64}[t.element]
    reach = larger(abs(t), abs(end) * eps)
    return (reach.bitcast(integer) + 1).bitcast(t.element) - reach
