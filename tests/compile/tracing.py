"""What tests of graphs do with fields and derivatives."""

import torch
from fields import Case

from odeum.compile.derivative import Derivative
from odeum.compile.interpret import interpret
from odeum.compile.trace import Traced, trace
from odeum.eager.field import RowField
from odeum.tree import structure_of


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


def inputs_of(
    t: Traced, field: RowField, y: torch.Tensor, time: torch.Tensor
) -> dict[str, torch.Tensor]:
    values = t.values(field)
    assert values is not None
    if t.prologue is not None:
        values |= interpret(t.prologue, values, rows=False)
    return {"time": time[:, 0], "state": y, **values}


def pulled_back(
    derivative: Derivative, inputs: dict[str, torch.Tensor], cotangent: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The field and the products, summed over rows where the input is shared."""
    recorded = interpret(derivative.recording, inputs)
    f = recorded.pop("f")
    found = interpret(derivative.backward, {**inputs, **recorded, "cotangent": cotangent})
    roles = {node.name: node.role for node in derivative.recording.inputs}
    return f, {name: x.sum(0) if roles[name] == "shared" else x for name, x in found.items()}
