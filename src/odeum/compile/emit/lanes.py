"""Rows in lanes: reading and writing what belongs to one row each."""

from collections.abc import Sequence

from llvmlite import ir

from odeum.compile.emit.code import I32, I64, Code, vector_of, wide
from odeum.compile.emit.values import Value


def lane(value: Value, index: int) -> Value:
    """One lane of a value, which may have one only."""
    return value if value.lanes is None else value.lane(index)


def from_lanes(code: Code, numbers: Sequence[Value]) -> Value:
    """A value of single numbers, one a lane."""
    if len(numbers) == 1:
        return numbers[0]
    kind = vector_of(numbers[0].type, len(numbers))
    value = code.value(ir.Constant(kind, ir.Undefined))
    for i, number in enumerate(numbers):
        value = value.with_lane(i, number)
    return value


def gather(code: Code, pointer: ir.Value, kind: ir.Type, indices: Sequence[ir.Value]) -> Value:
    """Numbers of a type at one position for each lane."""
    return from_lanes(code, [code.load(pointer, kind, index) for index in indices])


def lane_numbers(code: Code, width: int, kind: ir.Type = I32) -> Value:
    """0, 1, 2, ... in the lanes."""
    if width == 1:
        return code.value(ir.Constant(kind, 0))
    return code.value(ir.Constant(vector_of(kind, width), list(range(width))))


def integers(value: Value, width: int) -> list[ir.Value]:
    """The lanes as 64-bit integers."""
    return [lane(value, i).to_int(I64).value for i in range(width)]


def scatter(
    code: Code,
    value: Value,
    pointer: ir.Value,
    indices: Sequence[ir.Value],
    mask: Value,
) -> None:
    """Puts the lanes where a mask holds at one position each."""
    for i, index in enumerate(indices):
        with code.when(lane(mask, i).value):
            code.store(lane(value, i), pointer, index)


def first_of(code: Code, mask: Value, value: Value, width: int) -> Value:
    """The value of the first lane where a mask holds, of lane 0 where none does, in all lanes."""
    if width == 1:
        return value
    bits = code.builder.bitcast(mask.value, ir.IntType(width))
    number = code.builder.cttz(bits, ir.Constant(ir.IntType(1), 0))
    index = code.builder.zext(number, I32) if width < 32 else code.builder.trunc(number, I32)
    inside = code.builder.icmp_unsigned("<", index, ir.Constant(I32, width))
    index = code.builder.select(inside, index, ir.Constant(I32, 0))
    return wide(value.lane(code.value(index)), width)
