import pytest
import torch
from fields import Case, states
from llvmlite import ir
from tracing import traced

from odeum.compile.layouts import chosen


def graph_of(width):
    net = torch.nn.Sequential(torch.nn.Linear(6, width), torch.nn.Tanh(), torch.nn.Linear(width, 6))
    return traced(Case(lambda t, y: net(y), states(4, 6)))[0].graph


@pytest.mark.parametrize("n_rows", [1, 7, 20, 40])
def test_threads_that_are_not_worth_it_do_not_shape_the_layout(n_rows):
    """A layout for two threads would keep both registers of one thread half empty."""
    small = graph_of(4)
    alone = chosen(small, ir.DoubleType(), 8, n_rows, 1)
    assert chosen(small, ir.DoubleType(), 8, n_rows, 2) == alone


def test_large_fields_share_the_rows():
    assert chosen(graph_of(256), ir.DoubleType(), 8, 40, 2).n_threads == 2
    assert chosen(graph_of(256), ir.DoubleType(), 8, 1, 2).n_threads == 1
