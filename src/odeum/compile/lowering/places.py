"""Elements at places that are known when the field is traced: indexing, diagonals, writing.

They are gathered by slices; an index that is itself computed is refused.
"""

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import torch

from odeum.compile.build import Builder, filled
from odeum.compile.ir import Node, Shape
from odeum.compile.lowering.table import Unsupported, constant_of, lowers

Places = torch.Tensor
"""Numbers of elements in the order of an array, shaped like what is taken from it."""


def places_of(shape: Sequence[int]) -> Places:
    """The number of each element of an array."""
    return torch.arange(prod(shape)).reshape(tuple(shape))


def take(b: Builder, x: Node, places: Places) -> Node:
    """The elements at those places, in the shape of these."""
    return b.gather(x, places.reshape(-1).tolist(), tuple(places.shape))


def put(b: Builder, base: Node, places: Places, values: Node, accumulate: bool = False) -> Node:
    """An array with values at those places of another, or added to it there.

    Of several values for one place the last remains.
    """
    flat = places.reshape(-1).tolist()
    if not accumulate:
        both = b.cat((b.reshape(base, (base.size,)), b.reshape(values, (values.size,))), 0)
        source = list(range(base.size))
        for i, place in enumerate(flat):
            source[place] = base.size + i
        return b.gather(both, source, base.shape)
    rounds: list[list[int]] = []
    seen = [0] * base.size
    for i, place in enumerate(flat):
        if seen[place] == len(rounds):
            rounds.append([-1] * base.size)
        rounds[seen[place]][place] = i
        seen[place] += 1
    for source in rounds:
        base = b.add(base, b.gather(values, source, base.shape))
    return base


@lowers("diagonal")
def _diagonal(b: Builder, x: Node, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Node:
    return take(b, x, places_of(x.shape).diagonal(offset, dim1, dim2))


@lowers("diag")
def _diag(b: Builder, x: Node, diagonal: int = 0) -> Node:
    if len(x.shape) == 2:
        return _diagonal(b, x, diagonal)
    return _diag_embed(b, x, diagonal)


@lowers("diag_embed")
def _diag_embed(b: Builder, x: Node, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Node:
    places = torch.diag_embed(places_of(x.shape) + 1, offset, dim1, dim2) - 1
    return take(b, x, places)


@lowers("tril")
def _tril(b: Builder, x: Node, diagonal: int = 0) -> Node:
    kept = torch.ones(x.shape[-2:], dtype=torch.bool).tril(diagonal)
    return b.where(constant_of(b, kept), x, 0)


@lowers("triu")
def _triu(b: Builder, x: Node, diagonal: int = 0) -> Node:
    kept = torch.ones(x.shape[-2:], dtype=torch.bool).triu(diagonal)
    return b.where(constant_of(b, kept), x, 0)


@lowers("trace")
def _trace(b: Builder, x: Node) -> Node:
    return b.reduce("sum", _diagonal(b, x), None)


@lowers("unfold")
def _unfold(b: Builder, x: Node, dim: int, size: int, step: int) -> Node:
    return take(b, x, places_of(x.shape).unfold(dim, size, step))


@lowers("index_select", raw=True)
def _index_select(b: Builder, x: Node, dim: int, index: Any) -> Node:
    _known(index)
    return take(b, x, places_of(x.shape).index_select(dim, index))


@lowers("gather", raw=True)
def _gather(b: Builder, x: Node, dim: int, index: Any, *, sparse_grad: bool = False) -> Node:
    _known(index)
    return take(b, x, places_of(x.shape).gather(dim, index))


@lowers("take", raw=True)
def _take(b: Builder, x: Node, index: Any) -> Node:
    _known(index)
    return take(b, x, places_of(x.shape).take(index))


@lowers("index", "_unsafe_index", raw=True)
def _index(b: Builder, x: Node, indices: Sequence[Any]) -> Node:
    return take(b, x, places_of(x.shape)[_known_all(indices)])


@lowers("index_put", "_index_put_impl", "_unsafe_index_put", raw=True)
def _index_put(
    b: Builder, x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False, *_: Any
) -> Node:
    base, new = _node_of(b, x), _node_of(b, values)
    places = places_of(base.shape)[_known_all(indices)]
    return put(b, base, places, b.expand(new, tuple(places.shape)), accumulate)


@lowers("embedding", raw=True)
def _embedding(b: Builder, weight: Node, index: Any, *options: Any) -> Node:
    _known(index)
    return take(b, weight, places_of(weight.shape)[index])


@lowers("scatter", raw=True)
def _scatter(b: Builder, x: Any, dim: int, index: Any, values: Any, **options: Any) -> Node:
    if options:
        raise Unsupported("reduces what it writes to one place")
    return _put_along(b, x, dim, index, values, accumulate=False)


@lowers("scatter_add", raw=True)
def _scatter_add(b: Builder, x: Any, dim: int, index: Any, values: Any) -> Node:
    return _put_along(b, x, dim, index, values, accumulate=True)


def _put_along(b: Builder, x: Any, dim: int, index: Any, values: Any, *, accumulate: bool) -> Node:
    _known(index)
    base, new = _node_of(b, x), _node_of(b, values)
    for d, n in enumerate(index.shape if new.shape else ()):
        new = b.slice(new, d, 0, n)
    places = places_of(base.shape).gather(dim, index)
    return put(b, base, places, b.expand(new, tuple(places.shape)), accumulate)


@lowers("index_add", raw=True)
def _index_add(b: Builder, x: Any, dim: int, index: Any, values: Any, *, alpha: float = 1) -> Node:
    _known(index)
    base, new = _node_of(b, x), _node_of(b, values)
    places = places_of(base.shape).index_select(dim, index)
    return put(b, base, places, new if alpha == 1 else b.mul(new, alpha), accumulate=True)


@lowers("index_copy", raw=True)
def _index_copy(b: Builder, x: Any, dim: int, index: Any, values: Any) -> Node:
    _known(index)
    base = _node_of(b, x)
    return put(b, base, places_of(base.shape).index_select(dim, index), _node_of(b, values))


def _node_of(b: Builder, x: Any) -> Node:
    return constant_of(b, x) if isinstance(x, torch.Tensor) else b.node(x)


def _known(index: Any) -> None:
    if not isinstance(index, torch.Tensor):
        raise Unsupported("takes an index that is known when the field is traced")


def _known_all(indices: Sequence[Any]) -> tuple[Any, ...]:
    for index in indices:
        if index is not None:
            _known(index)
    return tuple(slice(None) if index is None else index for index in indices)


# What derivatives of views put back


@lowers("slice_backward")
def _slice_backward(
    b: Builder, g: Node, shape: Shape, dim: int, start: int, stop: int, step: int
) -> Node:
    index = [slice(None)] * len(shape)
    index[dim] = slice(start, stop, step)
    return _put_back(b, g, shape, places_of(shape)[tuple(index)])


@lowers("select_backward")
def _select_backward(b: Builder, g: Node, shape: Shape, dim: int, index: int) -> Node:
    dim %= len(shape)
    index %= shape[dim]
    wide = b.unsqueeze(g, dim)
    after = filled(b, wide, dim, shape[dim] - 1 - index)
    return b.cat((filled(b, wide, dim, index), wide, after), dim)


@lowers("diagonal_backward")
def _diagonal_backward(
    b: Builder, g: Node, shape: Shape, offset: int, dim1: int, dim2: int
) -> Node:
    return _put_back(b, g, shape, places_of(shape).diagonal(offset, dim1, dim2))


@lowers("unfold_backward")
def _unfold_backward(b: Builder, g: Node, shape: Shape, dim: int, size: int, step: int) -> Node:
    places = places_of(shape).unfold(dim, size, step)
    return put(b, b.constant(0.0, tuple(shape)), places, g, accumulate=True)


def _put_back(b: Builder, g: Node, shape: Sequence[int], places: Places) -> Node:
    source = [-1] * prod(shape)
    for i, place in enumerate(places.reshape(-1).tolist()):
        source[place] = i
    return b.gather(g, source, tuple(shape))


@lowers("slice_scatter")
def _slice_scatter(
    b: Builder,
    x: Node,
    values: Node,
    dim: int = 0,
    start: int | None = None,
    stop: int | None = None,
    step: int = 1,
) -> Node:
    index = [slice(None)] * len(x.shape)
    index[dim] = slice(start, stop, step)
    return put(b, x, places_of(x.shape)[tuple(index)], values)


@lowers("select_scatter")
def _select_scatter(b: Builder, x: Node, values: Node, dim: int, index: int) -> Node:
    return put(b, x, places_of(x.shape).select(dim, index), values)


@lowers("diagonal_scatter")
def _diagonal_scatter(
    b: Builder, x: Node, values: Node, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Node:
    return put(b, x, places_of(x.shape).diagonal(offset, dim1, dim2), values)


@lowers("as_strided")
def as_strided(b: Builder, x: Node, size: Shape, stride: Shape, offset: int | None = None) -> Node:
    """Elements of an array that lies in one piece of memory, at strides."""
    start = offset or 0
    places = [
        start + sum(i * s for i, s in zip(index, stride, strict=True))
        for index in product(*(range(n) for n in size))
    ]
    return b.gather(x, places, tuple(size))
