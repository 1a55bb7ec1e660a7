"""An LLVM function while it is written: memory, loops and branches around values.

Knows nothing of graphs, rows or methods.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from llvmlite import ir

from odeum.compile.emit.values import Value, splat

I1, I32, I64, POINTER = ir.IntType(1), ir.IntType(32), ir.IntType(64), ir.PointerType()

Index: TypeAlias = ir.Value | int


def vector_of(scalar: ir.Type, width: int) -> ir.Type:
    """A vector, or the scalar itself where the width is 1."""
    return ir.VectorType(scalar, width) if width > 1 else scalar


def width_of(kind: ir.Type) -> int:
    """Numbers in a value of a type."""
    return kind.count if isinstance(kind, ir.VectorType) else 1


def wide(value: Value, width: int) -> Value:
    """A value in every lane of a register, where it is a single number."""
    return value if width == 1 or value.lanes is not None else splat(value, width)


def bytes_of(kind: ir.Type) -> int:
    """Size of a value of a type in memory."""
    scalar = kind.element if isinstance(kind, ir.VectorType) else kind
    sizes = {ir.FloatType(): 4, ir.DoubleType(): 8, I64: 8, I32: 4, POINTER: 8}
    return width_of(kind) * sizes[scalar]


class Code:
    """A function being written.

    Args:
        function: an LLVM function without a body.

    Attributes:
        builder: where the next instruction goes.
    """

    def __init__(self, function: ir.Function) -> None:
        self._entry = function.append_basic_block("entry")
        start = function.append_basic_block("start")
        self.builder = ir.IRBuilder(start)
        self.function = function
        self._start = start

    def finish(self, result: ir.Value | None = None) -> None:
        """Returns from the function, which is complete then."""
        if result is None:
            self.builder.ret_void()
        else:
            self.builder.ret(result)
        ir.IRBuilder(self._entry).branch(self._start)

    @property
    def arguments(self) -> tuple[ir.Value, ...]:
        """Those of the function."""
        return self.function.args

    def value(self, raw: ir.Value) -> Value:
        """A value that instructions can be written with."""
        return Value(self.builder, raw)

    def integer(self, number: Index) -> ir.Value:
        """A 64-bit integer."""
        return ir.Constant(I64, number) if isinstance(number, int) else number

    def add(self, left: Index, right: Index) -> Index:
        """The sum of two integers, at once where both are known."""
        if isinstance(left, int) and isinstance(right, int):
            return left + right
        if right == 0 and isinstance(right, int):
            return left
        if left == 0 and isinstance(left, int):
            return right
        return self.builder.add(self.integer(left), self.integer(right))

    def times(self, left: Index, right: Index) -> Index:
        """The product of two integers, at once where it is known."""
        for x, other in ((left, right), (right, left)):
            if isinstance(x, int) and x in (0, 1):
                return 0 if x == 0 else other
        if isinstance(left, int) and isinstance(right, int):
            return left * right
        return self.builder.mul(self.integer(left), self.integer(right))

    # Memory

    def room(self, kind: ir.Type, n: int = 1) -> ir.Value:
        """Memory on the stack for ``n`` values, for as long as the function runs."""
        builder = ir.IRBuilder(self._entry)
        block = builder.alloca(ir.ArrayType(kind, max(n, 1)))
        block.align = 64
        block.type = POINTER  # to values of any type
        return block

    def at(self, pointer: ir.Value, kind: ir.Type, index: Index) -> ir.Value:
        """Where the value at a position lies, counted in values of that type."""
        if isinstance(index, int) and index == 0:
            return pointer
        scalar, per = (kind.element, kind.count) if isinstance(kind, ir.VectorType) else (kind, 1)
        position = self.integer(self.times(index, per))
        return self.builder.gep(pointer, [position], inbounds=True, source_etype=scalar)

    def offset(self, pointer: ir.Value, n_bytes: Index) -> ir.Value:
        """A pointer moved on."""
        if isinstance(n_bytes, int) and n_bytes == 0:
            return pointer
        position = self.integer(n_bytes)
        return self.builder.gep(pointer, [position], inbounds=True, source_etype=ir.IntType(8))

    def load(self, pointer: ir.Value, kind: ir.Type, index: Index = 0) -> Value:
        """The value at a position, counted in values of its type."""
        raw = self.builder.load(self.at(pointer, kind, index), typ=kind)
        raw.align = _alignment(kind)
        return self.value(raw)

    def store(self, value: Value, pointer: ir.Value, index: Index = 0) -> None:
        """Puts a value at a position, counted in values of its type."""
        where = self.at(pointer, value.value.type, index)
        self.builder.store(value.value, where, align=_alignment(value.value.type))

    # Control flow

    @contextmanager
    def loop(self, n: Index, step: int = 1, start: Index = 0) -> Iterator[ir.Value]:
        """Writes what is inside once, for it to run with 0, ``step``, ... below ``n``.

        Where ``n`` is a number it must exceed ``start``.
        """
        builder, function = self.builder, self.function
        body, after = function.append_basic_block("loop"), function.append_basic_block("after")
        begin = builder.block
        if isinstance(n, int) and isinstance(start, int):
            builder.branch(body)
        else:
            some = builder.icmp_signed("<", self.integer(start), self.integer(n))
            builder.cbranch(some, body, after)
        builder.position_at_end(body)
        index = builder.phi(I64)
        index.add_incoming(self.integer(start), begin)
        yield index
        following = builder.add(index, self.integer(step), flags=("nsw",))
        index.add_incoming(following, builder.block)
        more = builder.icmp_signed("<", following, self.integer(n))
        builder.cbranch(more, body, after)
        builder.position_at_end(after)

    def each(self, n: int, unroll_to: int) -> "Iterator[Index]":
        """Indices 0 to ``n``: numbers, each written out, where they are few; else a loop's."""
        if n <= unroll_to:
            yield from range(n)
        else:
            with self.loop(n) as i:
                yield i

    @contextmanager
    def forever(self) -> Iterator["Exit"]:
        """Repeats what is inside until its exit is taken."""
        body = self.function.append_basic_block("again")
        after = self.function.append_basic_block("done")
        self.builder.branch(body)
        self.builder.position_at_end(body)
        yield Exit(self, after)
        self.builder.branch(body)
        self.builder.position_at_end(after)

    @contextmanager
    def when(self, condition: ir.Value) -> Iterator[None]:
        """Runs what is inside if a condition, one bit, holds."""
        inside = self.function.append_basic_block("then")
        after = self.function.append_basic_block("go_on")
        self.builder.cbranch(condition, inside, after)
        self.builder.position_at_end(inside)
        yield
        self.builder.branch(after)
        self.builder.position_at_end(after)

    def any(self, mask: Value) -> ir.Value:
        """Whether a mask holds in any lane, one bit."""
        if mask.lanes is None:
            return mask.value
        bits = self.builder.bitcast(mask.value, ir.IntType(mask.lanes))
        return self.builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    def any_of(self, masks: Sequence[Value]) -> ir.Value:
        """Whether any of several masks holds in any lane, one bit."""
        total = masks[0]
        for mask in masks[1:]:
            total = total | mask
        return self.any(total)

    def call(self, function: ir.Function, *arguments: ir.Value) -> ir.Value:
        """Calls another function."""
        return self.builder.call(function, list(arguments))

    def call_at(self, address: ir.Value, result: ir.Type, *arguments: ir.Value) -> ir.Value:
        """Calls the function at an address."""
        kind = ir.FunctionType(result, [x.type for x in arguments])
        return self.builder.call(_FunctionAt(address, kind), list(arguments))


class _FunctionAt:
    """An address as llvmlite wants a function that is called."""

    def __init__(self, address: ir.Value, kind: ir.FunctionType) -> None:
        self.type, self.function_type = address.type, kind
        self.get_reference = address.get_reference


class Exit:
    """The way out of a loop."""

    def __init__(self, code: Code, after: ir.Block) -> None:
        self._code = code
        self._after = after

    def unless(self, condition: ir.Value) -> None:
        """Leaves the loop where a condition, one bit, does not hold."""
        inside = self._code.function.append_basic_block("inside")
        self._code.builder.cbranch(condition, inside, self._after)
        self._code.builder.position_at_end(inside)


class Variable:
    """A value that changes as the function runs.

    Args:
        code: the function.
        kind: the type of its values.
    """

    def __init__(self, code: Code, kind: ir.Type) -> None:
        self._code = code
        self._kind = kind
        self._place = code.room(kind)

    def get(self) -> Value:
        """Its value now."""
        return self._code.load(self._place, self._kind)

    def set(self, value: Value) -> None:
        """Gives it another."""
        self._code.store(value, self._place)


def _alignment(kind: ir.Type) -> int:
    scalar = kind.element if isinstance(kind, ir.VectorType) else kind
    return bytes_of(scalar)
