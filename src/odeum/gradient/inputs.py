"""What a solve is differentiated with respect to, beyond states and times.

Tensors in ``args``, and those a field reads without being handed them: its parameters and
whatever it closes over.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from odeum.solve.field import PerRow
from odeum.types import Field, PyTree, Tensor


class Args:
    """The user's ``args`` with the tensors in them that want a gradient.

    Args:
        args: the user's.

    Attributes:
        tensors: those that want a gradient, in the order of the pytree.

    Example:
        >>> args = Args({"rate": torch.ones(1, requires_grad=True), "name": "decay"})
        >>> args.replaced([torch.zeros(1)])
        {'rate': tensor([0.]), 'name': 'decay'}
    """

    def __init__(self, args: PyTree) -> None:
        self._leaves, self._spec = pytree.tree_flatten(args)
        contents = [leaf.tensor if isinstance(leaf, PerRow) else leaf for leaf in self._leaves]
        self._wanting = [
            i for i, x in enumerate(contents) if isinstance(x, torch.Tensor) and x.requires_grad
        ]
        self.tensors: list[Tensor] = [contents[i] for i in self._wanting]

    def replaced(self, tensors: Sequence[Tensor]) -> PyTree:
        """``args`` with other tensors in the places of those that want a gradient."""
        leaves: list[Any] = list(self._leaves)
        for i, tensor in zip(self._wanting, tensors, strict=True):
            leaves[i] = PerRow(tensor) if isinstance(leaves[i], PerRow) else tensor
        return pytree.tree_unflatten(leaves, self._spec)


def captured_tensors(field: Field, derivative: Tensor) -> list[Tensor]:
    """Leaf tensors that want a gradient and that a field reads by itself.

    Args:
        field: the user's field. A module's parameters count whether or not this evaluation used
            them: a field may use them at other times.
        derivative: the field's value, recorded by autograd on inputs that want no gradient.

    Returns:
        Each tensor once.

    Example:
        >>> rate = torch.tensor(2.0, requires_grad=True)
        >>> field = lambda t, y: -rate * y
        >>> captured_tensors(field, field(0.0, torch.ones(1, 1)))
        [tensor(2., requires_grad=True)]
    """
    owner = getattr(field, "__self__", field)
    found: dict[int, Tensor] = {}
    if isinstance(owner, torch.nn.Module):
        found.update((id(p), p) for p in owner.parameters() if p.requires_grad)
    found.update((id(leaf), leaf) for leaf in _leaves(derivative))
    return list(found.values())


def _leaves(derivative: Tensor) -> Iterable[Tensor]:
    """The leaf tensors of an autograd graph."""
    seen: set[Any] = set()
    queue: list[Any] = [derivative.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        queue.extend(function for function, _ in node.next_functions)
