"""What is traced is what the field computes; what cannot be traced says why, and where."""

from typing import Any

import pytest
import torch
from fields import FIELDS, REFUSED, Case
from torch.utils import _pytree as pytree

from odeum.compile.interpret import interpret
from odeum.compile.trace import Traced, trace
from odeum.eager.field import PerRow, RowField
from odeum.errors import TraceError
from odeum.tree import structure_of


# Torch's own forward-mode derivatives are still written in TorchScript.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script")


def row_field(case: Case) -> RowField:
    return RowField(case.field, structure_of(case.y0), case.args, joint=False)


def rows_of(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    y = structure_of(case.y0).flatten(case.y0)
    y = y.reshape(-1, y.shape[-1])
    return y, torch.linspace(0.2, 1.0, len(y), dtype=y.dtype).reshape(-1, 1)


def traced(case: Case) -> tuple[Traced, RowField, torch.Tensor, torch.Tensor]:
    y, t = rows_of(case)
    field = row_field(case)
    return trace(field, y, t), field, y, t


def inputs_of(t: Traced, field: RowField, y: Any, time: Any) -> dict[str, torch.Tensor]:
    values = t.values(field)
    assert values is not None
    if t.prologue is not None:
        values |= interpret(t.prologue, values, rows=False)
    return {"time": time[:, 0], "state": y, **values}


@pytest.mark.parametrize("name", FIELDS)
def test_graph_is_the_field(name):
    case = FIELDS[name]()
    found, field, y, t = traced(case)
    y = y + 0.05 * torch.cos(torch.arange(y.numel())).reshape(y.shape)
    for graph in (found.graph, found.differentiable):
        given = interpret(graph, inputs_of(found, field, y, t))["f"]
        torch.testing.assert_close(given, field(t, y), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    build, words = REFUSED[name]
    with pytest.raises(TraceError, match=words) as raised:
        traced(build())
    assert raised.value.operation
    assert "\n" not in str(raised.value)
