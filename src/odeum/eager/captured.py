"""Tensors that a function reads by itself: seen, and replaced, where torch's functions take them.

A field closes over its parameters as it likes; only the functions that take them are the same for
all.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from odeum.eager.field import PerRow
from odeum.types import Tensor


class Reading(TorchFunctionMode):
    """Takes down what wants a gradient and was made before, wherever it comes from.

    Args:
        given: tensors that do not count.

    Attributes:
        read: the others, by identity.
    """

    def __init__(self, given: Sequence[Any]) -> None:
        super().__init__()
        self.read: dict[int, Tensor] = {}
        # Kept, that no other tensor takes their identities.
        contents = [x.tensor if isinstance(x, PerRow) else x for x in given]
        self._known = {id(x): x for x in contents}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        for x in pytree.tree_leaves((args, kwargs)):
            if isinstance(x, torch.Tensor) and id(x) not in self._known:
                self._known[id(x)] = x
                if x.requires_grad:
                    self.read[id(x)] = x
        result = func(*args, **(kwargs or {}))
        self._known.update((id(x), x) for x in pytree.tree_leaves(result))
        return result


class Replacing(TorchFunctionMode):
    """Torch's functions take other tensors in the place of those they are given.

    Args:
        replaced: the tensor to take, from the one that is given.

    Example:
        >>> with Replacing(lambda x: x + 1):
        ...     total = torch.stack([torch.zeros(())])
        >>> total
        tensor([1.])
    """

    def __init__(self, replaced: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._replaced = replaced

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        args = tuple([self._taken(x) for x in args])
        kwargs = {name: self._taken(x) for name, x in (kwargs or {}).items()}
        return func(*args, **kwargs)

    def _taken(self, given: Any) -> Any:
        if isinstance(given, torch.Tensor):
            return self._replaced(given)
        if isinstance(given, list | tuple):
            taken = [self._taken(x) for x in given]
            same = all(x is y for x, y in zip(given, taken, strict=True))
            return given if same else type(given)(taken)
        return given
