"""Products of matrices, the bulk of the work of a network.

A tile of the result stays in registers while the axis that is summed over runs: each number read
from memory then serves several multiplications.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from math import prod

from llvmlite import ir

from odeum.compile.emit.code import Code, Index, Variable, vector_of, wide
from odeum.compile.emit.places import Layout, Place
from odeum.compile.emit.values import Value, fma

ACCUMULATORS = 12
"""Registers of a tile: enough to hide the latency of a multiplication, few enough to fit in 16."""

WRITTEN_OUT = 64
"""Multiplications up to which a product is written out."""

SHORT = 4
"""Terms up to which a sum is written out."""


def emit_product(code: Code, layout: Layout, left: Place, right: Place, result: Place) -> None:
    """``result = left @ right`` over batches of matrices.

    Args:
        code: the function.
        layout: how rows are laid over vectors.
        left: [*batch, m, k].
        right: [*batch, k, n].
        result: [*batch, m, n], in the order of its indices.
    """
    *batch, m, k = left.shape
    n = right.shape[-1]
    if prod(batch) * m * k * n * layout.registers <= WRITTEN_OUT:
        for index in product(*(range(length) for length in batch)):
            _written_out(code, layout, *(_matrix(code, x, index) for x in (left, right, result)))
        return
    with _nested(code, batch) as index:
        a, b, c = (_matrix(code, x, index) for x in (left, right, result))
        if layout.features > 1:
            _of_one_row(code, layout, a, b, c)
        elif n == 1 or (m > 1 and left.rows < right.rows):
            # The same product of transposed matrices: tiles run along the longer axis.
            _of_rows(code, layout, *(_transposed(x) for x in (b, a, c)))
        else:
            _of_rows(code, layout, a, b, c)


class _Matrix:
    """One matrix of a batch; its memory starts at an element that may be known only at run time."""

    def __init__(self, place: Place, start: Index) -> None:
        self.place = place
        self.start = start

    @property
    def shape(self) -> tuple[int, int]:
        return self.place.shape[0], self.place.shape[1]

    @property
    def strides(self) -> tuple[int, int]:
        return self.place.strides[0], self.place.strides[1]

    @property
    def rows(self) -> bool:
        return self.place.rows

    def element(self, code: Code, i: Index, j: Index) -> Index:
        return code.add(self.start, self.place.element(code, (i, j)))

    def load(self, code: Code, layout: Layout, i: Index, j: Index, register: int) -> Value:
        element = self.element(code, i, j)
        if not self.rows:
            return wide(code.load(self.place.pointer, layout.real, element), layout.width)
        at = code.add(code.times(element, layout.registers), register)
        return code.load(self.place.pointer, layout.lane, at)

    def store(
        self, code: Code, layout: Layout, value: Value, i: Index, j: Index, register: int
    ) -> None:
        at = code.add(code.times(self.element(code, i, j), layout.registers), register)
        code.store(value, self.place.pointer, at)


def _matrix(code: Code, place: Place, batch: Sequence[Index]) -> _Matrix:
    n = len(batch)
    start: Index = 0
    for i, stride in zip(batch, place.strides[:n], strict=True):
        start = code.add(start, code.times(i, stride))
    return _Matrix(replace(place, shape=place.shape[n:], strides=place.strides[n:]), start)


def _transposed(matrix: _Matrix) -> _Matrix:
    place = matrix.place
    turned = replace(place, shape=place.shape[::-1], strides=place.strides[::-1])
    return _Matrix(turned, matrix.start)


@contextmanager
def _nested(code: Code, shape: Sequence[int]) -> Iterator[tuple[Index, ...]]:
    """Loops over the indices of an array."""
    if not shape:
        yield ()
    elif shape[0] == 1:
        with _nested(code, shape[1:]) as rest:
            yield (0, *rest)
    else:
        with code.loop(shape[0]) as i, _nested(code, shape[1:]) as rest:
            yield (i, *rest)


def _written_out(
    code: Code, layout: Layout, left: _Matrix, right: _Matrix, result: _Matrix
) -> None:
    (m, k), (_, n) = left.shape, right.shape
    for i, j, register in product(range(m), range(n), range(layout.registers)):
        total: Value | None = None
        for q in range(k):
            x = left.load(code, layout, i, q, register)
            y = right.load(code, layout, q, j, register)
            total = x * y if total is None else fma(x, y, total)
        assert total is not None
        result.store(code, layout, total, i, j, register)


def _of_rows(code: Code, layout: Layout, left: _Matrix, right: _Matrix, result: _Matrix) -> None:
    """Rows in lanes: tiles along the columns of the result."""
    m, n = result.shape
    size = ACCUMULATORS // layout.registers
    # Tiles of one size as far as it goes: the last one is smaller.
    n_tiles = -(-n // size)
    size = -(-n // n_tiles)
    whole = n // size * size
    with _nested(code, (m,)) as (i,):
        if whole > size:
            with code.loop(whole, step=size) as j:
                _tile(code, layout, left, right, result, i, j, size)
        else:
            _tile(code, layout, left, right, result, i, 0, size)
        if whole < n:
            _tile(code, layout, left, right, result, i, whole, n - whole)


def _tile(
    code: Code,
    layout: Layout,
    left: _Matrix,
    right: _Matrix,
    result: _Matrix,
    i: Index,
    j: Index,
    size: int,
) -> None:
    k = left.shape[1]
    registers = range(layout.registers)
    # Few sums would wait for each other: each is then made of several.
    parts = max(1, min(ACCUMULATORS // (2 * size * layout.registers), k // 2))
    sums = [
        [[Variable(code, layout.lane) for _ in registers] for _ in range(size)]
        for _ in range(parts)
    ]

    def terms(q: Index, part: int, *, first: bool) -> None:
        x = [left.load(code, layout, i, q, register) for register in registers]
        for column in range(size):
            shared = None
            for register in registers:
                if shared is None or right.rows:
                    shared = right.load(code, layout, q, code.add(j, column), register)
                total = sums[part][column][register]
                term = x[register] * shared if first else fma(x[register], shared, total.get())
                total.set(term)

    for part in range(parts):
        terms(part, part, first=True)
    whole = k // parts * parts
    if k <= SHORT:
        for q in range(parts, k):
            terms(q, q % parts, first=False)
    else:
        with code.loop(whole, step=parts, start=parts) as q:
            for part in range(parts):
                terms(code.add(q, part), part, first=False)
        for q in range(whole, k):
            terms(q, q % parts, first=False)
    for column in range(size):
        for register in registers:
            total = sums[0][column][register].get()
            for part in range(1, parts):
                total = total + sums[part][column][register].get()
            result.store(code, layout, total, i, code.add(j, column), register)


def _of_one_row(code: Code, layout: Layout, left: _Matrix, right: _Matrix, result: _Matrix) -> None:
    """One row: registers hold neighbours along an axis of the result, or along the one summed."""
    (m, k), n = left.shape, right.shape[1]
    wide_enough = layout.features
    if n == 1:  # else neighbours in a column of the result are no neighbours in memory
        left, right, result = (_transposed(x) for x in (right, left, result))
        m, n = n, m
    if n >= wide_enough and right.strides[1] == 1:
        _along_columns(code, layout, left, right, result)
    elif k >= wide_enough and left.strides[1] == 1 and right.strides[0] == 1:
        _along_sum(code, layout, left, right, result)
    else:
        _of_rows(code, layout, left, right, result)


def _along_columns(
    code: Code, layout: Layout, left: _Matrix, right: _Matrix, result: _Matrix
) -> None:
    (m, k), n = left.shape, right.shape[1]
    features = layout.features
    several = vector_of(layout.real, features)
    n_vectors = n // features
    whole = n_vectors * features

    def tile(i: Index, j: Index, n_registers: int) -> None:
        sums = [Variable(code, several) for _ in range(n_registers)]

        def terms(q: Index, *, first: bool) -> None:
            x = wide(left.load(code, layout, i, q, 0), features)
            row = code.at(right.place.pointer, layout.real, right.element(code, q, j))
            for v, total in enumerate(sums):
                y = code.load(row, several, v)
                total.set(x * y if first else fma(x, y, total.get()))

        terms(0, first=True)
        if k > 1:
            with code.loop(k, start=1) as q:
                terms(q, first=False)
        row = code.at(result.place.pointer, layout.real, result.element(code, i, j))
        for v, total in enumerate(sums):
            code.store(total.get(), row, v)

    with _nested(code, (m,)) as (i,):
        at_once = min(ACCUMULATORS, n_vectors)
        full = n_vectors // at_once
        if full > 1:
            with code.loop(full * at_once * features, step=at_once * features) as j:
                tile(i, j, at_once)
        else:
            tile(i, 0, at_once)
        if full * at_once < n_vectors:
            tile(i, full * at_once * features, n_vectors - full * at_once)
        if whole < n:
            _tile(code, layout, left, right, result, i, whole, n - whole)


def _along_sum(code: Code, layout: Layout, left: _Matrix, right: _Matrix, result: _Matrix) -> None:
    (m, k), n = left.shape, right.shape[1]
    features = layout.features
    several = vector_of(layout.real, features)
    whole = k // features * features

    def load(matrix: _Matrix, i: Index, j: Index) -> Value:
        return code.load(
            code.at(matrix.place.pointer, layout.real, matrix.element(code, i, j)), several
        )

    def tile(i: Index, j: Index, size: int) -> None:
        sums = [Variable(code, several) for _ in range(size)]

        def terms(q: Index, *, first: bool) -> None:
            x = load(left, i, q)
            for column, total in enumerate(sums):
                y = load(right, q, code.add(j, column))
                total.set(x * y if first else fma(x, y, total.get()))

        terms(0, first=True)
        if whole > features:
            with code.loop(whole, step=features, start=features) as q:
                terms(q, first=False)
        for column, total in enumerate(sums):
            number = lane_sum(code, total.get())
            for q in range(whole, k):
                x = left.load(code, layout, i, q, 0)
                y = right.load(code, layout, q, code.add(j, column), 0)
                number = fma(x, y, number)
            result.store(code, layout, number, i, code.add(j, column), 0)

    size = min(8, n)
    with _nested(code, (m,)) as (i,):
        full = n // size
        if full > 1:
            with code.loop(full * size, step=size) as j:
                tile(i, j, size)
        else:
            tile(i, 0, size)
        if full * size < n:
            tile(i, full * size, n - full * size)


def lane_sum(code: Code, value: Value) -> Value:
    """The sum of a vector's lanes, pair by pair."""
    while value.lanes is not None:
        half = value.lanes // 2
        low, high = (_part(code, value, start, half) for start in (0, half))
        value = low + high
    return value


def _part(code: Code, value: Value, start: int, n: int) -> Value:
    if n == 1:
        return value.lane(start)
    mask = ir.Constant(ir.VectorType(ir.IntType(32), n), list(range(start, start + n)))
    nothing = ir.Constant(value.type, ir.Undefined)
    return code.value(code.builder.shuffle_vector(value.value, nothing, mask))
