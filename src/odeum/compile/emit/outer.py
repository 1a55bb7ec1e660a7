"""Sums of outer products over rows and stages: the gradients of weight matrices.

A step's products are summed in registers over all its stages before they are added to the
gradient, lane by lane, and only then across the lanes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llvmlite import ir

from odeum.compile.emit.code import Code, Index, Variable, bytes_of, vector_of, wide
from odeum.compile.emit.places import Layout
from odeum.compile.emit.values import Value, fma

BLOCK_BYTES = 16
"""Lanes within this many bytes of each other are exchanged at no extra cost."""


@dataclass(frozen=True)
class OuterProducts:
    """``sum_stages left right^T``.

    Attributes:
        left: [stages, rows of the gradient], each stage ``stride`` registers after the last.
        right: [stages, columns of the gradient], likewise.
        stride: registers from one stage to the next.
        n_rows: of the gradient.
        n_columns: of the gradient.
    """

    left: ir.Value
    right: ir.Value
    stride: int
    n_rows: int
    n_columns: int


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
    if layout.features > 1:
        _of_one_row(code, layout, products, n_stages, total)
        return
    width = layout.width
    columns = min(products.n_columns, max(width // 2, 1))
    rows = min(products.n_rows, max(width // columns, 1))
    for row, column, (i, j) in _tiles(code, products, rows, columns):
        _tile(code, layout, products, n_stages, total, row, column, i, j)


def _tiles(
    code: Code, products: OuterProducts, rows: int, columns: int
) -> Iterator[tuple[Index, Index, tuple[int, int]]]:
    """Tiles of a matrix: where each starts, and its size."""
    n_rows, n_columns = products.n_rows, products.n_columns
    whole_rows, whole_columns = n_rows // rows * rows, n_columns // columns * columns
    bands: list[tuple[int, int, int]] = [(0, whole_rows, rows)]
    if whole_rows < n_rows:
        bands.append((whole_rows, n_rows, n_rows - whole_rows))
    for first, last, i in bands:
        with code.loop(last, step=i, start=first) as row:
            with code.loop(whole_columns, step=columns) as column:
                yield row, column, (i, columns)
            if whole_columns < n_columns:
                yield row, whole_columns, (i, n_columns - whole_columns)


def _tile(
    code: Code,
    layout: Layout,
    products: OuterProducts,
    n_stages: Index,
    total: ir.Value,
    row: Index,
    column: Index,
    n_rows: int,
    n_columns: int,
) -> None:
    lane, n = layout.lane, layout.registers
    sums = [[Variable(code, lane) for _ in range(n_columns)] for _ in range(n_rows)]
    zero = code.value(ir.Constant(lane, None))
    for line in sums:
        for s in line:
            s.set(zero)
    with code.loop(n_stages) as stage:
        start = code.times(stage, products.stride)
        for register in range(n):
            left, right = (
                [
                    code.load(
                        side,
                        lane,
                        code.add(start, code.add(code.times(code.add(first, i), n), register)),
                    )
                    for i in range(count)
                ]
                for side, first, count in (
                    (products.left, row, n_rows),
                    (products.right, column, n_columns),
                )
            )
            for i, x in enumerate(left):
                for j, y in enumerate(right):
                    sums[i][j].set(fma(x, y, sums[i][j].get()))
    numbers = lane_sums(code, [s.get() for line in sums for s in line])
    for i in range(n_rows):
        at = code.add(code.times(code.add(row, i), products.n_columns), column)
        place = code.at(total, layout.real, at)
        part = _consecutive(code, numbers, i * n_columns, n_columns)
        code.store(code.load(place, part.type) + part, place)


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
        if at_once:
            full = whole // (features * at_once) * (features * at_once)
            with code.loop(full, step=features * at_once) as column:
                band(row, column, [several] * at_once)
            if full < whole:
                band(row, full, [several] * ((whole - full) // features))
        if whole < products.n_columns:
            band(row, whole, [layout.real] * (products.n_columns - whole))


def lane_sums(code: Code, values: Sequence[Value]) -> Value:
    """The sum over the lanes of each of several vectors, as one vector; at most one a lane."""
    width = values[0].lanes
    if width is None:
        return values[0]
    rest = [*values, *[values[-1]] * (width - len(values))]
    block = max(BLOCK_BYTES // bytes_of(values[0].element), 1)
    block = min(block, width)
    run = 1
    while len(rest) > 1:
        # Neighbours within blocks are added first, then neighbouring blocks.
        inside = run < block
        masks = [
            _pairs(width, block if inside else width, 1 if inside else block, odd) for odd in (0, 1)
        ]
        rest = [
            _shuffled(code, a, b, masks[0]) + _shuffled(code, a, b, masks[1])
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
    if value.lanes is None:
        return value
    if n == 1:
        return value.lane(start)
    return _shuffled(code, value, value, range(start, start + n))
