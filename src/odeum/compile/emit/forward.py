"""The time loop over the rows of a thread: every lane has its own row, time, step and acceptance.

Mirrors odeum.eager.loop: the same steps, statuses and counts. All that a thread needs to go on lies
in its block, so that the loop can stop anywhere and be called again.
"""

from collections.abc import Sequence

from llvmlite import ir

from odeum.compile.emit.beginning import BeginningCode
from odeum.compile.emit.blocks import Block
from odeum.compile.emit.code import I32, I64, Variable
from odeum.compile.emit.groups import BEGUN, RECORDED, TAKEN, GroupCode
from odeum.compile.emit.judging import Judge, Verdict, larger, smaller
from odeum.compile.emit.kernel import IDLE, NOT_CUT, RUNNING, Spec
from odeum.compile.emit.outputs import OutputCode
from odeum.compile.emit.stages import FieldCode, StageCode
from odeum.compile.emit.turns import TurnCode
from odeum.compile.emit.values import DOUBLE, FLOAT, Value, where
from odeum.solution import Status

CHECK_INTERVAL = 16
"""Tried steps between looks at what need not be looked at every time; as in the eager loop."""


class ForwardCode(GroupCode):
    """Writes the solve of a thread's rows, as far as it is to go in one call."""

    def __init__(self, function: ir.Function, spec: Spec, field: FieldCode) -> None:
        super().__init__(function, spec)
        self._field = field
        self._derivatives = spec.derivatives
        self._stages = StageCode(self.code, spec)
        self._judge = Judge(self.code, spec, self.arguments)
        self._output_code = OutputCode(self, self._stages)
        self._turns = TurnCode(self)
        # Counts of steps are 32-bit numbers.
        most = smaller(self.code.value(self.arguments.number("max_steps")), 2**31 - 1)
        self._max_steps = self.wide(most.to_int(I32))
        with self.code.when(self._is_zero(self.number(BEGUN))):
            BeginningCode(self, field, self._stages, self._judge).begin()
            self.set_number(BEGUN, 1)
            self.set("status", [self.integer(IDLE) for _ in self.registers])
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
            self._take_turns()
            leave.unless(code.any_of(self._running()))
            leave.unless((left.get() > 0).value)
            if self.spec.keeps_steps:
                room = self.arguments.number("capacity")
                leave.unless(builder.icmp_signed("<", self.number(RECORDED), room))
            left.set(left.get() - 1)
            self._attempt()
        unfinished = code.any_of(self._running())
        self.arguments.count("n_unfinished", builder.zext(unfinished, I64))
        if self.spec.keeps_steps:
            self.arguments.raise_to("most_recorded", self.number(RECORDED))

    def _take_turns(self) -> None:
        code = self.code
        for register, running in enumerate(self._running()):
            exhausted = running & (self._n_tried(register) >= self._max_steps)
            self.set_where("status", exhausted, self.integer(Status.MAX_STEPS), register)
        ended = code.any_of([status >= 0 for status in self.get("status")])
        at_first = self._is_zero(self.number(TAKEN))
        with code.when(code.builder.or_(ended, at_first)):
            self._turns.take()

    def _n_tried(self, register: int) -> Value:
        return self.block.get("n_accepted", register) + self.block.get("n_rejected", register)

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
        due = [
            mask & ((self._n_tried(register) & (CHECK_INTERVAL - 1)) == 0)
            for register, mask in enumerate(running)
        ]
        with code.when(code.any_of(due)):
            self._check_in(due, accept)

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
            first = code.builder.mul(self.thread, self.arguments.number("capacity"))
            position = code.builder.add(first, n_recorded)
            at = code.builder.mul(position, code.integer(fields.size))
            record = Block(code, fields, code.offset(self.arguments.address("tape"), at))
            for register, ok in enumerate(accept):
                record.set("rows", self.rows(register).to_int(I32), register)
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

    def _check_in(self, due: Sequence[Value], accept: Sequence[Value]) -> None:
        """Ends rows whose steps have become too small, or that nothing can help."""
        finite = self._judge.finite(self.block.where("k"))
        for register in self.registers:
            hopeless = self._too_small(register)
            if self.spec.controller is not None:
                hopeless = hopeless | ~(accept[register] | finite[register])
            hopeless = hopeless & due[register]
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


def spacing(t: Value, end: Value) -> Value:
    """Distance of times from the next larger number; near zero, as for roundings of an end."""
    eps = {FLOAT: 2.0**-23, DOUBLE: 2.0**-52}[t.element]
    integer = {FLOAT: I32, DOUBLE: I64}[t.element]
    reach = larger(abs(t), abs(end) * eps)
    return (reach.bitcast(integer) + 1).bitcast(t.element) - reach
