"""Dense output that no gradient reaches: it says so, rather than give a wrong zero."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from odeum.eager.outputs import Segments
from odeum.errors import InputError
from odeum.types import Tensor


def refusing(
    segments: list[Segments], inputs: Sequence[Tensor | None], gradient: str
) -> list[Segments]:
    """Steps that refuse to be differentiated.

    Args:
        segments: the steps.
        inputs: what the solve depends on; one wants a gradient at least.
        gradient: the gradient that does not reach them, as the error names it.
    """
    anchor = next(x for x in inputs if x is not None and x.requires_grad)
    return [replace(part, y=_Refusal.apply(part.y, anchor, gradient)) for part in segments]


class _Refusal(torch.autograd.Function):
    """Lets a tensor pass, and raises where it is differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, gradient: str) -> Tensor:
        ctx.gradient = gradient
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        raise InputError(
            f"the {ctx.gradient} gradient does not reach dense output: put the times in ts, or "
            'use gradient="discrete" with a method of odeum\'s own'
        )
