"""Small linear systems against torch's, pivoted row by row."""

import pytest
import torch
from native import LAYOUTS, Natives, dtype_of, packed, unpacked

from odeum.compile.emit.places import Place
from odeum.compile.emit.solves import emit_solve
from odeum.compile.emit.values import DOUBLE

SIZES = [((), 1, 1), ((), 2, 3), ((), 3, 1), ((2,), 4, 2), ((), 6, 1)]


def matrices(layout, batch, n):
    """Ones that need other pivots in each row: the natural ones are zero or tiny."""
    generator = torch.Generator().manual_seed(n)
    shape = (layout.n_rows, *batch, n, n)
    a = torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5
    a += 3 * torch.eye(n)
    for row in range(layout.n_rows):
        a[row] = a[row][..., torch.randperm(n, generator=generator), :]
    a[0].diagonal(dim1=-2, dim2=-1)[:] += 1e-14
    return a


def emitted(natives, layout, batch, n, m):
    def write(code, left, right, result):
        places = [
            Place.contiguous(pointer, (*batch, n, k))
            for pointer, k in ((left, n), (right, m), (result, m))
        ]
        emit_solve(code, layout, *places)

    return natives.add(write, 3)


@pytest.mark.parametrize("layout", ["rows", "two registers of rows", "features"])
def test_solves(layout):
    layout = LAYOUTS[layout]
    natives = Natives()
    calls = [emitted(natives, layout, *size) for size in SIZES]
    for call, (batch, n, m) in zip(calls, SIZES, strict=True):
        a = matrices(layout, batch, n)
        b = torch.rand(layout.n_rows, *batch, n, m, dtype=torch.float64)
        result = packed(torch.zeros_like(b), layout)
        call(packed(a, layout), packed(b, layout), result)
        x = unpacked(result, (*batch, n, m), layout)
        torch.testing.assert_close(x, torch.linalg.solve(a, b), rtol=1e-11, atol=1e-12)


def test_single_precision_and_tiny_pivots():
    """Without exchanging equations nothing would be left of single precision."""
    layout = LAYOUTS["rows in single precision"]
    natives = Natives()
    call = emitted(natives, layout, (), 2, 1)
    a = torch.tensor([[1e-9, 1.0], [1.0, 1.0]]).expand(layout.n_rows, 2, 2)
    b = torch.tensor([[1.0], [2.0]]).expand(layout.n_rows, 2, 1)
    result = torch.zeros(2 * layout.n_rows + 64, dtype=dtype_of(layout))
    call(packed(a, layout), packed(b, layout), result)
    x = unpacked(result, (2, 1), layout)
    assert layout.real != DOUBLE
    torch.testing.assert_close(x, torch.ones_like(x), rtol=1e-6, atol=1e-6)


def test_a_singular_row_spoils_no_other():
    layout = LAYOUTS["rows"]
    natives = Natives()
    call = emitted(natives, layout, (), 3, 1)
    a = matrices(layout, (), 3)
    a[1] = 0.0
    b = torch.rand(layout.n_rows, 3, 1, dtype=torch.float64)
    result = packed(torch.zeros_like(b), layout)
    call(packed(a, layout), packed(b, layout), result)
    x = unpacked(result, (3, 1), layout)
    others = [row for row in range(layout.n_rows) if row != 1]
    assert not x[1].isfinite().any()
    torch.testing.assert_close(x[others], torch.linalg.solve(a[others], b[others]))
