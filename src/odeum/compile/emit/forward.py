"""The time loop on one group of rows: every lane has its own time, step and acceptance.

Mirrors odeum.eager.loop: the same steps, statuses and counts. All that a group needs to go on lies
in its block, so that the loop can stop anywhere and be called again.
"""

import math
from collections.abc import Sequence

from llvmlite import ir

from odeum.compile.emit.blocks import Block
from odeum.compile.emit.code import I32, I64, Code, Variable, wide
from odeum.compile.emit.interpolation import weights
from odeum.compile.emit.judging import Judge, Verdict, larger
from odeum.compile.emit.kernel import NO_TIMES, NOT_CUT, RUNNING, Arguments, Spec
from odeum.compile.emit.lanes import gather, lane_numbers, scatter
from odeum.compile.emit.stages import FieldCode, StageCode
from odeum.compile.emit.values import DOUBLE, FLOAT, Value, fma, where
from odeum.solution import Status

CHECK_INTERVAL = 16
"""Tried steps between looks at what need not be looked at every time; as in the eager loop."""

TRIED, RECORDED, BEGUN, DONE = range(4)
"""Entries of a group's ``numbers``."""


class GroupCode:
    """What functions on one group of rows have in common.

    Args:
        function: ``(arguments, block, first row, thread)``, without a body.
        spec: what is compiled.
    """

    def __init__(self, function: ir.Function, spec: Spec) -> None:
        self.code = code = Code(function)
        self.spec = spec
        self.layout = spec.layout
        pointer, block, first, _ = code.arguments
        self.arguments = Arguments(code, pointer)
        self.block = Block(code, spec.group, block)
        self.first_row = first
        self.registers = range(spec.layout.registers)
        self.n_times = self.arguments.number("n_times")
        self.n_rows = self.arguments.number("n_rows")
        self.context = (self.arguments.address("shared"), self.block.where("row"))

    def _numbers(self, register: int) -> Value:
        first = self.code.builder.add(
            self.first_row, self.code.integer(register * self.layout.width)
        )
        width = self.layout.width
        return wide(self.code.value(first), width) + lane_numbers(self.code, width)

    def rows(self, register: int) -> Value:
        """The number of each lane's row; lanes beyond the batch repeat its last row."""
        numbers = self._numbers(register)
        last = wide(self.code.value(self.n_rows) - 1, self.layout.width)
        return where(numbers < last, numbers, last)

    def is_real(self, register: int) -> Value:
        """Which lanes hold a row of the batch."""
        return self._numbers(register) < wide(self.code.value(self.n_rows), self.layout.width)

    def get(self, name: str) -> list[Value]:
        """A field with one value a register."""
        return [self.block.get(name, register) for register in self.registers]

    def set(self, name: str, values: Sequence[Value]) -> None:
        """Puts a field with one value a register."""
        for register, value in enumerate(values):
            self.block.set(name, value, register)

    def set_where(self, name: str, mask: Value, value: Value, register: int) -> None:
        """Puts a value in the lanes where a mask holds."""
        self.block.set(name, where(mask, value, self.block.get(name, register)), register)

    def number(self, index: int) -> ir.Value:
        """An entry of the group's numbers."""
        return self.block.get("numbers", index).value

    def set_number(self, index: int, value: ir.Value | int) -> None:
        """Puts one."""
        self.block.set("numbers", self.code.value(self.code.integer(value)), index)

    def integer(self, number: int) -> Value:
        """The same whole number in every lane."""
        return wide(self.code.value(ir.Constant(I32, number)), self.layout.width)

    def whole(self, number: ir.Value | int) -> Value:
        """The same 64-bit whole number in every lane."""
        return wide(self.code.value(self.code.integer(number)), self.layout.width)

    def time_places(self, index: Value, rows: Value) -> Value:
        """Where the output times of indices and rows are."""
        return index * self.whole(self.n_rows) + rows if self.spec.per_row_times else index

    def output_times(self, index: Value, rows: Value) -> Value:
        """Output times of indices and rows."""
        places = self.time_places(index, rows)
        return gather(self.code, self.arguments.address("ts"), self.spec.time, places)

    def state_places(self, index: Value, rows: Value) -> Value:
        """Where states of output indices and rows start in [time, batch, dim]."""
        return (index * self.whole(self.n_rows) + rows) * self.whole(self.spec.dim)

    def as_states(self, values: Sequence[Value]) -> list[Value]:
        """Times in the precision of states."""
        return [value.to_float(self.layout.real) for value in values]


class ForwardCode(GroupCode):
    """Writes the solve of one group, as far as it is to go in one call."""

    def __init__(self, function: ir.Function, spec: Spec, field: FieldCode) -> None:
        super().__init__(function, spec)
        self._field = field
        self._derivatives = spec.derivatives
        self._stages = StageCode(self.code, spec)
        self._judge = Judge(self.code, spec, self.arguments)
        self._sizes = {
            name: self.arguments.size(name).to_float(spec.time)
            for name in ("first", "min", "fixed")
        }
        with self.code.when(self._is_zero(self.number(BEGUN))):
            self._begin()
            self.set_number(BEGUN, 1)
        self._run()
        self.code.finish()

    def _is_zero(self, number: ir.Value) -> ir.Value:
        return self.code.builder.icmp_signed("==", number, ir.Constant(number.type, 0))

    def _wide(self, value: Value) -> Value:
        return wide(value, self.layout.width)

    # The beginning

    def _begin(self) -> None:
        code, spec = self.code, self.spec
        self._load_rows()
        zero = self.integer(0)
        for register in self.registers:
            rows = self.rows(register)
            last = self.whole(self.n_times) - 1
            start, following, end = (
                self.output_times(index, rows) for index in (self.whole(0), self.whole(1), last)
            )
            self.block.set("t", start, register)
            self.block.set("end", end, register)
            self.block.set("next", following, register)
            self.block.set("stop", following if spec.lands_on_outputs else end, register)
            self.block.set("direction", start.constant(1.0).copysign(end - start), register)
            stops = self.integer(1)
            if not spec.lands_on_outputs:
                stops = last.to_int(I32)
            self.block.set("stop_index", stops, register)
            self.block.set("index", self.integer(1), register)
            for name in ("n_accepted", "n_rejected", "met_non_finite"):
                self.block.set(name, zero, register)
            self.block.set("n_evaluations", self.integer(1), register)
            for name in ("ratio", "ratio_before"):
                one = self._wide(code.value(ir.Constant(self.layout.real, 1.0)))
                self.block.set(name, one, register)
        y, k = self.block.where("y"), self.block.where("k")
        self._field.call(code, self.context, self.get("t"), y, k)
        finite = [a & b for a, b in zip(self._judge.finite(y), self._judge.finite(k), strict=True)]
        for register, startable in enumerate(finite):
            status = where(startable, self.integer(RUNNING), self.integer(Status.NON_FINITE))
            status = where(self._has_times(register), status, self.integer(NO_TIMES))
            self.block.set("status", status, register)
        self._first_step(finite)

    def _has_times(self, register: int) -> Value:
        """Whether output times are strictly monotone and finite."""
        code, rows = self.code, self.rows(register)
        direction = self.block.get("direction", register)
        good = Variable(code, self.spec.integers)
        good.set(self.integer(1))
        with code.loop(self.n_times, start=1) as i:
            time = self.output_times(self.whole(i), rows)
            before = self.output_times(self.whole(code.builder.sub(i, code.integer(1))), rows)
            follows = (time - before) * direction > 0.0
            good.set(good.get() & follows.to_int(I32))
        reach = abs(self.block.get("t", register)) + abs(self.block.get("end", register))
        return (good.get() != 0) & (reach < math.inf)

    def _load_rows(self) -> None:
        """Initial states and row inputs, and the states at the first output."""
        code, dim = self.code, self.spec.dim
        n = self.layout.registers
        y0, ys = self.arguments.address("y0"), self.arguments.address("ys")
        for register in self.registers:
            rows = self.rows(register)
            real = self.is_real(register)
            for d in code.each(dim, 1):
                at = rows * self.whole(dim) + self.whole(d)
                value = gather(code, y0, self.layout.real, at)
                self.block.set("y", value, code.add(code.times(d, n), register))
                scatter(code, value, ys, at, real)
            done = 0
            for index, node in enumerate(self.spec.program.row):
                table = self.arguments.entry("row", index)
                for e in code.each(node.size, 1):
                    at = rows * self.whole(node.size) + self.whole(e)
                    value = gather(code, table, self.layout.real, at)
                    place = code.add(code.times(code.add(e, done), n), register)
                    self.block.set("row", value, place)
                done += node.size

    def _first_step(self, startable: Sequence[Value]) -> None:
        if self.spec.controller is None:
            fixed = self._wide(self._sizes["fixed"])
            self.set("h", [fixed.copysign(x) for x in self.get("direction")])
            return
        given = self._sizes["first"]
        with self.code.when((given > 0.0).value):
            first = self._wide(given)
            self.set("h", [self._judge.bound(first.copysign(x)) for x in self.get("direction")])
        with self.code.when((given <= 0.0).value):
            t = self.get("t")
            span = [end - start for end, start in zip(self.get("end"), t, strict=True)]
            y, k = self.block.where("y"), self.block.where("k")

            def euler(h: list[Value]) -> ir.Value:
                for element, register in self._stages.elements():
                    state, slope = (self.code.load(x, self.layout.lane, element) for x in (y, k))
                    moved = fma(h[register].to_float(self.layout.real), slope, state)
                    self.code.store(moved, self._stages.y1, element)
                after = [a + b for a, b in zip(t, h, strict=True)]
                self._field.call(self.code, self.context, after, self._stages.y1, self._stages.ks)
                return self._stages.ks

            self.set("h", self._judge.first_steps(y, k, span, euler))
            for register, mask in enumerate(startable):
                self._count("n_evaluations", mask, register)

    def _count(self, name: str, mask: Value, register: int, n: int = 1) -> None:
        """Adds to a count in the lanes where a mask holds."""
        added = mask.to_int(I32) * n
        self.block.set(name, self.block.get(name, register) + added, register)

    # The loop

    def _running(self) -> list[Value]:
        return [status == RUNNING for status in self.get("status")]

    def _run(self) -> None:
        code, builder = self.code, self.code.builder
        left = Variable(code, I64)
        left.set(code.value(self.arguments.number("n_tries")))
        with code.forever() as leave:
            leave.unless(code.any_of(self._running()))
            leave.unless((left.get() > 0).value)
            if self.spec.records:
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
            self._count("n_evaluations", mask, register, self._derivatives.n_stages - 1)
            self._count("n_accepted", accept[register], register)
            self._count("n_rejected", mask & ~verdicts[register].accept, register)
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
        if spec.records:
            self._record(t, h, y, accept, landing)
        self._complete(t, h, y, t1, accept, finished)
        self._outputs(t, h, y, t1, accept)
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
        accept: Sequence[Value],
        landing: Sequence[Value],
    ) -> None:
        """Keeps the step for the backward sweep, unless every lane rejected it."""
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
            for element, _ in self._stages.elements():
                record.set("y", code.load(y, self.layout.lane, element), element)
                record.set("k", self.block.get("k", element), element)
            self.set_number(RECORDED, code.builder.add(n_recorded, code.integer(1)))

    def _inside(self, t1: Sequence[Value], accept: Sequence[Value]) -> list[Value]:
        """Lanes that have an output strictly inside their step."""
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
                    self._count("n_evaluations", mask, register)
        if derivatives.n_extra:
            with code.when(code.any_of(inside)):
                room = code.room(self.layout.lane, self.spec.dim * self.layout.registers)
                hy = self.as_states(h)
                for j in range(derivatives.n_without_extra, derivatives.n):
                    stages.advance_to(y, hy, derivatives.rows[j], room)
                    times = stages.times(t, h, j)
                    self._field.call(code, self.context, times, room, stages.k_at(j))
                for register, mask in enumerate(inside):
                    self._count("n_evaluations", mask, register, derivatives.n_extra)

    def _outputs(
        self,
        t: Sequence[Value],
        h: Sequence[Value],
        y: ir.Value,
        t1: Sequence[Value],
        accept: Sequence[Value],
    ) -> None:
        """Writes the states at the output times that the steps reach."""
        for register in self.registers:
            with self.code.forever() as leave:
                output = self.block.get("next", register)
                direction = self.block.get("direction", register)
                hit = accept[register] & (output * direction <= t1[register] * direction)
                leave.unless(self.code.any(hit))
                theta = (output - t[register]) / h[register]
                self._interpolate(theta, h[register].to_float(self.layout.real), y, hit, register)
                self._next_output(hit, register)

    def _interpolate(self, theta: Value, h: Value, y: ir.Value, hit: Value, register: int) -> None:
        code, layout, n = self.code, self.layout, self.layout.registers
        ys = self.arguments.address("ys")
        real = hit & self.is_real(register)
        index = self.block.get("index", register).to_int(I64)
        places = self.state_places(index, self.rows(register))
        scaled = [None if w is None else w * h for w in weights(self.spec, theta)]
        for d in code.each(self.spec.dim, 4):
            element = code.add(code.times(d, n), register)
            state = code.load(y, layout.lane, element)
            for j, weight in enumerate(scaled):
                if weight is not None:
                    state = fma(weight, self._stages.k(j, element), state)
            scatter(code, state, ys, places + self.whole(d), real)

    def _next_output(self, hit: Value, register: int) -> None:
        code = self.code
        index = self.block.get("index", register) + hit.to_int(I32)
        self.block.set("index", index, register)
        last = self._wide(code.value(self.n_times).to_int(I32)) - 1
        inside = where(index < last, index, last).to_int(I64)
        following = self.output_times(inside, self.rows(register))
        beyond = self.block.get("direction", register) * math.inf
        self.block.set("next", where(index > last, beyond, following), register)

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
        return abs(h) < larger(near, self._wide(self._sizes["min"]))

    def _write_down(self) -> None:
        """How rows ended and the work they took; NaN for states never reached."""
        for register in self.registers:
            rows, real = self.rows(register), self.is_real(register)
            self._leave_out(rows, real, register)
            for name in ("status", "n_evaluations", "n_accepted", "n_rejected"):
                value = self.block.get(name, register).to_int(I64)
                scatter(self.code, value, self.arguments.address(name), rows, real)

    def _leave_out(self, rows: Value, real: Value, register: int) -> None:
        """NaN at the output times that a row did not reach."""
        code = self.code
        index = Variable(code, self.spec.integers)
        index.set(self.block.get("index", register))
        n_times = wide(code.value(self.n_times).to_int(I32), self.layout.width)
        ys = self.arguments.address("ys")
        with code.forever() as leave:
            missing = real & (index.get() < n_times)
            leave.unless(code.any(missing))
            places = self.state_places(index.get().to_int(I64), rows)
            for d in code.each(self.spec.dim, 1):
                nothing = wide(
                    code.value(ir.Constant(self.layout.real, math.nan)), self.layout.width
                )
                scatter(code, nothing, ys, places + self.whole(d), missing)
            index.set(index.get() + 1)


def spacing(t: Value, end: Value) -> Value:
    """Distance of times from the next larger number; near zero, as for roundings of an end."""
    eps = {FLOAT: 2.0**-23, DOUBLE: 2.0**-52}[t.element]
    integer = {FLOAT: I32, DOUBLE: I64}[t.element]
    reach = larger(abs(t), abs(end) * eps)
    return (reach.bitcast(integer) + 1).bitcast(t.element) - reach
