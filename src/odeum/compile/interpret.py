"""Graphs in plain torch, for a whole batch: what every operation means.

Differentiable, and to be called under torch's transforms. Kernels are tested against it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from odeum.compile.ir import BINARY, REDUCTIONS, UNARY, Graph, Node
from odeum.types import Tensor

OPERATIONS: dict[str, Callable[..., Tensor]] = {
    name: getattr(torch, name)
    for name in sorted(UNARY | BINARY)
    if hasattr(torch, name) and name not in ("and", "or", "not")
} | {
    "and": torch.logical_and,
    "or": torch.logical_or,
    "not": torch.logical_not,
    "stop": torch.Tensor.detach,
    "where": torch.where,
}
"""Pointwise operations by name, but for ``to_float``, which asks for a dtype."""


def interpret(
    graph: Graph, values: Mapping[str, Tensor], *, rows: bool = True
) -> dict[str, Tensor]:
    """The outputs of a graph.

    Args:
        graph: of one row.
        values: of the inputs by name, at least those that are read: a shared tensor is [*shape],
            everything else [batch, *shape]. All have one floating dtype.
        rows: False where there is one row and nothing has a batch axis.

    Returns:
        By name, [batch, *shape]. What depends on shared tensors alone is computed once.

    Example:
        >>> from odeum.compile.build import Builder
        >>> y = Node("input", (), (2,), {"role": "state", "name": "state"})
        >>> graph = Graph((y,), {"f": Builder().mul(y, 2.0)})
        >>> interpret(graph, {"state": torch.ones(1, 2)})["f"]
        tensor([[2., 2.]])
    """
    given = next(iter(values.values()))
    done: dict[Node, Tensor] = {}
    batched: dict[Node, bool] = {}
    for node in graph.nodes():
        if node.op == "input":
            done[node] = values[node.name]
            batched[node] = rows and node.role != "shared"
        else:
            flags = [batched[x] for x in node.inputs]
            batched[node] = any(flags)
            operands = [done[x] for x in node.inputs]
            done[node] = evaluate(node, operands, flags, given)
    outputs = {}
    for name, node in graph.outputs.items():
        outputs[name] = done[node]
        if rows and not batched[node]:
            of_rows = next(x for x in graph.inputs if x.role != "shared" and x.name in values)
            outputs[name] = done[node].expand(len(values[of_rows.name]), *node.shape)
    return outputs


def evaluate(node: Node, operands: list[Tensor], batched: list[bool], like: Tensor) -> Tensor:
    """The value of one node.

    Args:
        node: the operation.
        operands: of its inputs, [*shape] or [batch, *shape].
        batched: which of them have a batch axis; the value has one where any of them has.
        like: a tensor of the dtype of all numbers.
    """
    if node.op == "constant":
        return constant_value(node, like)
    if node.op == "to_float":
        return operands[0].to(like.dtype)
    lead = int(any(batched))
    if node.op in OPERATIONS:
        aligned = [
            _aligned(x, has, len(node.shape)) for x, has in zip(operands, batched, strict=True)
        ]
        return OPERATIONS[node.op](*aligned)
    if node.op == "matmul":
        return torch.matmul(*operands)
    if node.op == "solve":
        return torch.linalg.solve_ex(*operands).result
    if node.op == "cat":
        return _concatenated(node, operands, batched, lead)
    (x,) = operands
    batch = x.shape[:lead]
    if node.op == "reshape":
        return x.reshape((*batch, *node.shape))
    if node.op == "expand":
        return _aligned(x, bool(lead), len(node.shape)).expand((*batch, *node.shape))
    if node.op == "permute":
        return x.permute(*range(lead), *(d + lead for d in node.attributes["dims"]))
    if node.op == "slice":
        return _sliced(x, node, lead)
    assert node.op in REDUCTIONS, node.op
    dims = tuple(d + lead for d in node.attributes["dims"])
    reduction: Any = getattr(torch, node.op)
    return reduction(x, dims)


def weighted(f: Tensor, cotangent: Tensor) -> Tensor:
    """The number whose gradient is a vector-Jacobian product.

    Given a cotangent itself, torch imports sympy to look at its shape: a second.
    """
    return (f * cotangent).sum()


def constant_value(node: Node, like: Tensor) -> Tensor:
    """The value of a constant, [*shape]."""
    dtype = torch.bool if node.boolean else like.dtype
    value = node.attributes["value"]
    if isinstance(value, tuple):
        return torch.tensor(value, dtype=dtype, device=like.device).reshape(node.shape)
    return torch.full(node.shape, value, dtype=dtype, device=like.device)


def _aligned(x: Tensor, batched: bool, rank: int) -> Tensor:
    """With axes of length 1 after that of the batch, as broadcasting puts them before all."""
    if not batched or x.ndim == rank + 1:
        return x
    return x.reshape(x.shape[0], *(1,) * (rank + 1 - x.ndim), *x.shape[1:])


def _concatenated(node: Node, parts: list[Tensor], batched: list[bool], lead: int) -> Tensor:
    if lead:
        n_rows = next(x.shape[0] for x, has in zip(parts, batched, strict=True) if has)
        parts = [
            x if has else x.expand(n_rows, *x.shape) for x, has in zip(parts, batched, strict=True)
        ]
    return torch.cat(parts, node.attributes["dim"] + lead)


def _sliced(x: Tensor, node: Node, lead: int) -> Tensor:
    dim, start, stop, step = (node.attributes[key] for key in ("dim", "start", "stop", "step"))
    index: list[Any] = [slice(None)] * (dim + lead)
    if step > 0:
        return x[(*index, slice(start, stop, step))]
    # Torch has no slices backwards: the same elements forwards, turned round.
    places = range(start, stop, step)
    return x[(*index, slice(places[-1], start + 1, -step))].flip(dim + lead)
