"""The same solve by both engines: how tests say that a kernel does what the eager engine does."""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

import odeum
from odeum.eager.field import PerRow

STATES = 1e-12
"""Largest difference of states allowed, relative to the largest of a solve, in double precision."""

GRADIENTS = 1e-10
"""The same of gradients."""


def tensors_in(thing: Any) -> list[torch.Tensor]:
    """Leaves that want gradients in a field or its arguments: a module's, a closure's, a tree's."""
    found: dict[int, torch.Tensor] = {}
    for tensor in _tensors(thing, set()):
        if tensor.requires_grad and tensor.is_leaf:
            found.setdefault(id(tensor), tensor)
    return list(found.values())


def _tensors(thing: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        yield thing
        return
    inside: list[Any] = []
    if isinstance(thing, PerRow):
        inside = [thing.tensor]
    elif isinstance(thing, nn.Module):
        inside = [*thing.parameters(), *thing.buffers()]
    elif isinstance(thing, types.FunctionType):
        inside = [cell.cell_contents for cell in thing.__closure__ or ()]
    elif isinstance(thing, dict):
        inside = list(thing.values())
    elif isinstance(thing, list | tuple):
        inside = list(thing)
    elif hasattr(thing, "__dict__") and type(thing).__module__.startswith("odeum"):
        inside = list(vars(thing).values())
    for x in inside:
        yield from _tensors(x, seen)


@dataclass(frozen=True)
class Solved:
    """What one engine made of a problem.

    Attributes:
        solution: the solution.
        gradients: of a weighted sum of its states, None where nothing depends on an input.
    """

    solution: odeum.Solution
    gradients: list[torch.Tensor | None]


def solved(engine: str, field: Any, y0: Any, ts: torch.Tensor, args: Any, **options: Any) -> Solved:
    """Solves, and pulls back a fixed cotangent of the states that are numbers."""
    leaves, spec = pytree.tree_flatten(y0)
    leaves = [x.detach().clone().requires_grad_() for x in leaves]
    ts = ts.detach().clone().requires_grad_()
    inputs = [*leaves, ts, *tensors_in((field, args))]
    solution = odeum.solve(
        field, pytree.tree_unflatten(leaves, spec), ts, args, engine=engine, **options
    )
    assert solution.engine == engine
    ys = torch.cat([x.reshape(-1) for x in pytree.tree_leaves(solution.ys)])
    weights = torch.cos(torch.arange(len(ys), dtype=ys.dtype))
    numbers = torch.isfinite(ys)
    loss = (ys * weights)[numbers].sum()
    found = torch.autograd.grad(loss, inputs, allow_unused=True) if loss.requires_grad else []
    return Solved(solution, list(found))


def assert_same(
    field: Any,
    y0: Any,
    ts: torch.Tensor,
    args: Any = None,
    *,
    states: float = STATES,
    gradients: float = GRADIENTS,
    **options: Any,
) -> odeum.Solution:
    """Both engines take the same steps, to the same states and gradients.

    Returns:
        The solution of the fused engine, which solves twice: the second time it looks at less.
    """
    eager = solved("eager", field, y0, ts, args, **options)
    for _ in range(2):
        fused = solved("fused", field, y0, ts, args, **options)
        assert_same_solution(fused.solution, eager.solution, states)
        for x, y in zip(eager.gradients, fused.gradients, strict=True):
            if x is None or y is None:
                # One engine may know that nothing depends on it where the other finds zeros.
                for g in (x, y):
                    assert g is None or not g.any()
            else:
                assert_near(y, x, gradients)
    return fused.solution


def assert_same_solution(
    given: odeum.Solution, expected: odeum.Solution, bound: float = STATES
) -> None:
    """The same steps of every row, the same states within a bound."""
    for name in ("n_accepted", "n_rejected", "n_evaluations"):
        a, b = getattr(given.stats, name), getattr(expected.stats, name)
        assert torch.equal(a, b), f"{name}: {a.tolist()} for {b.tolist()}"
    assert torch.equal(given.status, expected.status)
    leaves = zip(pytree.tree_leaves(given.ys), pytree.tree_leaves(expected.ys), strict=True)
    for x, y in leaves:
        assert_near(x, y, bound)


def assert_near(given: torch.Tensor, expected: torch.Tensor, bound: float) -> None:
    """Numbers differ by no more than a bound relative to the largest; NaN where NaN is expected.

    Numbers in single precision, as gradients of weights that a field converts, may be a rounding
    apart.
    """
    assert given.shape == expected.shape
    assert given.dtype == expected.dtype
    bound = max(bound, 2 * torch.finfo(expected.dtype).eps)
    given, expected = given.detach(), expected.detach()
    numbers = torch.isfinite(expected)
    size = float(expected[numbers].abs().max()) if numbers.any() else 0.0
    torch.testing.assert_close(
        given, expected, rtol=0, atol=bound * max(size, 1e-3), equal_nan=True
    )
