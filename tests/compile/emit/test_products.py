"""Products of matrices against torch's: every shape, layout, way of lying in memory."""

from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from native import LAYOUTS, Natives, dtype_of, packed, unpacked

from odeum.compile.emit.code import Code
from odeum.compile.emit.places import Layout, Place, row_major
from odeum.compile.emit.products import emit_product
from odeum.compile.emit.values import DOUBLE

SIZES = (1, 2, 3, 4, 5, 8, 13, 20)

# Who has its own matrix: the rows, or all together.
OWNERS = {"shared @ row": (False, True), "row @ shared": (True, False), "row @ row": (True, True)}


SHAPES = [
    # Where tiles, whole vectors and what is left of them begin and end; vectors as matrices.
    *[(1, 9, 1), (1, 20, 13), (20, 13, 1), (13, 1, 13), (5, 9, 4), (8, 3, 24), (3, 17, 25)],
]


def viewed(x: torch.Tensor, how: str, *, rows: bool) -> tuple[torch.Tensor, tuple[int, ...], int]:
    """Memory in which a matrix lies in some way, its strides there, and where it starts.

    Args:
        x: [rows of the layout, *batch, m, n] or [*batch, m, n].
        how: "contiguous", "transposed", "in a larger one" or "every other column".
        rows: whether it is the former.
    """
    shape = tuple(x.shape[1:]) if rows else tuple(x.shape)
    if how == "contiguous":
        return x, row_major(shape), 0
    if how == "transposed":
        turned = x.transpose(-1, -2).contiguous()
        own = row_major((*shape[:-2], shape[-1], shape[-2]))
        return turned, (*own[:-2], own[-1], own[-2]), 0
    left, step = (3, 1) if how == "in a larger one" else (1, 2)
    larger = (*shape[:-2], shape[-2] + 2, step * shape[-1] + left + 2)
    memory = x.new_full((*x.shape[: int(rows)], *larger), 99.0)
    stop = left + step * shape[-1]
    memory[..., 1 : 1 + shape[-2], left:stop:step] = x
    own = row_major(larger)
    return memory, (*own[:-1], step), own[-2] + left


def check(
    layout: Layout, cases: Iterator[tuple[tuple[int, ...], tuple[int, int, int], str, str, str]]
) -> None:
    natives = Natives()
    runs = []
    generator = torch.Generator().manual_seed(3)
    for batch, (m, k, n), owner, how_left, how_right in cases:
        operands, places = [], []
        for rows, shape, how in zip(
            OWNERS[owner], ((m, k), (k, n)), (how_left, how_right), strict=True
        ):
            lead = (layout.n_rows,) if rows else ()
            x = torch.rand((*lead, *batch, *shape), generator=generator, dtype=torch.float64) - 0.5
            memory, strides, offset = viewed(x, how, rows=rows)
            operands.append(x)
            places.append((packed(memory, layout, rows=rows), strides, offset, rows))

        def write(
            code: Code,
            left: Any,
            right: Any,
            result: Any,
            places: Any = places,
            batch: Any = batch,
            size: Any = (m, k, n),
        ) -> None:
            m, k, n = size
            (_, *a), (_, *b) = places
            emit_product(
                code,
                layout,
                Place(left, (*batch, m, k), *a),
                Place(right, (*batch, k, n), *b),
                Place.contiguous(result, (*batch, m, n)),
            )

        runs.append((natives.add(write, 3), operands, places, (*batch, m, n), owner))
    for call, (left, right), places, shape, owner in runs:
        size = torch.Size(shape).numel() * layout.n_rows
        result = torch.full((size + 64,), 555.0, dtype=dtype_of(layout))
        call(places[0][0], places[1][0], result)
        expected = (left @ right).expand(layout.n_rows, *shape)
        bound = 1e-14 if layout.real == DOUBLE else 2e-6
        torch.testing.assert_close(
            unpacked(result, shape, layout).double(),
            expected,
            rtol=bound,
            atol=bound,
            msg=lambda m, o=owner, s=(left.shape, right.shape): f"{o} {s}: {m}",
        )
        assert (result[size:] == 555.0).all()  # nothing is written beyond it


@pytest.mark.sweep(2)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("owner", OWNERS)
def test_sizes(layout, owner):
    # A weight is read as it is by a field, transposed by what pulls it back.
    ways = ["contiguous", "transposed"]
    check(
        LAYOUTS[layout],
        (((), shape, owner, *ways_of(ways, i)) for i, shape in enumerate(SHAPES)),
    )


def ways_of(ways: list[str], i: int) -> tuple[str, str]:
    return ways[i % len(ways)], ways[i // len(ways) % len(ways)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_places(layout):
    ways = ["contiguous", "transposed", "in a larger one", "every other column"]
    check(
        LAYOUTS[layout],
        (
            ((), (5, 9, 6), owner, left, right)
            for owner in OWNERS
            for left, right in [*zip(ways, ways, strict=True), *pairwise([*ways, ways[0]])]
        ),
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batches(layout):
    shapes = [(3, 3, 3), (7, 2, 1), (5, 8, 4)]
    check(
        LAYOUTS[layout],
        (
            (batch, shape, owner, "contiguous", "transposed")
            for owner in OWNERS
            for batch in ((3,), (2, 2))
            for shape in shapes
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("owner", OWNERS)
def test_all_sizes(layout, owner):
    ways = ["contiguous", "transposed", "in a larger one"]
    sizes = list(product(SIZES, SIZES, SIZES))
    for start in range(0, len(sizes), 64):
        part = sizes[start : start + 64]
        check(
            LAYOUTS[layout],
            (((), shape, owner, *ways_of(ways, i)) for i, shape in enumerate(part)),
        )
