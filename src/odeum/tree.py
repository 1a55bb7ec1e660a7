"""A state of any structure as one ``[batch, dim]`` tensor, and back.

Knows shapes and nothing of differential equations.
"""

from dataclasses import dataclass

import torch
from torch.utils import _pytree as pytree

from odeum.errors import InputError
from odeum.types import PyTree, Tensor


@dataclass(frozen=True)
class Structure:
    """How a state's tensors lie in the rows of a ``[batch, dim]`` tensor.

    Attributes:
        spec: the pytree's structure.
        shapes: per tensor, its shape within one row.
        batch_shape: ``(batch,)``, or ``()`` for a state that is a single row without a batch axis.
        dtype: the one dtype of all tensors.
        device: the one device of all tensors.
    """

    spec: pytree.TreeSpec
    shapes: tuple[torch.Size, ...]
    batch_shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def sizes(self) -> list[int]:
        """Numbers per row in each tensor."""
        return [shape.numel() for shape in self.shapes]

    @property
    def is_flat(self) -> bool:
        """Whether the state is its own ``[batch, dim]`` tensor."""
        return self.spec.is_leaf() and len(self.shapes[0]) == 1 and len(self.batch_shape) == 1

    def flatten(self, state: PyTree) -> Tensor:
        """[*lead, batch, dim] from a state whose tensors are [*lead, *batch_shape, *shape]."""
        rows = []
        for leaf, shape in zip(pytree.tree_leaves(state), self.shapes, strict=True):
            lead = leaf.shape[: leaf.ndim - len(shape) - len(self.batch_shape)]
            n_rows = leaf.shape[len(lead)] if self.batch_shape else 1
            rows.append(leaf.reshape(*lead, n_rows, shape.numel()))
        return rows[0] if len(rows) == 1 else torch.cat(rows, -1)

    def unflatten(self, flat: Tensor) -> PyTree:
        """The state whose tensors are [*lead, *batch_shape, *shape] from [*lead, rows, dim]."""
        lead = flat.shape[:-1] if self.batch_shape else flat.shape[:-2]
        leaves = [
            part.reshape(*lead, *shape)
            for part, shape in zip(flat.split(self.sizes, -1), self.shapes, strict=True)
        ]
        return pytree.tree_unflatten(leaves, self.spec)

    def describe(self) -> str:
        """Shapes as a user would write them.

        Example:
            >>> structure_of(torch.zeros(3, 2)).describe()
            '[3, 2]'
            >>> structure_of({"q": torch.zeros(3, 2), "p": torch.zeros(3, 2)}).describe()
            "{'q': [3, 2], 'p': [3, 2]}"
        """
        shapes = [[*self.batch_shape, *shape] for shape in self.shapes]
        return str(pytree.tree_unflatten(shapes, self.spec))


def structure_of(state: PyTree) -> Structure:
    """The structure of an initial state.

    Args:
        state: a tensor [batch, *shape], a tensor [dim] (one system), or a pytree of such tensors.
            Where any of a pytree's tensors has two axes, the first axis of all is the batch.

    Raises:
        InputError: where leaves are no floating-point tensors, or disagree on batch, dtype, device.
    """
    leaves, spec = pytree.tree_flatten(state)
    if not leaves:
        raise InputError("y0 is empty: give a tensor, or a tuple, list or dict of tensors")
    for leaf in leaves:
        if not isinstance(leaf, torch.Tensor):
            raise InputError(
                f"y0 holds a {type(leaf).__name__}: states are torch tensors; "
                "use torch.as_tensor(...)"
            )
        if not leaf.is_floating_point():
            raise InputError(f"y0 has dtype {leaf.dtype}: use float32 or float64")
        if leaf.ndim == 0:
            raise InputError("y0 has no axis: give [dim] for one system or [batch, dim] for many")
    first = leaves[0]
    batched = any(leaf.ndim > 1 for leaf in leaves)
    for leaf in leaves:
        if (leaf.dtype, leaf.device) != (first.dtype, first.device):
            raise InputError(
                f"y0 mixes {first.dtype} on {first.device} with {leaf.dtype} on {leaf.device}: "
                "give all its tensors one dtype and device"
            )
        if batched and leaf.shape[0] != first.shape[0]:
            raise InputError(
                f"y0's tensors disagree on the batch: {first.shape[0]} and {leaf.shape[0]} rows"
            )
    batch_shape = (first.shape[0],) if batched else ()
    shapes = tuple(leaf.shape[len(batch_shape) :] for leaf in leaves)
    return Structure(spec, shapes, batch_shape, first.dtype, first.device)
