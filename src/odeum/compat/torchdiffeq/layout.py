"""The user's state, a tensor or a tuple of tensors, real or complex, as one vector of real numbers.

Knows shapes and nothing of differential equations.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from odeum.compat.torchdiffeq.errors import ArgumentError
from odeum.errors import InputError
from odeum.types import Tensor

State = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Layout:
    """Where the tensors of a state lie in a vector of real numbers.

    Attributes:
        shapes: per tensor, its shape.
        complexes: per tensor, whether it is complex: two numbers an element.
        is_tuple: whether the state is a tuple of tensors, or the one tensor itself.
        dtype: of the vector.

    Example:
        >>> layout = layout_of((torch.zeros(2), torch.zeros(1, dtype=torch.complex64)))
        >>> layout.sizes, layout.unflatten(torch.arange(6.0))
        ([4, 2], (tensor([0.+1.j, 2.+3.j]), tensor([4.+5.j])))
    """

    shapes: tuple[torch.Size, ...]
    complexes: tuple[bool, ...]
    is_tuple: bool
    dtype: torch.dtype

    @property
    def _is_plain(self) -> bool:
        return not self.is_tuple and not self.complexes[0]

    @property
    def sizes(self) -> list[int]:
        """Numbers in each tensor."""
        return [
            shape.numel() * (2 if is_complex else 1)
            for shape, is_complex in zip(self.shapes, self.complexes, strict=True)
        ]

    def leaves(self, state: State) -> tuple[Tensor, ...]:
        """The tensors of a state."""
        return tuple(state) if self.is_tuple else (state,)  # type: ignore[return-value]

    def state(self, leaves: Iterable[Tensor]) -> State:
        """The state of those tensors."""
        found = tuple(leaves)
        return found if self.is_tuple else found[0]

    def flatten(self, state: State) -> Tensor:
        """[dim] from a state."""
        leaves = zip(self.leaves(state), self.complexes, strict=True)
        parts = [_as_real(x, is_complex).to(self.dtype) for x, is_complex in leaves]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def unflatten(self, flat: Tensor) -> State:
        """The state, each tensor [*lead, *shape], from [*lead, dim]."""
        lead = flat.shape[:-1]
        if self._is_plain:
            return flat.reshape((*lead, *self.shapes[0]))
        leaves = []
        parts = flat.split(self.sizes, -1)
        for part, shape, is_complex in zip(parts, self.shapes, self.complexes, strict=True):
            if is_complex:
                pairs = part.reshape((*lead, *shape, 2))
                leaves.append(torch.complex(pairs[..., 0], pairs[..., 1]))
            else:
                leaves.append(part.reshape((*lead, *shape)))
        return self.state(leaves)

    def flatten_derivative(self, derivative: Any) -> Tensor:
        """[dim] from what a field returned.

        As in torchdiffeq it is cast to the dtype of the state; a tensor broadcasts to the state,
        those of a tuple need as many elements as the state's.

        Raises:
            InputError: where it does not fit the state.
        """
        if (  # the usual case, at every stage of every step
            self._is_plain
            and isinstance(derivative, Tensor)
            and derivative.dtype == self.dtype
            and derivative.shape == self.shapes[0]
        ):
            return derivative.reshape(-1)
        leaves = tuple(derivative) if self.is_tuple else (derivative,)
        if len(leaves) != len(self.shapes) or not all(isinstance(x, Tensor) for x in leaves):
            raise InputError(
                f"func returned {_kinds(derivative)} for a state of {len(self.shapes)} "
                f"tensor{'s' * (len(self.shapes) > 1)}: return dy/dt in the structure of y"
            )
        fitted = []
        for leaf, shape, is_complex in zip(leaves, self.shapes, self.complexes, strict=True):
            if leaf.is_complex() and not is_complex:
                raise InputError(
                    "func returned a complex derivative of a real state: make y0 complex"
                )
            fitted.append(_fitted(leaf, shape, same_numel=self.is_tuple))
        return self.flatten(self.state(fitted))

    def magnitude(self, flat: Tensor) -> Tensor:
        """The absolute value of each element, [dim]; both numbers of a complex one have its own."""
        if not any(self.complexes):
            return flat.abs()
        return self.spread(tuple(x.abs() for x in self.leaves(self.unflatten(flat))))

    def spread(self, values: Iterable[Tensor]) -> Tensor:
        """[dim] from one real number an element, given per tensor."""
        return torch.cat(
            [
                x.expand(shape).reshape(-1).repeat_interleave(2 if is_complex else 1)
                for x, shape, is_complex in zip(values, self.shapes, self.complexes, strict=True)
            ]
        )

    def tolerance(self, name: str, tolerance: Any) -> float | Tensor:
        """A tolerance for every number of the vector.

        Args:
            name: what messages call it.
            tolerance: a number, a tensor that broadcasts to the one tensor of a state, or one of
                these for each tensor of a tuple.

        Returns:
            A number, or [dim].

        Raises:
            InputError: where it does not fit the state, or wants a gradient.
        """
        if isinstance(tolerance, Tensor) and tolerance.requires_grad:
            raise ArgumentError(f"{name} requires a gradient: give a number or a detached tensor")
        if isinstance(tolerance, Tensor) and tolerance.ndim == 0:
            return float(tolerance)
        if not isinstance(tolerance, Iterable):
            return float(tolerance)
        if not self.is_tuple:
            return self.spread([self._tensor(name, tolerance, self.shapes[0])])
        parts = list(tolerance)
        if len(parts) != len(self.shapes):
            raise ArgumentError(
                f"{name} has {len(parts)} entries for a state of {len(self.shapes)} tensors: "
                "give one for each, or a single number"
            )
        return self.spread(
            [self._tensor(name, x, shape) for x, shape in zip(parts, self.shapes, strict=True)]
        )

    def _tensor(self, name: str, value: Any, shape: torch.Size) -> Tensor:
        value = torch.as_tensor(value, dtype=self.dtype).detach()
        if value.numel() == shape.numel() and value.ndim <= 1:
            value = value.reshape(shape)
        try:
            return value.expand(shape)
        except RuntimeError:
            raise InputError(
                f"{name} has shape {list(value.shape)} for a state of shape {list(shape)}: "
                "it must broadcast to it"
            ) from None


def layout_of(y0: Any) -> Layout:
    """The layout of an initial state; the tensors of a tuple are promoted to one dtype.

    Raises:
        InputError: where it is neither a tensor nor a tuple of tensors, or no number can change.
    """
    is_tuple = isinstance(y0, tuple)
    leaves = y0 if is_tuple else (y0,)
    if not leaves or not all(isinstance(x, Tensor) for x in leaves):
        raise ArgumentError(f"y0 is {_kinds(y0)}: give a tensor or a tuple of tensors")
    dtype = leaves[0].dtype
    for leaf in leaves:
        dtype = torch.promote_types(dtype, leaf.dtype)
    if not (dtype.is_floating_point or dtype.is_complex):
        raise InputError(f"y0 has dtype {dtype}: give floating-point or complex numbers")
    return Layout(
        shapes=tuple(x.shape for x in leaves),
        complexes=(dtype.is_complex,) * len(leaves),
        is_tuple=is_tuple,
        dtype=dtype.to_real(),
    )


def _as_real(x: Tensor, is_complex: bool) -> Tensor:
    if not is_complex:
        return x.reshape(-1)
    pairs = x if x.is_complex() else torch.complex(x, torch.zeros_like(x))
    return torch.view_as_real(pairs).reshape(-1)


def _fitted(x: Tensor, shape: torch.Size, *, same_numel: bool) -> Tensor:
    if x.shape == shape:
        return x
    if same_numel and x.numel() == shape.numel():
        return x.reshape(shape)
    try:
        return x.expand(shape)
    except RuntimeError:
        raise InputError(
            f"func returned shape {list(x.shape)} for a state of shape {list(shape)}: "
            "return dy/dt in the shape of y"
        ) from None


def _kinds(given: Any) -> str:
    if isinstance(given, tuple | list):
        return f"a {type(given).__name__} of {len(given)} ({', '.join(_kinds(x) for x in given)})"
    return "a tensor" if isinstance(given, Tensor) else f"a {type(given).__name__}"
