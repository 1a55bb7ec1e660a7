"""A field held against its graph: on several rows at once, and in its derivatives.

This is where a field that mixes rows is caught, and one whose derivative is not that of the
operations it executes.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from odeum.compile.interpret import interpret, weighted
from odeum.compile.ir import Graph
from odeum.compile.sources import first_line, source_of
from odeum.eager.field import PerRow, RowField
from odeum.errors import TraceError
from odeum.types import Tensor

N_ROWS = 3


def check(
    graph: Graph,
    field: RowField,
    y: Tensor,
    t: Tensor,
    values: Mapping[str, Tensor],
    *,
    alone: bool,
) -> None:
    """Compares a field with its graph on a few rows near those given.

    Args:
        graph: of the field.
        field: the user's.
        y: states, [rows, dim].
        t: their times, [rows, 1].
        values: of shared and row inputs by name, row tensors whole.
        alone: whether rows are compared one by one, for a field that is called with single rows.

    Raises:
        TraceError: where they disagree.
    """
    rows = torch.arange(N_ROWS) % len(y)
    y, t = _near(y.detach()[rows]).requires_grad_(), _near(t.detach()[rows]).requires_grad_()
    cut = {
        id(values[node.name]): values[node.name].detach()[rows].requires_grad_()
        for node in graph.of_role("row")
    }

    def own(leaf: Any) -> Any:
        if not isinstance(leaf, PerRow):
            return leaf
        return PerRow(cut.get(id(leaf.tensor), leaf.tensor.detach()[rows]))

    several = RowField(
        field.field,
        field.structure,
        pytree.tree_map(own, field.args),
        joint=field.joint,
    )
    inputs = {name: cut.get(id(x), x) for name, x in values.items()}
    with torch.enable_grad():
        f = _called(several, t, y, alone)
        converted = {name: x.to(y.dtype) for name, x in inputs.items()}
        expected = interpret(graph, {"time": t[:, 0], "state": y, **converted})["f"]
        if not _alike(f, expected, _largest((y, t))):
            raise TraceError(
                "rows are not independent: the field gives another derivative for one row alone "
                "than for the same row among others",
                operation="mixing rows",
            )
        read = [x for x in (y, t, *inputs.values()) if x.requires_grad]
        given, wanted = _gradients(f, read), _gradients(expected, read)
    scale = max(_largest(wanted), 1.0)
    if not all(_alike(g, w, scale) for g, w in zip(given, wanted, strict=True)):
        raise TraceError(
            "autograd's derivative of the field is not that of the operations it executes: it has "
            "a torch.autograd.Function or a hook of its own",
            operation="own derivative",
        )


def _near(x: Tensor) -> Tensor:
    """Values near others, all different."""
    wave = torch.sin(torch.arange(1, x.numel() + 1, dtype=x.dtype)).reshape(x.shape)
    return x * (1 + wave / 8) + wave / 16


def _called(field: RowField, t: Tensor, y: Tensor, alone: bool) -> Tensor:
    """The field on all rows at once; one by one where it is for a single row."""
    try:
        if not alone:
            return field(t, y)
        every = torch.arange(len(y)).split(1)
        return torch.cat([field.select(row)(t[row], y[row]) for row in every])
    except Exception as error:
        raise TraceError(
            f"the field takes one row and fails on {len(y)}: {first_line(error)}",
            operation=type(error).__name__,
            source=source_of(error),
        ) from error


def _gradients(f: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """A vector-Jacobian product, with zeros for what is not read."""
    if not f.requires_grad or not inputs:
        return [torch.zeros_like(x) for x in inputs]
    try:
        found = torch.autograd.grad(
            weighted(f, _near(torch.ones_like(f))), inputs, allow_unused=True
        )
    except Exception as error:
        raise TraceError(
            f"the field cannot be differentiated: {first_line(error)}",
            operation=type(error).__name__,
            source=source_of(error),
        ) from error
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


def _alike(given: Tensor, expected: Tensor, scale: float) -> bool:
    """Whether two values agree but for rounding, of them and of numbers of a scale."""
    tolerance = 1e-3 if given.dtype is torch.float32 else 1e-7
    given, expected = given.detach(), expected.detach()
    rounding = 1e3 * torch.finfo(given.dtype).eps * scale
    return torch.allclose(
        given,
        expected,
        rtol=tolerance,
        atol=tolerance * _largest([expected]) + rounding,
        equal_nan=True,
    )


def _largest(tensors: Iterable[Tensor]) -> float:
    """The largest size among numbers that are finite."""
    finite = [x.detach()[x.detach().isfinite()] for x in tensors]
    return max((float(x.abs().max()) for x in finite if x.numel()), default=0.0)
