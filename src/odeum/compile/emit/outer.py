"""Sums of outer products over rows and stages: the gradients of weight matrices.

The rows of a batch lie in lanes, which a sum over rows must cross. So one factor is transposed
first: then lanes hold neighbours in a row of the matrix, and the sum runs through memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llvmlite import ir

from odeum.compile.emit.code import Code, Index, Variable, bytes_of, vector_of, wide
from odeum.compile.emit.places import Layout
from odeum.compile.emit.values import Value, fma, splat

BLOCK_BYTES = 16
"""Lanes within this many bytes of each other are exchanged at no extra cost."""

TILE_ROWS, TILE_REGISTERS = 4, 3
"""A tile of the matrix: its rows, and the registers of columns in each."""


@dataclass(frozen=True)
class OuterProducts:
    """``sum_stages left right^T``.

    Attributes:
        left: [stages, rows of the gradient], each stage ``stride`` registers after the last.
        right: [stages, columns of the gradient], likewise.
        stride: registers from one stage to the next.
        n_rows: of the gradient.
        n_columns: of the gradient.
        most: the most stages there can be.
    """

    left: ir.Value
    right: ir.Value
    stride: int
    n_rows: int
    n_columns: int
    most: int


def emit_outer(
    code: Code, layout: Layout, products: OuterProducts, n_stages: Index, total: ir.Value
) -> None:
    """Adds the sum of outer products, over stages and rows of the batch, to a matrix.

    Args:
        code: the function.
        layout: how rows are laid over vectors.
        products: what is multiplied.
        n_stages: how many stages there are, at least one.
        total: the matrix, in the order of its indices.
    """
    if layout.width == 1:
        _of_one_row(code, layout, products, n_stages, total)
        return
    whole = products.n_columns // layout.width * layout.width
    if whole:
        turned = _turned(code, layout, products, n_stages, whole)
        _across_rows(code, layout, products, n_stages, turned, whole, total)
    if whole < products.n_columns:
        _lane_by_lane(code, layout, products, n_stages, total, whole)


# Columns in lanes


def _turned(
    code: Code, layout: Layout, products: OuterProducts, n_stages: Index, n_columns: int
) -> ir.Value:
    """The right factor with columns in lanes: [stages, rows of the batch, columns]."""
    width, n = layout.width, layout.registers
    room = code.room(layout.real, products.most * layout.n_rows * n_columns)
    with code.loop(n_stages) as stage, code.loop(n_columns, step=width) as column:
        for register in range(n):
            start = code.add(
                code.times(stage, products.stride), code.add(code.times(column, n), register)
            )
            lines = [
                code.load(products.right, layout.lane, code.add(start, i * n)) for i in range(width)
            ]
            first = code.add(code.times(stage, layout.n_rows), register * width)
            for i, line in enumerate(_transposed(code, lines)):
                at = code.add(code.times(code.add(first, i), n_columns), column)
                code.store(line, code.at(room, layout.real, at))
    return room


def _transposed(code: Code, lines: Sequence[Value]) -> list[Value]:
    """A square of numbers, its lines become its columns."""
    n = len(lines)
    rest, distance = list(lines), 1
    while distance < n:
        low = [i + offset for i in range(0, n, 2 * distance) for offset in range(distance)]
        # Of each pair of lines, the even pieces of both, then the odd ones.
        masks = [
            [k + odd * distance + (k // distance % 2) * (n - distance) for k in range(n)]
            for odd in (0, 1)
        ]
        for i in low:
            a, b = rest[i], rest[i + distance]
            rest[i] = _shuffled(code, a, b, masks[0])
            rest[i + distance] = _shuffled(code, a, b, masks[1])
        distance *= 2
    return rest


def _across_rows(
    code: Code,
    layout: Layout,
    products: OuterProducts,
    n_stages: Index,
    turned: ir.Value,
    n_columns: int,
    total: ir.Value,
) -> None:
    """Adds the columns that fill whole registers."""
    n_vectors = n_columns // layout.width
    bands = _bands(products.n_rows, TILE_ROWS)
    for first, last, n_rows in bands:
        with code.loop(last, step=n_rows, start=first) as row:
            for begin, end, n_registers in _bands(n_vectors, TILE_REGISTERS):
                with code.loop(end, step=n_registers, start=begin) as vector:
                    size = (n_rows, n_registers)
                    at = (row, code.times(vector, layout.width))
                    _tile(code, layout, products, n_stages, turned, n_columns, total, at, size)


def _bands(n: int, size: int) -> list[tuple[int, int, int]]:
    """``(first, last, size)`` of runs of tiles of one size."""
    whole = n // size * size
    bands = [(0, whole, size)] if whole else []
    return bands + ([(whole, n, n - whole)] if whole < n else [])


def _tile(
    code: Code,
    layout: Layout,
    products: OuterProducts,
    n_stages: Index,
    turned: ir.Value,
    n_columns: int,
    total: ir.Value,
    at: tuple[Index, Index],
    size: tuple[int, int],
) -> None:
    (row, column), (n_rows, n_registers) = at, size
    width, n, lane = layout.width, layout.registers, layout.lane
    places = [
        code.at(
            total,
            layout.real,
            code.add(code.times(code.add(row, i), products.n_columns), column),
        )
        for i in range(n_rows)
    ]
    sums = [[Variable(code, lane) for _ in range(n_registers)] for _ in range(n_rows)]
    for line, place in zip(sums, places, strict=True):
        for v, s in enumerate(line):
            s.set(code.load(place, lane, v))
    with code.loop(n_stages) as stage:
        now = [[s.get() for s in line] for line in sums]
        for register in range(n):
            start = code.add(
                code.times(stage, products.stride), code.add(code.times(row, n), register)
            )
            numbers = code.at(products.left, lane, start)
            first = code.add(code.times(stage, layout.n_rows), register * width)
            line = code.at(turned, layout.real, code.add(code.times(first, n_columns), column))
            for i in range(width):
                xs = [
                    code.load(code.at(line, layout.real, i * n_columns + v * width), lane)
                    for v in range(n_registers)
                ]
                for k in range(n_rows):
                    number = splat(code.load(numbers, layout.real, k * n * width + i), width)
                    now[k] = [fma(number, x, s) for x, s in zip(xs, now[k], strict=True)]
        for sum_line, values in zip(sums, now, strict=True):
            for s, value in zip(sum_line, values, strict=True):
                s.set(value)
    for sum_line, place in zip(sums, places, strict=True):
        for v, s in enumerate(sum_line):
            code.store(s.get(), place, v)


# Rows of the batch in lanes


def _lane_by_lane(
    code: Code,
    layout: Layout,
    products: OuterProducts,
    n_stages: Index,
    total: ir.Value,
    first_column: int,
) -> None:
    """Adds the columns that are too few for a register."""
    n_columns = products.n_columns - first_column
    columns = min(n_columns, max(layout.width // 2, 1))
    rows = min(products.n_rows, max(layout.width // columns, 1))
    for first, last, n_rows in _bands(products.n_rows, rows):
        with code.loop(last, step=n_rows, start=first) as row:
            for begin, end, n in _bands(n_columns, columns):
                for column in range(first_column + begin, first_column + end, n):
                    _lane_tile(code, layout, products, n_stages, total, row, column, (n_rows, n))


def _lane_tile(
    code: Code,
    layout: Layout,
    products: OuterProducts,
    n_stages: Index,
    total: ir.Value,
    row: Index,
    column: int,
    size: tuple[int, int],
) -> None:
    lane, n = layout.lane, layout.registers
    n_rows, n_columns = size
    sums = [[Variable(code, lane) for _ in range(n_columns)] for _ in range(n_rows)]
    zero = code.value(ir.Constant(lane, None))
    for line in sums:
        for s in line:
            s.set(zero)

    def factors(side: ir.Value, first: Index, count: int, start: Index) -> Iterator[Value]:
        for i in range(count):
            yield code.load(side, lane, code.add(start, code.times(code.add(first, i), n)))

    with code.loop(n_stages) as stage:
        now = [[s.get() for s in line] for line in sums]
        for register in range(n):
            start = code.add(code.times(stage, products.stride), register)
            left = list(factors(products.left, row, n_rows, start))
            right = list(factors(products.right, column, n_columns, start))
            now = [
                [fma(x, y, s) for y, s in zip(right, line, strict=True)]
                for x, line in zip(left, now, strict=True)
            ]
        for sum_line, values in zip(sums, now, strict=True):
            for s, value in zip(sum_line, values, strict=True):
                s.set(value)
    numbers = lane_sums(code, [s.get() for line in sums for s in line])
    for i in range(n_rows):
        at = code.add(code.times(code.add(row, i), products.n_columns), column)
        place = code.at(total, layout.real, at)
        part = _consecutive(code, numbers, i * n_columns, n_columns)
        code.store(code.load(place, part.type) + part, place)


def lane_sums(code: Code, values: Sequence[Value]) -> Value:
    """The sum over the lanes of each of several vectors, as one vector; at most one a lane."""
    width = values[0].lanes
    assert width is not None
    rest = [*values, *[values[-1]] * (width - len(values))]
    block = min(max(BLOCK_BYTES // bytes_of(values[0].element), 1), width)
    run = 1
    while len(rest) > 1:
        # Neighbours within blocks are added first, then neighbouring blocks.
        inside = run < block
        even, odd = (
            _pairs(width, block if inside else width, 1 if inside else block, odd) for odd in (0, 1)
        )
        rest = [
            _shuffled(code, a, b, even) + _shuffled(code, a, b, odd)
            for a, b in zip(rest[::2], rest[1::2], strict=True)
        ]
        run *= 2
    return rest[0]


def _pairs(width: int, block: int, size: int, odd: int) -> list[int]:
    """In each block, the even or odd pieces of the first vector, then those of the second."""
    mask = []
    for start in range(0, width, block):
        for vector in (0, width):
            for piece in range(odd * size, block, 2 * size):
                mask += [vector + start + piece + i for i in range(size)]
    return mask


def _shuffled(code: Code, a: Value, b: Value, mask: Sequence[int]) -> Value:
    kind = ir.VectorType(ir.IntType(32), len(mask))
    return code.value(code.builder.shuffle_vector(a.value, b.value, ir.Constant(kind, list(mask))))


def _consecutive(code: Code, value: Value, start: int, n: int) -> Value:
    """Some neighbouring lanes."""
    if n == 1:
        return value.lane(start)
    return _shuffled(code, value, value, range(start, start + n))


# One row


def _of_one_row(
    code: Code, layout: Layout, products: OuterProducts, n_stages: Index, total: ir.Value
) -> None:
    features = layout.features
    several = vector_of(layout.real, features)
    whole = products.n_columns // features * features

    def band(row: Index, column: Index, kinds: Sequence[ir.Type]) -> None:
        """Adds to neighbours in a row of the matrix, which stay in registers over the stages."""
        at = code.add(code.times(row, products.n_columns), column)
        place = code.at(total, layout.real, at)
        sums, offset = [], 0
        for kind in kinds:
            s = Variable(code, kind)
            where = code.at(place, layout.real, offset)
            s.set(code.load(where, kind))
            sums.append((s, where, offset))
            offset += kind.count if isinstance(kind, ir.VectorType) else 1
        with code.loop(n_stages) as stage:
            start = code.times(stage, products.stride)
            x = code.load(products.left, layout.real, code.add(start, row))
            first = code.add(start, column)
            for (s, _, shift), kind in zip(sums, kinds, strict=True):
                y = code.load(code.at(products.right, layout.real, code.add(first, shift)), kind)
                s.set(fma(wide(x, y.lanes or 1), y, s.get()))
        for s, where, _ in sums:
            code.store(s.get(), where)

    with code.loop(products.n_rows) as row:
        at_once = min(8, whole // features)
        for begin, end, n in _bands(whole // features, max(at_once, 1)):
            with code.loop(end * features, step=n * features, start=begin * features) as column:
                band(row, column, [several] * n)
        if whole < products.n_columns:
            band(row, whole, [layout.real] * (products.n_columns - whole))
