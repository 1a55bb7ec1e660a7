"""A field held against its graph: on several rows at once, and in its derivatives.

This is where a field that mixes rows is caught, and one whose derivative is not that of the
operations it executes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from odeum.compile.interpret import interpret
from odeum.compile.ir import Graph
from odeum.compile.sources import source_of
from odeum.eager.field import PerRow, RowField
from odeum.errors import TraceError
from odeum.types import Tensor

N_ROWS = 3


def check(
    graph: Graph, field: RowField, y: Tensor, t: Tensor, values: Mapping[str, Tensor]
) -> None:
    """Compares a field with its graph on a few rows near those given.

    Args:
        graph: of the field.
        field: the user's.
        y: states, [rows, dim]; where there is one row only, rows are compared one by one.
        t: their times, [rows, 1].
        values: of shared and row inputs by name, row tensors whole.

    Raises:
        TraceError: where they disagree.
    """
    rows = torch.arange(N_ROWS) % len(y)
    y, t = _perturbed(y.detach()[rows]), _perturbed(t.detach().to(y.dtype)[rows])
    shared = {name: _leaf(values[name]) for name in _names(graph, "shared")}
    own = {name: _leaf(values[name][rows]) for name in _names(graph, "row")}
    with torch.enable_grad():
        parts = [slice(i, i + 1) for i in range(N_ROWS)] if int(rows.max()) == 0 else [slice(None)]
        y, t = y.requires_grad_(), t.requires_grad_()
        f = torch.cat([_called(field, t[i], y[i], rows[i]) for i in parts])
        inputs = {"time": t[:, 0], "state": y, **shared, **own}
        expected = interpret(graph, inputs)["f"]
    _compare(
        f.detach(),
        expected.detach(),
        "rows are not independent: the field gives another derivative for one row alone than for "
        "the same row among others",
        "mixing rows",
    )


def _names(graph: Graph, role: str) -> list[str]:
    used = {node for node in graph.nodes() if node.op == "input"}
    return [node.name for node in graph.of_role(role) if node in used]


def _leaf(x: Tensor) -> Tensor:
    return x.detach()


def _perturbed(x: Tensor) -> Tensor:
    """Values near others, all different."""
    wave = torch.sin(torch.arange(1, x.numel() + 1, dtype=x.dtype)).reshape(x.shape)
    return x * (1 + wave / 8) + wave / 16


def _called(field: RowField, t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
    def some(leaf: Any) -> Any:
        return PerRow(leaf.tensor.detach()[rows]) if isinstance(leaf, PerRow) else leaf

    some_rows = RowField(
        field.field,
        field.structure,
        pytree.tree_map(some, field.args),
        joint=field.joint,
        integrals=field.integrals,
    )
    try:
        return some_rows(t, y)
    except Exception as error:
        raise TraceError(
            f"the field takes one row and fails on {len(y)}: {error}",
            operation=type(error).__name__,
            source=source_of(error),
        ) from error


def _compare(given: Tensor, expected: Tensor, message: str, operation: str) -> None:
    """Whether two values agree but for rounding."""
    tolerance = 1e-3 if given.dtype is torch.float32 else 1e-7
    finite = expected[expected.isfinite()]
    scale = float(finite.abs().max()) if len(finite) else 1.0
    alike = torch.isclose(
        given, expected, rtol=tolerance, atol=tolerance * max(scale, 1e-30), equal_nan=True
    )
    if not alike.all():
        raise TraceError(message, operation=operation)
