"""Forward-mode differentiation at the price of its arithmetic.

A number without a tangent stands beside one that has one in most of what a solver does. Torch
makes the missing tangent a symbolic zero, whose shape it infers anew in Python for each operation:
a hundred times the cost of adding a zero. So zeros are handed over as zeros. Knows of no solve.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch._C import _functorch
from torch._C._functorch import TransformType
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from odeum.types import Tensor

_aten = torch.ops.aten
_BY_NUMBER: dict[Any, Callable[..., Tensor]] = {
    torch.Tensor.mul: _aten.mul.Scalar,
    torch.mul: _aten.mul.Scalar,
    torch.Tensor.div: _aten.div.Scalar,
    torch.div: _aten.div.Scalar,
    torch.Tensor.add: _aten.add.Scalar,
    torch.add: _aten.add.Scalar,
    torch.Tensor.sub: _aten.sub.Scalar,
    torch.sub: _aten.sub.Scalar,
}
"""Functions of two tensors, with the one where the second is a number of Python's."""

_ELEMENTWISE = {
    *_BY_NUMBER,
    torch.addcmul,
    torch.addcdiv,
    torch.Tensor.addcmul,
    torch.Tensor.addcdiv,
    torch.maximum,
    torch.minimum,
}
_LINEAR = torch.nn.functional.linear


class ExplicitZeros(TorchFunctionMode):
    """Arithmetic on a tensor with a tangent and one without takes the second with a zero tangent.

    It is the innermost level of forward mode that is looked at; where there is none, and where the
    innermost transform is another, nothing changes.

    Example:
        >>> from odeum.eager.jacobian import load_forward_mode
        >>> load_forward_mode()
        >>> with ExplicitZeros():
        ...     torch.func.jvp(lambda x: 3 * x + torch.ones(1), (torch.ones(1),), (torch.ones(1),))
        (tensor([4.]), tensor([3.]))
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is _LINEAR and not kwargs:
            func, args = _affine, args
        elif func in _ELEMENTWISE:
            if len(args) == 2 and not kwargs and isinstance(args[1], int | float):
                return _BY_NUMBER.get(func, func)(*args)
            args = _with_zeros(args)
        return func(*args, **(kwargs or {}))


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x W^T + b``, of which torch has no rule for fewer tangents than three."""
    product = x @ weight.mT
    return product if bias is None else torch.add(*_with_zeros((product, bias)))


def _with_zeros(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments with zero tangents for the tensors without one, where another has one."""
    has_tangent = _tangents_of()
    if has_tangent is None:
        return args
    bare = [isinstance(x, torch.Tensor) and not has_tangent(x) for x in args]
    if not any(
        isinstance(x, torch.Tensor) and not is_bare for x, is_bare in zip(args, bare, strict=True)
    ):
        return args
    return tuple(
        _with_zero(x) if is_bare and x.is_floating_point() else x
        for x, is_bare in zip(args, bare, strict=True)
    )


def _with_zero(x: Tensor) -> Tensor:
    x = x.contiguous()  # a tangent is laid out as its number, in memory of its own
    return forward_ad.make_dual(x, torch.zeros_like(x))


def _tangents_of() -> Callable[[Tensor], bool] | None:
    """What tells whether a tensor has a tangent now; None where no tensor has one."""
    if not torch._C._is_fwd_grad_enabled():
        return None
    innermost = _functorch.peek_interpreter_stack()
    if innermost is None:
        return _is_dual if forward_ad._current_level >= 0 else None
    if innermost.key() != TransformType.Jvp:
        return None
    level = innermost.level()
    return lambda x: _functorch.is_gradtrackingtensor(x) and _functorch.maybe_get_level(x) == level


def _is_dual(x: Tensor) -> bool:
    return forward_ad.unpack_dual(x).tangent is not None
