"""What functions on the rows of one thread have in common: its share of them, and their lanes.

Rows are dealt to threads like cards, ``dealt`` at a time. A thread solves as many at once as it has
lanes, and a row that ends makes room for the next: a slow row keeps no other waiting.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

from odeum.compile.emit.blocks import Block
from odeum.compile.emit.code import I32, Code, Index, wide
from odeum.compile.emit.kernel import Arguments, Spec
from odeum.compile.emit.lanes import gather, lane_numbers
from odeum.compile.emit.values import Value, where

BEGUN, TAKEN, RECORDED = range(3)
"""Entries of a group's ``numbers``: whether the solve has begun, how many of the thread's rows have
been given a lane, and records on the tape at hand."""


class GroupCode:
    """What functions on the rows of one thread have in common.

    Args:
        function: ``(arguments, block, thread)``, without a body.
        spec: what is compiled.
    """

    def __init__(self, function: ir.Function, spec: Spec) -> None:
        self.code = code = Code(function)
        self.spec = spec
        self.layout = spec.layout
        pointer, block, self.thread = code.arguments
        self.arguments = Arguments(code, pointer)
        self.block = Block(code, spec.group, block)
        self.registers = range(spec.layout.registers)
        self.n_times = self.arguments.number("n_times")
        self.n_rows = self.arguments.number("n_rows")
        self.context = (self.arguments.address("shared"), self.block.where("row"))
        self._dealt = code.value(self.arguments.number("dealt"))
        self._around = self._dealt * code.value(self.arguments.number("n_threads"))
        self.n_own = self._own()

    def _own(self) -> Value:
        """How many rows the thread has."""
        n_rows, dealt = self.code.value(self.n_rows), self._dealt
        rounds = n_rows // self._around
        rest = n_rows - rounds * self._around - dealt * self.code.value(self.thread)
        rest = where(rest < dealt, rest, dealt)
        return rounds * dealt + where(rest > 0, rest, rest.constant(0))

    def own_row(self, i: Value) -> Value:
        """The number of the thread's row ``i``."""
        own = self._dealt * self.code.value(self.thread)
        return i // self._dealt * self._around + own + i % self._dealt

    # Blocks of rows, all lanes at once

    @contextmanager
    def each_block(self) -> Iterator[list[Value]]:
        """Puts the thread's rows into lanes, as many at a time as there are.

        Yields:
            Which lanes hold a row, one mask a register; the others repeat the last one.
        """
        code, width = self.code, self.layout.width
        with code.loop(self.n_own.value, self.layout.n_rows) as first:
            with code.loop(self.layout.n_rows) as place:
                i = code.value(code.builder.add(first, place))
                i = where(i < self.n_own, i, self.n_own - 1)
                self.set_lane("rows", place, self.own_row(i))
            left = wide(self.n_own - code.value(first), width)
            yield [
                lane_numbers(code, width) + register * width < left for register in self.registers
            ]

    def rows(self, register: int) -> Value:
        """The number of each lane's row."""
        return self.block.get("rows", register)

    def load_row_inputs(self) -> None:
        """Reads what the rows in the lanes have of their own."""
        code, n, done = self.code, self.layout.registers, 0
        for index, node in enumerate(self.spec.program.row):
            table = self.arguments.entry("row", index)
            for register in self.registers:
                for e in code.each(node.size, 1):
                    at = self.rows(register) * self.whole(node.size) + self.whole(e)
                    value = gather(code, table, self.layout.real, at)
                    place = code.add(code.times(code.add(e, done), n), register)
                    self.block.set("row", value, place)
            done += node.size

    # One lane

    def lane(self, name: str, place: ir.Value, element: Index = 0) -> Value:
        """What a field says of one lane, counted through all registers."""
        kind = self.block.fields.kinds[name]
        scalar = kind.element if isinstance(kind, ir.VectorType) else kind
        return self.code.load(self.block.where(name), scalar, self._in_lane(place, element))

    def set_lane(self, name: str, place: ir.Value, value: Value, element: Index = 0) -> None:
        """Puts it."""
        self.code.store(value, self.block.where(name), self._in_lane(place, element))

    def _in_lane(self, place: ir.Value, element: Index) -> Index:
        return self.code.add(self.code.times(element, self.layout.n_rows), place)

    def load_row_inputs_of(self, row: Value, place: ir.Value) -> None:
        """Reads what one row has of its own into its lane."""
        done = 0
        for index, node in enumerate(self.spec.program.row):
            table = self.arguments.entry("row", index)
            with self.code.loop(node.size) as e:
                value = self.code.load(table, self.layout.real, self.entry_of(row, node.size, e))
                self.set_lane("row", place, value, self.code.add(e, done))
            done += node.size

    def entry_of(self, row: Value, size: int, element: Index) -> Index:
        """Where an element of a row lies in [batch, size]."""
        return self.code.add((row * size).value, element)

    def output_time_of(self, index: Value, row: Value) -> Value:
        """An output time of one row."""
        place = index * self.code.value(self.n_rows) + row if self.spec.per_row_times else index
        return self.code.load(self.arguments.address("ts"), self.spec.time, place.value)

    # All lanes

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

    def size(self, name: str) -> Value:
        """A bound on step sizes, in the precision of times."""
        return self.arguments.size(name).to_float(self.spec.time)

    def count(self, name: str, mask: Value, register: int, n: int = 1) -> None:
        """Adds to a count in the lanes where a mask holds."""
        added = mask.to_int(I32) * n
        self.block.set(name, self.block.get(name, register) + added, register)

    def wide(self, value: Value) -> Value:
        """A number in every lane."""
        return wide(value, self.layout.width)

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
