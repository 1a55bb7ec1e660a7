"""Sums of outer products over rows and stages against torch's."""

import pytest
import torch
from native import LAYOUTS, Natives, dtype_of, packed

from odeum.compile.emit.outer import OuterProducts, emit_outer
from odeum.compile.emit.values import DOUBLE

MOST = 5

SHAPES = [(1, 1), (1, 20), (20, 1), (3, 2), (4, 4), (5, 7), (13, 9), (2, 37)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sums(layout):
    layout = LAYOUTS[layout]
    natives, runs = Natives(), []
    for m, n in SHAPES:
        stride = (m + n + 3) * layout.registers

        for stages in (1, MOST):

            def write(code, *pointers, n_stages=stages, stride=stride, size=(m, n)):
                left, right, total = pointers
                products = OuterProducts(left, right, stride, *size, MOST)
                emit_outer(code, layout, products, code.integer(n_stages), total)

            runs.append((natives.add(write, 3), stages, m, n))
    for call, stages, m, n in runs:
        left, right = (
            torch.rand(layout.n_rows, stages, length, dtype=torch.float64) - 0.5
            for length in (m, n)
        )
        memory = torch.full((layout.n_rows, stages, m + n + 3), 99.0, dtype=torch.float64)
        memory[:, :, :m], memory[:, :, m + 1 : m + 1 + n] = left, right
        block = packed(memory, layout)
        before = torch.rand(m, n, dtype=torch.float64)
        total = torch.cat([before.reshape(-1), torch.full((64,), 555.0, dtype=torch.float64)])
        total = total.to(dtype_of(layout))
        call(block, block[(m + 1) * layout.n_rows :], total)
        expected = before + torch.einsum("bsi,bsj->ij", left, right)
        bound = 1e-13 if layout.real == DOUBLE else 1e-5
        given = total[: m * n].view(m, n).double()
        torch.testing.assert_close(given, expected, rtol=bound, atol=bound)
        assert (total[m * n :] == 555.0).all()
