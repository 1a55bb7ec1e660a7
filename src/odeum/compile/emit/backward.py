"""The backward sweep over the recorded steps of a thread's rows: the exact discrete gradient.

Each step is taken again from its start, then pulled back, the last step first; step sizes count as
constants, but for steps cut to land on an output time. Mirrors odeum.gradient.sweep.
"""

from collections.abc import Sequence

from llvmlite import ir

from odeum.compile.emit.blocks import Block
from odeum.compile.emit.code import I32, I64, Variable, wide
from odeum.compile.emit.groups import RECORDED, GroupCode
from odeum.compile.emit.interpolation import slopes, weights
from odeum.compile.emit.kernel import Spec
from odeum.compile.emit.lanes import gather, lane_where, scatter
from odeum.compile.emit.pulls import PullCode, stage_fields
from odeum.compile.emit.returns import ReturnCode
from odeum.compile.emit.stages import StageCode
from odeum.compile.emit.values import Value, fma, where


class BackwardCode(GroupCode):
    """Writes the sweep over the steps of a thread's rows that a tape holds.

    Args:
        function: ``(arguments, block, thread)``, without a body.
        spec: what is compiled.
        pulls: the recorded field and its way back.
    """

    def __init__(self, function: ir.Function, spec: Spec, pulls: PullCode) -> None:
        super().__init__(function, spec)
        code, layout = self.code, self.layout
        self._pulls = pulls
        self._derivatives = spec.derivatives
        self._stages = StageCode(code, spec)
        self._fields = stage_fields(spec)
        self._stage_memory = code.room(ir.IntType(8), self._fields.size * self._derivatives.n)
        n = spec.dim * layout.registers
        self._per_array = n
        self._y = code.room(layout.lane, n)
        self._g_ks = code.room(layout.lane, n * self._derivatives.n)
        self._g_y1 = code.room(layout.lane, n)
        self._g_start = code.room(layout.lane, n)
        self._g_stage_t = code.room(layout.lane, layout.registers)
        self._g_stage_y = code.room(layout.lane, n)
        self._g_t = [Variable(code, spec.times) for _ in self.registers]
        self._g_h = [Variable(code, spec.times) for _ in self.registers]
        self._returns = ReturnCode(self)
        at = code.builder.mul(self.thread, code.integer(spec.thread.size))
        self._sums = code.offset(self.arguments.address("threads"), at)
        self._g_ts = self.arguments.address("g_ts")
        if spec.wants_times and not spec.per_row_times:
            own = code.builder.mul(self.thread, self.n_times)
            self._g_ts = code.at(self._g_ts, spec.time, own)

        with code.when(self._is(self.arguments.number("first_call"))):
            self._returns.vacate()
        position = Variable(code, I64)
        position.set(code.value(self.number(RECORDED)))
        with code.forever() as leave:
            leave.unless((position.get() > 0).value)
            position.set(position.get() - 1)
            self._step(position.get().value)
        with code.when(self._is(self.arguments.number("last_call"))):
            self._returns.leave_all()
            with self.each_block() as real:
                self._start(real)
        code.finish()

    def _is(self, flag: ir.Value) -> ir.Value:
        return self.code.builder.icmp_signed("!=", flag, self.code.integer(0))

    def _zero(self) -> Value:
        return self.code.value(ir.Constant(self.layout.lane, None))

    # One step

    def _step(self, position: ir.Value) -> None:
        code, derivatives = self.code, self._derivatives
        record = self._record(position)
        none = self.code.value(ir.Constant(self.spec.times, None))
        accept = [record.get("h", register) != none for register in self.registers]
        rows = [record.get("rows", register).to_int(I64) for register in self.registers]
        before = self.get("g_rows")
        arrive = [a & (b != c) for a, b, c in zip(accept, rows, before, strict=True)]
        with code.when(code.any_of(arrive)):
            self._returns.take(record)
        t, h = self._start_of(record, accept)
        self._field_context = self._context_of(accept)
        hits = [
            self._hit(self._last_output(register), t[register], accept[register], register)
            for register in self.registers
        ]
        n_active = Variable(code, I64)
        n_active.set(code.value(code.integer(derivatives.n_without_extra)))
        self._take_again(t, h, range(1, derivatives.n_without_extra))
        if derivatives.n_extra:
            with code.when(code.any_of(hits)):
                n_active.set(code.value(code.integer(derivatives.n)))
                self._take_again(t, h, range(derivatives.n_without_extra, derivatives.n))
        self._ask_of_end(accept)
        self._ask_of_outputs(t, h, accept)
        if derivatives.n_extra:
            with code.when(code.any_of(hits)):
                self._pull_stages(h, range(derivatives.n_without_extra, derivatives.n))
        self._pull_stages(h, range(1, derivatives.n_without_extra))
        first = code.offset(self._stage_memory, self._fields.size)
        n_stages = code.builder.sub(n_active.get().value, code.integer(1))
        if derivatives.n > 1:
            with code.when(code.builder.icmp_signed(">", n_stages, code.integer(0))):
                code.call(self._pulls.outer, first, n_stages, self._sums)
        self._move(record, accept)

    def _record(self, position: ir.Value) -> Block:
        code, fields = self.code, self.spec.record
        first = code.builder.mul(self.thread, self.arguments.number("capacity"))
        index = code.builder.add(first, position)
        at = code.builder.mul(index, code.integer(fields.size))
        return Block(code, fields, code.offset(self.arguments.address("tape"), at))

    def _start_of(self, record: Block, accept: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        """Times and sizes of the steps; where a lane took none, those of one that did.

        All lanes are evaluated, and what a lane without a step meets must be finite: zeros pulled
        back through infinities would not stay zeros.
        """
        t, h = (
            self._substituted([record.get(name, r) for r in self.registers], accept)
            for name in ("t", "h")
        )
        n = self.layout.registers
        for d in self.code.each(self.spec.dim, 4 // n):
            for name, target in (("y", self._y), ("k", self._stages.ks)):
                elements = [self.code.add(self.code.times(d, n), r) for r in self.registers]
                values = [record.get(name, element) for element in elements]
                for element, value in zip(elements, self._substituted(values, accept), strict=True):
                    self.code.store(value, target, element)
        return t, h

    def _context_of(self, mask: Sequence[Value]) -> tuple[ir.Value, ir.Value]:
        """What the field reads besides times and states; of rows as :meth:`_start_of` has them."""
        code, layout = self.code, self.layout
        shared, own = self.context
        size = sum(node.size for node in self.spec.program.row)
        if not size or layout.n_rows == 1:
            return shared, own
        alike = self.block.where("row_alike")
        lacking = code.any_of([~x for x in mask])
        with code.when(lacking), code.loop(size) as i:
            places = [code.add(code.times(i, layout.registers), r) for r in self.registers]
            values = [code.load(own, layout.lane, place) for place in places]
            for place, value in zip(places, self._substituted(values, mask), strict=True):
                code.store(value, alike, place)
        return shared, code.builder.select(lacking, alike, own)

    def _substituted(self, values: Sequence[Value], accept: Sequence[Value]) -> list[Value]:
        """Values, with those of one lane that a mask holds in wherever it does not hold."""
        width = self.layout.width
        chosen = values[0] if width == 1 else values[0].lane(0)
        for value, mask in zip(values, accept, strict=True):
            chosen = lane_where(self.code, mask, value, chosen)
        return [
            where(mask, value, wide(chosen, width))
            for value, mask in zip(values, accept, strict=True)
        ]

    def _last_output(self, register: int) -> Value:
        """The last output time that nothing was asked for yet."""
        index = self.block.get("g_index", register)
        at = where(index > 0, index, index.constant(0)).to_int(I64)
        return self.output_times(at, self.rows(register))

    def _hit(self, output: Value, t: Value, accept: Value, register: int) -> Value:
        direction = self.block.get("direction", register)
        index = self.block.get("g_index", register)
        return accept & (index > 0) & (output * direction > t * direction)

    def _take_again(self, t: Sequence[Value], h: Sequence[Value], js: Sequence[int]) -> None:
        code, stages = self.code, self._stages
        hy = self.as_states(h)
        for j in js:
            stage = self._stage(j)
            stages.advance_to(self._y, hy, self._derivatives.rows[j], stage.where("y"))
            for register, time in enumerate(self.as_states(stages.times(t, h, j))):
                stage.set("t", time, register)
            code.call(self._pulls.recording, *self._field_context, stage.pointer, stages.k_at(j))

    def _stage(self, j: int) -> Block:
        where_ = self.code.offset(self._stage_memory, j * self._fields.size)
        return Block(self.code, self._fields, where_)

    def _ask_of_end(self, accept: Sequence[Value]) -> None:
        """Cotangents of the state and the derivative at the step's end; none of the others."""
        code, zero = self.code, self._zero()
        end = self._derivatives.end
        for j in range(self._derivatives.n):
            for element, register in self._stages.elements():
                g = zero
                if j == end:
                    g = where(accept[register], self.block.get("g_k", element), zero)
                self._put_g_k(j, element, g)
        for element, register in self._stages.elements():
            g = where(accept[register], self.block.get("g_y", element), zero)
            code.store(g, self._g_y1, element)
            code.store(zero, self._g_start, element)
        for register in self.registers:
            nothing = code.value(ir.Constant(self.spec.times, None))
            self._g_t[register].set(nothing)
            self._g_h[register].set(nothing)

    def _g_k_at(self, j: int) -> ir.Value:
        return self.code.at(self._g_ks, self.layout.lane, j * self._per_array)

    def _put_g_k(self, j: int, element: ir.Value | int, g: Value) -> None:
        self.code.store(g, self._g_k_at(j), element)

    def _add_to(self, pointer: ir.Value, element: ir.Value | int, g: Value) -> None:
        old = self.code.load(pointer, self.layout.lane, element)
        self.code.store(old + g, pointer, element)

    def _ask_of_outputs(
        self, t: Sequence[Value], h: Sequence[Value], accept: Sequence[Value]
    ) -> None:
        """Adds the cotangents of the outputs inside the steps, through the interpolant."""
        code = self.code
        for register in self.registers:
            with code.forever() as leave:
                output = self._last_output(register)
                hit = self._hit(output, t[register], accept[register], register)
                leave.unless(code.any(hit))
                theta = (output - t[register]) / h[register]
                # Lanes without an output ask nothing, wherever theirs may lie.
                theta = where(hit, theta, theta.constant(0.5))
                self._ask_of_output(theta, h[register], hit, register)
                index = self.block.get("g_index", register) - hit.to_int(I32)
                self.block.set("g_index", index, register)

    def _ask_of_output(self, theta: Value, h: Value, hit: Value, register: int) -> None:
        code, layout, spec = self.code, self.layout, self.spec
        n, real, zero = layout.registers, layout.real, self._zero()
        index = self.block.get("g_index", register).to_int(I64)
        rows = self.rows(register)
        places = self.state_places(index, rows)
        g_ys = self.arguments.address("g_ys")
        at_end = theta == 1.0
        hy = h.to_float(real)
        parts = weights(spec, theta)
        change = Variable(code, layout.lane)
        slope = Variable(code, layout.lane)
        change.set(zero)
        slope.set(zero)
        rates = slopes(spec, theta) if spec.wants_times else []
        for d in code.each(spec.dim, 4):
            element = code.add(code.times(d, n), register)
            g = where(hit, gather(code, g_ys, real, places + self.whole(d)), zero)
            # At its end a step's interpolant is the step.
            inner = where(at_end, zero, g)
            self._add_to(self._g_y1, element, where(at_end, g, zero))
            self._add_to(self._g_start, element, inner)
            for j, weight in enumerate(parts):
                if weight is None:
                    continue
                self._add_to(self._g_k_at(j), element, weight * hy * inner)
                if spec.wants_times:
                    term = weight * self._stages.k(j, element)
                    change.set(fma(inner, term, change.get()))
            for j, rate in enumerate(rates):
                if rate is not None:
                    slope.set(fma(g, rate * self._stages.k(j, element), slope.get()))
        if not spec.wants_times:
            return
        of_output = slope.get().to_float(spec.time)
        of_h = change.get().to_float(spec.time) - of_output * theta
        self._g_h[register].set(self._g_h[register].get() + of_h)
        self._g_t[register].set(self._g_t[register].get() - of_output)
        self._add_to_times(index, rows, of_output, hit)

    def _add_to_times(self, index: Value, rows: Value, g: Value, mask: Value) -> None:
        """Adds cotangents to those of the output times."""
        places = self.time_places(index, rows)
        scatter(self.code, g, self._g_ts, places, mask, add=True)

    def _pull_stages(self, h: Sequence[Value], js: Sequence[int]) -> None:
        """Pulls derivatives back, the last one first."""
        code, spec, layout, stages = self.code, self.spec, self.layout, self._stages
        hy = self.as_states(h)
        for j in reversed(js):
            self._pull(j)
            row, node = self._derivatives.rows[j], self._derivatives.nodes[j]
            used = [i for i, weight in enumerate(row) if weight]
            change = [Variable(code, layout.lane) for _ in self.registers]
            for total in change:
                total.set(self._zero())
            for element, register in stages.elements():
                g = code.load(self._g_stage_y, layout.lane, element)
                if j == self._derivatives.end:
                    g = g + code.load(self._g_y1, layout.lane, element)
                self._add_to(self._g_start, element, g)
                scaled = g * hy[register]
                for i in used:
                    at = self._g_k_at(i)
                    old = code.load(at, layout.lane, element)
                    code.store(fma(scaled, scaled.constant(row[i]), old), at, element)
                if spec.wants_times:
                    moved = stages.weighed(row, element)
                    if moved is not None:
                        change[register].set(fma(g, moved, change[register].get()))
            if not spec.wants_times:
                continue
            for register in self.registers:
                g_t = code.load(self._g_stage_t, layout.lane, register).to_float(spec.time)
                of_h = g_t * node + change[register].get().to_float(spec.time)
                self._g_t[register].set(self._g_t[register].get() + g_t)
                self._g_h[register].set(self._g_h[register].get() + of_h)

    def _pull(self, j: int) -> None:
        self.code.call(
            self._pulls.pull,
            *self._field_context,
            self._stage(j).pointer,
            self._g_k_at(j),
            self._g_stage_t,
            self._g_stage_y,
            self.block.where("g_row"),
            self._sums,
        )

    def _move(self, record: Block, accept: Sequence[Value]) -> None:
        """Makes the start of the steps where their rows now are."""
        code, lane_type = self.code, self.layout.lane
        for element, register in self._stages.elements():
            for name, source in (("g_y", self._g_start), ("g_k", self._g_ks)):
                new = code.load(source, lane_type, element)
                old = self.block.get(name, element)
                self.block.set(name, where(accept[register], new, old), element)
        if not self.spec.wants_times:
            return
        for register in self.registers:
            stop = record.get("stop_index", register)
            landed = accept[register] & (stop >= 0)
            g_t, g_h = self._g_t[register].get(), self._g_h[register].get()
            g_t1 = self.block.get("g_t", register)
            index = where(landed, stop, stop.constant(0)).to_int(I64)
            self._add_to_times(index, self.rows(register), g_t1 + g_h, landed)
            new = g_t + where(landed, -g_h, g_t1)
            self.block.set("g_t", where(accept[register], new, g_t1), register)

    # The beginning of the solve

    def _start(self, real: Sequence[Value]) -> None:
        """Pulls back the derivative at the initial state, and the initial time."""
        code, stages, layout = self.code, self._stages, self.layout
        n_accepted = self.arguments.address("n_accepted")
        moved = [
            mask & (gather(code, n_accepted, I64, self.rows(register)) > 0)
            for register, mask in enumerate(real)
        ]
        self.load_row_inputs()
        self._load_gathered(moved)
        with code.when(code.any_of(moved)):
            self._load_start(moved)
            stage = self._stage(0)
            self._field_context = self._context_of(moved)
            code.call(self._pulls.recording, *self._field_context, stage.pointer, stages.k_at(0))
            for element, _ in stages.elements():
                self._put_g_k(0, element, self.block.get("g_k", element))
            self._pull(0)
            code.call(self._pulls.outer, self._stage_memory, code.integer(1), self._sums)
            for element, _ in stages.elements():
                g = code.load(self._g_stage_y, layout.lane, element)
                self.block.set("g_y", self.block.get("g_y", element) + g, element)
            for register in self.registers:
                g_t = code.load(self._g_stage_t, layout.lane, register).to_float(self.spec.time)
                self.block.set("g_t", self.block.get("g_t", register) + g_t, register)
        self._write_down(real)

    def _load_gathered(self, moved: Sequence[Value]) -> None:
        """What the rows have gathered on their way back; nothing where they never moved."""
        code, layout, spec = self.code, self.layout, self.spec

        def load(field: str, table: ir.Value, size: int, done: int = 0) -> None:
            kind = spec.time if field == "g_t" else layout.real
            for register, mask in enumerate(moved):
                rows = self.rows(register)
                for e in code.each(size, 1):
                    value = gather(code, table, kind, rows * self.whole(size) + self.whole(e))
                    place = code.add(code.times(code.add(e, done), layout.registers), register)
                    self.block.set(field, where(mask, value, value.constant(0.0)), place)

        load("g_y", self.arguments.address("g_y0"), spec.dim)
        load("g_k", self.arguments.address("row_k"), spec.dim)
        if spec.wants_times:
            load("g_t", self.arguments.address("row_t"), 1)
        done = 0
        for i, node in enumerate(spec.program.wanted("row")):
            load("g_row", self.arguments.entry("g_row", i), node.size, done)
            done += node.size

    def _load_start(self, moved: Sequence[Value]) -> None:
        """The initial times and states, of rows that took steps."""
        code, layout, stage = self.code, self.layout, self._stage(0)
        n, dim = layout.registers, self.spec.dim
        y0 = self.arguments.address("y0")
        rows = [self.rows(register) for register in self.registers]
        times = [self.output_times(self.whole(0), row) for row in rows]
        for register, t in enumerate(self.as_states(self._substituted(times, moved))):
            stage.set("t", t, register)
        for d in code.each(dim, 1):
            values = [
                gather(code, y0, layout.real, row * self.whole(dim) + self.whole(d)) for row in rows
            ]
            for register, value in enumerate(self._substituted(values, moved)):
                stage.set("y", value, code.add(code.times(d, n), register))

    def _write_down(self, real: Sequence[Value]) -> None:
        """Gradients of initial states, of initial times and of row inputs."""
        code, layout, spec = self.code, self.layout, self.spec
        n = layout.registers
        g_ys, g_y0 = self.arguments.address("g_ys"), self.arguments.address("g_y0")
        for register, mask in enumerate(real):
            rows = self.rows(register)
            for d in code.each(spec.dim, 1):
                at = rows * self.whole(spec.dim) + self.whole(d)
                g = self.block.get("g_y", code.add(code.times(d, n), register))
                scatter(code, g + gather(code, g_ys, layout.real, at), g_y0, at, mask)
            if spec.wants_times:
                self._add_to_times(self.whole(0), rows, self.block.get("g_t", register), mask)
            done = 0
            for i, node in enumerate(spec.program.wanted("row")):
                table = self.arguments.entry("g_row", i)
                for e in code.each(node.size, 1):
                    at = rows * self.whole(node.size) + self.whole(e)
                    place = code.add(code.times(code.add(e, done), n), register)
                    scatter(code, self.block.get("g_row", place), table, at, mask)
                done += node.size
