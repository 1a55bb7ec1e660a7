"""One level of ``torch.func.vmap``: its axis laid open below other transforms, and hidden again.

Built on what torch's own transforms are made of. Knows nothing of solves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch._C import _functorch
from torch._C._functorch import TransformType
from torch._functorch.pyfunctorch import (
    retrieve_all_functorch_interpreters,
    temporarily_clear_interpreter_stack,
)
from torch.utils import _pytree as pytree

from odeum.eager.captured import Replacing
from odeum.types import PyTree, Tensor


@dataclass(frozen=True)
class Map:
    """One level of ``torch.func.vmap``.

    Attributes:
        level: its place in the stack of transforms.
        size: the length of the mapped axis.
        witness: a tensor that is mapped at this level, and at no other.
        randomness: what it does to random numbers.
    """

    level: int
    size: int
    witness: Tensor
    randomness: str = "error"

    def exposed(self, x: Tensor) -> Tensor:
        """``x`` with the mapped axis in front, as an axis like any other."""
        if self._is_innermost:
            return _functorch._remove_batch_dim(x, self.level, self.size, 0)
        return _Exposed.apply(x, self.witness)

    def hidden(self, x: Tensor) -> Tensor:
        """``x`` with its first axis as the mapped one."""
        if self._is_innermost:
            return _functorch._add_batch_dim(x, 0, self.level)
        return _Hidden.apply(x, self.witness)

    @cached_property
    def below_gradients(self) -> bool:
        """Whether the transforms above it, of which there are some, are all of reverse mode."""
        above = [x for x in retrieve_all_functorch_interpreters() if x.level() > self.level]
        return bool(above) and all(x.key() == TransformType.Grad for x in above)

    @property
    def _is_innermost(self) -> bool:
        """Whether no other transform has to be told."""
        return _functorch.maybe_current_level() == self.level


def map_of(*tensors: PyTree) -> Map | None:
    """The innermost vmap over any of the tensors' values, tangents aside; None if there is none.

    Example:
        >>> torch.func.vmap(lambda x: x * map_of(x).size)(torch.ones(3))
        tensor([3., 3., 3.])
    """
    levels = [mapped_levels(x) for x in pytree.tree_leaves(tensors) if isinstance(x, torch.Tensor)]
    innermost = max((level for found in levels for level in found), default=None)
    for interpreter in retrieve_all_functorch_interpreters():
        if innermost is not None and interpreter.level() == innermost:
            size = interpreter.batch_size()  # type: ignore[attr-defined]
            with temporarily_clear_interpreter_stack():  # they would wrap what is made here
                entries = torch.arange(size)
            witness = _functorch._add_batch_dim(entries, 0, innermost)
            return Map(innermost, size, witness, interpreter.randomness())  # type: ignore[attr-defined]
    return None


def mapped_levels(x: Tensor) -> list[int]:
    """The levels of the vmaps over a tensor's values.

    Example:
        >>> torch.func.vmap(lambda x: x + len(mapped_levels(x)))(torch.zeros(2))
        tensor([1., 1.])
    """
    levels = []
    while _functorch.is_functorch_wrapped_tensor(x):
        if _functorch.is_batchedtensor(x):
            levels.append(_functorch.maybe_get_level(x))
        x = _functorch.get_unwrapped(x)
    return levels


class _Exposed(torch.autograd.Function):
    """``(x mapped at the witness's level, witness) -> x [size, ...]``, not mapped there.

    Tensors wrapped by transforms above that level are taken through those first: each transform
    handles this like any operation, until it comes to the level itself.
    """

    @staticmethod
    def forward(x: Tensor, witness: Tensor) -> Tensor:
        raise AssertionError("handled by the rule of its vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.witness = inputs[1]

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        return _Hidden.apply(cotangent, ctx.witness), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return _Exposed.apply(tangent, ctx.witness)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, int | None], x: Tensor, witness: Tensor
    ) -> tuple[Tensor, int | None]:
        if in_dims[1] is None:  # another vmap than the witness's: its axis is one of many
            assert in_dims[0] is not None
            return _Exposed.apply(x.movedim(in_dims[0], -1), witness), -1
        if in_dims[0] is None:
            return x.expand(info.batch_size, *x.shape), None
        return x.movedim(in_dims[0], 0), None


class _Hidden(torch.autograd.Function):
    """``(x [size, ...], witness) -> x [...] mapped at the witness's level``."""

    @staticmethod
    def forward(x: Tensor, witness: Tensor) -> Tensor:
        raise AssertionError("handled by the rule of its vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.witness = inputs[1]

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        return _Exposed.apply(cotangent, ctx.witness), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return _Hidden.apply(tangent, ctx.witness)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, int | None], x: Tensor, witness: Tensor
    ) -> tuple[Tensor, int]:
        if in_dims[1] is None:
            assert in_dims[0] is not None
            return _Hidden.apply(x.movedim(in_dims[0], -1), witness), -1
        assert in_dims[0] is None, "what is hidden was exposed before"
        return x.clone(), 0


class Captured:
    """What functions read that is mapped, exposed once and hidden under another vmap each time.

    To expose a tensor below other transforms costs as much as twenty operations, so that it is not
    done for states at every evaluation but for parameters at the first.

    Args:
        map: the vmap.
    """

    def __init__(self, map: Map) -> None:
        self._map = map
        self._level = map.level
        self._exposed: dict[tuple[int, bool], tuple[Tensor, Tensor]] = {}

    def mapped(self, function: Callable[[Tensor], PyTree], x: Tensor) -> PyTree:
        """The function's values at each entry of ``x`` with its own of what is mapped."""

        def on_entry(x: Tensor) -> PyTree:
            level = _functorch.maybe_current_level()
            assert level is not None
            self._level = level
            with Replacing(self._seen):
                return function(x)

        return torch.func.vmap(on_entry, randomness=self._map.randomness)(x)

    def _seen(self, x: Tensor) -> Tensor:
        if self._map.level not in mapped_levels(x):
            return x
        key = id(x), torch.is_grad_enabled()
        if key not in self._exposed:
            self._exposed[key] = x, self._map.exposed(x)  # kept, that no other has its id
        return _functorch._add_batch_dim(self._exposed[key][1], 0, self._level)
