"""Cotangents of many directions at once, as ``is_grads_batched=True`` and a vmap have them.

A backward pass in time takes one direction: its steps read and write what they please. Knows
nothing of what is pulled back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch._C import _functorch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

from odeum.types import Tensor

Backward = Callable[..., tuple[Any, ...]]
"""``(ctx, *cotangents of the outputs) -> those of the inputs``."""


def one_at_a_time(backward: Backward) -> Backward:
    """The backward pass of an autograd Function, taken once per direction where there are many.

    Outside of ``once_differentiable``, which does not see what is batched.

    Example:
        >>> class Double(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         return 2 * x
        ...     @staticmethod
        ...     @one_at_a_time
        ...     def backward(ctx, g):
        ...         return (torch.zeros(2).add_(2 * g),)  # in place: for one direction only
        >>> x = torch.ones(2, requires_grad=True)
        >>> torch.autograd.functional.jacobian(Double.apply, x, vectorize=True)
        tensor([[2., 0.],
                [0., 2.]])
    """

    @wraps(backward)
    def each(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        batch = _batch_of(cotangents)
        if batch is None:
            return backward(ctx, *cotangents)
        unbound = [batch.unbound(x) for x in cotangents]
        n = next(len(x) for x in unbound if x is not None)
        with temporarily_clear_interpreter_stack():
            found = [
                each(
                    ctx,
                    *(
                        x if entries is None else entries[i]
                        for x, entries in zip(cotangents, unbound, strict=True)
                    ),
                )
                for i in range(n)
            ]
            stacked = [_stacked(column) for column in zip(*found, strict=True)]
        return tuple(None if x is None else batch.bound(x) for x in stacked)

    return each


@dataclass(frozen=True)
class _Batch:
    """A vmap over directions.

    Attributes:
        level: its place among those that are nested.
        by_autograd: whether it is that of ``torch.autograd`` and not that of ``torch.func``.
    """

    level: int
    by_autograd: bool

    def unbound(self, x: Tensor | None) -> Sequence[Tensor] | None:
        """The directions of a cotangent; None where all share it."""
        if x is None or not (_by_autograd(x) if self.by_autograd else _level(x) == self.level):
            return None
        if self.by_autograd:
            return torch._remove_batch_dim(x, self.level, 1, 0).unbind()
        return _functorch.get_unwrapped(x).unbind(_functorch.maybe_get_bdim(x))

    def bound(self, x: Tensor) -> Tensor:
        """One cotangent of directions, [directions, ...]."""
        if self.by_autograd:
            return torch._add_batch_dim(x, 0, self.level)
        return _functorch._add_batch_dim(x, 0, self.level)


def _batch_of(cotangents: Sequence[Tensor | None]) -> _Batch | None:
    """The innermost vmap over directions; None where there is one direction."""
    given = [x for x in cotangents if x is not None]
    if any(_by_autograd(x) for x in given):
        level = torch._C._vmapmode_increment_nesting() - 1
        torch._C._vmapmode_decrement_nesting()
        return _Batch(level, by_autograd=True)
    level = max((_level(x) for x in given), default=-1)
    return None if level < 0 else _Batch(level, by_autograd=False)


def _by_autograd(x: Tensor) -> bool:
    return torch._C._dispatch_keys(x).has("Batched")


def _level(x: Tensor) -> int:
    return _functorch.maybe_get_level(x) if _functorch.is_batchedtensor(x) else -1


def _stacked(column: Sequence[Tensor | None]) -> Tensor | None:
    given = [x for x in column if x is not None]
    return torch.stack(given) if given else None
