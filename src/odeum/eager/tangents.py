"""Forward-mode differentiation at the price of its arithmetic.

A number without a tangent stands beside one that has one in most of what a solver does. Torch
makes the missing tangent a symbolic zero, whose shape it infers anew in Python for each operation:
a hundred times the cost of adding a zero. So zeros are handed over as zeros. Knows of no solve.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._C import _functorch
from torch._C._functorch import TransformType
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from odeum.errors import InputError
from odeum.types import Field, PyTree, Tensor

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


class OnLeaves:
    """A field on dual numbers that may be differentiated inside by ``torch.autograd``.

    What it is given wants a gradient, so that it need not be cut off from its tangent, as it would
    be by ``y.detach().requires_grad_()``; what it returns wants one only where that is recorded.

    Args:
        field: the user's.

    Example:
        >>> def slope(t, y):  # of y^3
        ...     with torch.enable_grad():
        ...         y = y if y.requires_grad else y.detach().requires_grad_()
        ...         return torch.autograd.grad((y**3).sum(), y, create_graph=True)[0]
        >>> with torch.no_grad(), forward_ad.dual_level():
        ...     y = forward_ad.make_dual(torch.ones(1), torch.ones(1))
        ...     tuple(forward_ad.unpack_dual(OnLeaves(slope)(0.0, y)))
        (tensor([3.]), tensor([6.]))
    """

    def __init__(self, field: Field) -> None:
        self._field = field

    def __call__(self, t: Tensor, y: PyTree, *args: PyTree) -> PyTree:
        """The field's value."""
        if _functorch.peek_interpreter_stack() is not None:  # which sees to what it is given
            return self._field(t, y, *args)
        dy = self._field(*pytree.tree_map(_leaf, (t, y, *args)))
        return dy if torch.is_grad_enabled() else pytree.tree_map(_cut, dy)


def _leaf(x: Any) -> Any:
    if not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.requires_grad:
        return x
    primal, tangent = forward_ad.unpack_dual(x)
    with torch.enable_grad():
        primal = primal.detach().requires_grad_()
        return primal if tangent is None else forward_ad.make_dual(primal, tangent)


def _cut(x: Any) -> Any:
    if not isinstance(x, torch.Tensor) or not x.requires_grad:
        return x
    primal, tangent = forward_ad.unpack_dual(x)
    primal = primal.detach()
    return primal if tangent is None else forward_ad.make_dual(primal, tangent.detach())


@contextmanager
def inner_derivatives_explained() -> Iterator[None]:
    """A field that differentiates inside as no transform of ``torch.func`` allows is told so.

    Raises:
        InputError: where it does.
    """
    try:
        yield
    except RuntimeError as error:
        if "requires_grad_()" not in str(error):
            raise
        raise InputError(
            "the field differentiates inside by torch.autograd, which torch.func does not let it: "
            "use torch.func.grad there, or differentiate the solve by .backward()"
        ) from error
