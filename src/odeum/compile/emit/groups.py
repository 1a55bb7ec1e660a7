"""What functions on one group of rows have in common: its block, its rows, its output times."""

from collections.abc import Sequence

from llvmlite import ir

from odeum.compile.emit.blocks import Block
from odeum.compile.emit.code import I32, I64, Code, wide
from odeum.compile.emit.kernel import Arguments, Spec
from odeum.compile.emit.lanes import gather, lane_numbers
from odeum.compile.emit.values import Value, where

TRIED, RECORDED, BEGUN, DONE = range(4)
"""Entries of a group's ``numbers``: steps tried, records on the tape at hand, and whether the solve
has begun and come to its end."""


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

    def choose_rows(self) -> None:
        """Says which row each lane has; lanes beyond the batch repeat its last one."""
        last = wide(self.code.value(self.n_rows) - 1, self.layout.width)
        for register in self.registers:
            numbers = self._numbers(register)
            numbers = where(numbers < last, numbers, last)
            rows = gather(self.code, self.arguments.address("order"), I64, numbers)
            self.block.set("rows", rows, register)

    def rows(self, register: int) -> Value:
        """The number of each lane's row."""
        return self.block.get("rows", register)

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
