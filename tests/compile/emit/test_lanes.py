"""What lanes read, write and choose, each on its own."""

import pytest
import torch
from native import Natives

from odeum.compile.emit.code import I64, vector_of
from odeum.compile.emit.lanes import gather, lane_numbers, lane_where, scatter
from odeum.compile.emit.products import lane_sum
from odeum.compile.emit.values import DOUBLE, FLOAT

widths = pytest.mark.parametrize("width", [1, 2, 4, 8])


@widths
def test_gather_and_scatter(width):
    natives = Natives()

    def write(code, source, index, mask, target, added):
        at = code.load(index, vector_of(I64, width))
        chosen = code.load(mask, vector_of(I64, width)) != 0
        value = gather(code, source, DOUBLE, at)
        scatter(code, value, target, at, chosen)
        scatter(code, value * 2.0, added, at * 0, chosen, add=True)

    call = natives.add(write, 5)
    source = torch.arange(20.0, dtype=torch.float64) ** 2
    index = torch.randperm(20)[:width]
    mask = torch.arange(width) % 3 != 1
    target, added = torch.full((20,), -1.0).double(), torch.tensor([0.5, -1.0]).double()
    call(source, index, mask.long(), target, added)
    expected = torch.full((20,), -1.0).double()
    expected[index[mask]] = source[index[mask]]
    assert torch.equal(target, expected)
    # All lanes add to one number: none is lost.
    assert added.tolist() == [0.5 + 2 * float(source[index[mask]].sum()), -1.0]


@widths
@pytest.mark.parametrize("element", [FLOAT, DOUBLE], ids=["float", "double"])
def test_choosing_a_lane(width, element):
    natives = Natives()
    dtype = torch.float32 if element == FLOAT else torch.float64

    def write(code, values, mask, found, total, numbers):
        x = code.load(values, vector_of(element, width))
        holds = code.load(mask, vector_of(I64, width)) != 0
        otherwise = code.load(values, element, width)
        code.store(lane_where(code, holds, x, otherwise), found)
        code.store(lane_sum(code, x), total)
        code.store(lane_numbers(code, width), numbers)

    call = natives.add(write, 5)
    values = torch.arange(3.0, 4.0 + width, dtype=dtype)
    for first in range(width + 1):
        mask = torch.zeros(width, dtype=torch.int64)
        mask[first:] = torch.arange(width - first) % 2 == 0
        found, total = torch.zeros(1, dtype=dtype), torch.zeros(1, dtype=dtype)
        numbers = torch.zeros(width, dtype=torch.int64)
        call(values, mask, found, total, numbers)
        assert found.item() == values[first]
        assert total.item() == values[:width].sum()
        assert numbers.tolist() == list(range(width))
