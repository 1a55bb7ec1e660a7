"""Tensors that refuse to be differentiated: they say so, rather than give a wrong zero."""

from collections.abc import Sequence
from typing import Any

import torch

from odeum.errors import InputError
from odeum.types import Tensor


def refusing(x: Tensor, depends_on: Sequence[Tensor | None], why: str) -> Tensor:
    """A tensor that refuses to be differentiated.

    Args:
        x: the tensor.
        depends_on: what it depends on; differentiating it with respect to any of these, or to
            what they come from, is refused.
        why: the error's sentence.

    Example:
        >>> rate = torch.tensor(2.0, requires_grad=True)
        >>> x = refusing(rate.detach() ** 2, [rate], "no derivative of the square is known")
        >>> (3 * x).backward()
        Traceback (most recent call last):
        odeum.errors.InputError: no derivative of the square is known
    """
    return _Refusal.apply(x, why, *depends_on)


class _Refusal(torch.autograd.Function):
    """Lets a tensor pass, and raises where it is differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, why: str, *depends_on: Tensor | None) -> Tensor:
        ctx.why = why
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        raise InputError(ctx.why)
