"""Where the elements of an array lie: memory, strides, and what views make of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from llvmlite import ir

from odeum.compile.emit.code import Code, Index, vector_of, wide
from odeum.compile.emit.values import Value
from odeum.compile.ir import Node, Shape


@dataclass(frozen=True)
class Layout:
    """How rows are laid over vectors.

    Attributes:
        real: the floating-point type of the state.
        width: rows in one register; 1 where a single row is solved.
        registers: registers of rows that are solved together.
        features: elements of one row in a register, where a single row is solved; else 1.
    """

    real: ir.Type
    width: int
    registers: int = 1
    features: int = 1

    @property
    def lane(self) -> ir.Type:
        """The type of one register of rows."""
        return vector_of(self.real, self.width)

    @property
    def n_rows(self) -> int:
        """Rows that are solved together."""
        return self.width * self.registers


@dataclass(frozen=True)
class Place:
    """An array in memory.

    Attributes:
        pointer: its memory.
        shape: of the array.
        strides: elements from one index to the next, per axis.
        offset: the element at index zero.
        rows: whether each element holds a number for every row (``registers`` vectors), or
            one number that all rows share.
    """

    pointer: ir.Value
    shape: Shape
    strides: tuple[int, ...]
    offset: int = 0
    rows: bool = True

    @staticmethod
    def contiguous(pointer: ir.Value, shape: Shape, *, rows: bool = True) -> "Place":
        """An array in the order of its indices."""
        return Place(pointer, shape, row_major(shape), 0, rows)

    def viewed(self, node: Node) -> "Place | None":
        """This array seen through a view; None where no strides describe that."""
        if node.op == "permute":
            dims = node.attributes["dims"]
            return replace(self, shape=node.shape, strides=tuple(self.strides[d] for d in dims))
        if node.op == "expand":
            return replace(self, shape=node.shape, strides=self._broadcast(node.shape))
        if node.op == "slice":
            dim, start, step = (node.attributes[name] for name in ("dim", "start", "step"))
            strides = list(self.strides)
            offset = self.offset + start * strides[dim]
            strides[dim] *= step
            return replace(self, shape=node.shape, strides=tuple(strides), offset=offset)
        assert node.op == "reshape"
        strides_or_none = _reshaped(self.shape, self.strides, node.shape)
        if strides_or_none is None:
            return None
        return replace(self, shape=node.shape, strides=strides_or_none)

    def broadcast(self, shape: Shape) -> "Place":
        """This array as a pointwise operation of that shape reads it."""
        return replace(self, shape=shape, strides=self._broadcast(shape))

    def _broadcast(self, shape: Shape) -> tuple[int, ...]:
        missing = len(shape) - len(self.shape)
        own = [
            0 if length == 1 and wanted != 1 else stride
            for length, wanted, stride in zip(
                self.shape, shape[missing:], self.strides, strict=True
            )
        ]
        return (0,) * missing + tuple(own)

    def flattened(self) -> "Place | None":
        """This array as one axis, where one stride leads through it."""
        strides = _reshaped(self.shape, self.strides, (prod(self.shape),))
        if strides is None:
            return None
        return replace(self, shape=(prod(self.shape),), strides=strides)

    def element(self, code: Code, index: Sequence[Index]) -> Index:
        """The number of an element."""
        where: Index = self.offset
        for i, stride in zip(index, self.strides, strict=True):
            where = code.add(where, code.times(i, stride))
        return where

    def load(self, code: Code, layout: Layout, index: Sequence[Index], register: int) -> Value:
        """An element for the rows of one register."""
        element = self.element(code, index)
        if not self.rows:
            return wide(code.load(self.pointer, layout.real, element), layout.width)
        at = code.add(code.times(element, layout.registers), register)
        return code.load(self.pointer, layout.lane, at)

    def store(
        self, code: Code, layout: Layout, value: Value, index: Sequence[Index], register: int
    ) -> None:
        """Puts an element for the rows of one register."""
        at = code.add(code.times(self.element(code, index), layout.registers), register)
        code.store(value, self.pointer, at)

    def load_features(self, code: Code, layout: Layout, index: Sequence[Index]) -> Value:
        """Elements that follow one another along the last axis, of a single row."""
        pointer = code.at(self.pointer, layout.real, self.element(code, index))
        if self.strides[-1] == 0:
            return wide(code.load(pointer, layout.real), layout.features)
        return code.load(pointer, vector_of(layout.real, layout.features))

    def store_features(
        self, code: Code, layout: Layout, value: Value, index: Sequence[Index]
    ) -> None:
        """Puts elements that follow one another along the last axis, of a single row."""
        code.store(value, code.at(self.pointer, layout.real, self.element(code, index)))


def row_major(shape: Shape) -> tuple[int, ...]:
    """Strides of an array in the order of its indices.

    Example:
        >>> row_major((2, 3, 4))
        (12, 4, 1)
    """
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def _reshaped(shape: Shape, strides: Sequence[int], wanted: Shape) -> tuple[int, ...] | None:
    """Strides of the same elements, in the same order, in another shape; None if there are none."""
    # Axes that follow one another evenly, as one: [length, stride].
    runs: list[list[int]] = []
    for length, stride in zip(shape, strides, strict=True):
        if length == 1:
            continue
        if runs and runs[-1][1] == stride * length:
            runs[-1] = [runs[-1][0] * length, stride]
        else:
            runs.append([length, stride])
    found: list[int] = []
    for length in reversed(wanted):
        if length == 1:
            found.append(0)
            continue
        if not runs or runs[-1][0] % length:
            return None
        found.append(runs[-1][1])
        runs[-1] = [runs[-1][0] // length, runs[-1][1] * length]
        if runs[-1][0] == 1:
            runs.pop()
    return tuple(reversed(found))
