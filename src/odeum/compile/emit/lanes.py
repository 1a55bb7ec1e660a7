"""Rows in lanes: reading and writing what belongs to one row each.

Lanes go through memory one by one, in a loop that is written once: written out for every lane,
such code would take longer to compile than all the rest.
"""

from llvmlite import ir

from odeum.compile.emit.code import I32, I64, Code, vector_of
from odeum.compile.emit.values import Value, where


def lane_numbers(code: Code, width: int) -> Value:
    """0, 1, 2, ... in the lanes."""
    if width == 1:
        return code.value(ir.Constant(I64, 0))
    return code.value(ir.Constant(vector_of(I64, width), list(range(width))))


def gather(code: Code, pointer: ir.Value, kind: ir.Type, index: Value) -> Value:
    """Numbers of a type at the position that each lane says."""
    width = index.lanes
    if width is None:
        return code.load(pointer, kind, index.value)
    positions, numbers = code.room(index.type), code.room(vector_of(kind, width))
    code.store(index, positions)
    with code.loop(width) as i:
        position = code.load(positions, I64, i).value
        code.store(code.load(pointer, kind, position), numbers, i)
    return code.load(numbers, vector_of(kind, width))


def scatter(
    code: Code, value: Value, pointer: ir.Value, index: Value, mask: Value, *, add: bool = False
) -> None:
    """Puts each lane at the position that it says, where a mask holds.

    Args:
        code: the function.
        value: what is put.
        pointer: where position zero is.
        index: positions.
        mask: where it does not hold nothing is put.
        add: whether it is added to what stands there.
    """

    def put(number: Value, position: ir.Value) -> None:
        if add:
            number = number + code.load(pointer, value.element, position)
        code.store(number, pointer, position)

    width = value.lanes
    if width is None:
        with code.when(mask.value):
            put(value, index.value)
        return
    numbers, positions = code.room(value.type), code.room(index.type)
    code.store(value, numbers)
    code.store(where(mask, index, index.constant(-1)), positions)
    with code.loop(width) as i:
        position = code.load(positions, I64, i)
        with code.when((position >= 0).value):
            put(code.load(numbers, value.element, i), position.value)


def lane_where(code: Code, mask: Value, value: Value, otherwise: Value) -> Value:
    """The first lane of a value where a mask holds, as a number; another where it holds nowhere."""
    if value.lanes is None:
        return where(mask, value, otherwise)
    bits = code.builder.bitcast(mask.value, ir.IntType(value.lanes))
    none = code.builder.icmp_unsigned("==", bits, ir.Constant(bits.type, 0))
    number = code.builder.cttz(bits, ir.Constant(ir.IntType(1), 0))
    resize = code.builder.zext if value.lanes < 32 else code.builder.trunc
    index = resize(number, I32) if value.lanes != 32 else number
    index = code.builder.select(none, ir.Constant(I32, 0), index)
    found = value.lane(code.value(index))
    return where(code.value(none), otherwise, found)
