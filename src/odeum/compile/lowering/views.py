"""Views, copies, and whatever else only moves elements about.

Elements whose places are known when the field is traced are gathered by slices: an index that is
itself computed is refused.
"""

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import torch

from odeum.compile.build import Builder, Operand
from odeum.compile.ir import Node, Shape
from odeum.compile.lowering.pointwise import number_of
from odeum.compile.lowering.table import Unsupported, constant_of, lowers


@lowers(
    "alias", "detach", "lift_fresh", "lift", "clone", "contiguous", "positive", "resolve_conj",
    "resolve_neg", "view_as_real_copy", "_conj", "conj", "real", "lift_fresh_copy",
)  # fmt: skip
def _same(b: Builder, x: Node, **layout: Any) -> Node:
    return x


@lowers("_to_copy")
def _to_copy(b: Builder, x: Node, *, dtype: torch.dtype | None = None, **layout: Any) -> Node:
    if dtype is None:
        return x
    if dtype is torch.bool:
        return x if x.boolean else b("ne", x, 0)
    return number_of(b, x)


@lowers("view", "_unsafe_view", "reshape", "_reshape_alias", "view_copy", "_reshape_copy")
def _view(b: Builder, x: Node, shape: Sequence[int], stride: Any = None) -> Node:
    if isinstance(shape, torch.dtype):
        raise Unsupported("reads numbers as another dtype")
    return b.reshape(x, shape)


@lowers("flatten")
def _flatten(b: Builder, x: Node, start: int = 0, end: int = -1) -> Node:
    start, end = start % len(x.shape), end % len(x.shape)
    return b.reshape(x, (*x.shape[:start], -1, *x.shape[end + 1 :]))


@lowers("unsqueeze")
def _unsqueeze(b: Builder, x: Node, dim: int) -> Node:
    return b.unsqueeze(x, dim)


@lowers("squeeze")
def _squeeze(b: Builder, x: Node, dims: int | Sequence[int] | None = None) -> Node:
    rank = len(x.shape)
    if dims is None:
        over = set(range(rank))
    else:
        over = {d % rank for d in ((dims,) if isinstance(dims, int) else dims)} if rank else set()
    return b.reshape(x, [n for d, n in enumerate(x.shape) if d not in over or n != 1])


@lowers("expand", "broadcast_to")
def _expand(b: Builder, x: Node, shape: Sequence[int], *, implicit: bool = False) -> Node:
    return b.expand(x, shape)


@lowers("permute")
def _permute(b: Builder, x: Node, dims: Sequence[int]) -> Node:
    return b.permute(x, dims)


@lowers("t", "numpy_T", "mT")
def _t(b: Builder, x: Node) -> Node:
    return b.transpose(x, 0, -1) if len(x.shape) == 2 else x


@lowers("transpose", "swapaxes")
def _transpose(b: Builder, x: Node, first: int, second: int) -> Node:
    return b.transpose(x, first, second)


@lowers("select")
def _select(b: Builder, x: Node, dim: int, index: int) -> Node:
    return b.select(x, dim, index)


@lowers("slice")
def slice_of(
    b: Builder,
    x: Node,
    dim: int = 0,
    start: int | None = None,
    stop: int | None = None,
    step: int = 1,
) -> Node:
    """A slice with torch's bounds, which may be beyond the ends or counted from them."""
    dim %= len(x.shape)
    first, last, step = slice(start, stop, step).indices(x.shape[dim])
    n = len(range(first, last, step))
    return b.slice(x, dim, first, first + (n - 1) * step + 1 if n else first, step)


@lowers("narrow")
def _narrow(b: Builder, x: Node, dim: int, start: int, length: int) -> Node:
    return slice_of(b, x, dim, start, start + length)


@lowers("split_with_sizes", "unsafe_split_with_sizes")
def _split_with_sizes(b: Builder, x: Node, sizes: Sequence[int], dim: int = 0) -> tuple[Node, ...]:
    dim %= len(x.shape)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return tuple(b.slice(x, dim, end - n, end) for n, end in zip(sizes, ends, strict=True))


@lowers("split", "unsafe_split")
def _split(b: Builder, x: Node, size: int, dim: int = 0) -> tuple[Node, ...]:
    dim %= len(x.shape)
    n = x.shape[dim]
    return tuple(b.slice(x, dim, i, min(i + size, n)) for i in range(0, n, size))


@lowers("chunk", "unsafe_chunk")
def _chunk(b: Builder, x: Node, chunks: int, dim: int = 0) -> tuple[Node, ...]:
    return _split(b, x, -(-x.shape[dim] // chunks), dim)


@lowers("unbind")
def _unbind(b: Builder, x: Node, dim: int = 0) -> tuple[Node, ...]:
    return tuple(b.select(x, dim, i) for i in range(x.shape[dim]))


@lowers("cat", "concat", "concatenate")
def _cat(b: Builder, parts: Sequence[Operand], dim: int = 0) -> Node:
    nodes = [x for x in map(b.node, parts) if x.shape != (0,)]
    if not all(x.boolean for x in nodes):
        nodes = [number_of(b, x) for x in nodes]
    return b.cat(nodes, dim)


@lowers("stack")
def _stack(b: Builder, parts: Sequence[Operand], dim: int = 0) -> Node:
    return _cat(b, [b.unsqueeze(b.node(x), dim) for x in parts], dim)


@lowers("flip")
def _flip(b: Builder, x: Node, dims: Sequence[int]) -> Node:
    for dim in dims:
        n = x.shape[dim]
        x = b.slice(x, dim % len(x.shape), n - 1, -1, -1) if n > 1 else x
    return x


@lowers("roll")
def _roll(b: Builder, x: Node, shifts: Sequence[int], dims: Sequence[int] = ()) -> Node:
    shifts = [shifts] if isinstance(shifts, int) else shifts
    if not dims:
        return b.reshape(_roll(b, b.reshape(x, (x.size,)), shifts, (0,)), x.shape)
    for shift, d in zip(shifts, (dims,) if isinstance(dims, int) else dims, strict=True):
        dim = d % len(x.shape)
        cut = -shift % x.shape[dim]
        if cut:
            x = b.cat((b.slice(x, dim, cut, x.shape[dim]), b.slice(x, dim, 0, cut)), dim)
    return x


@lowers("repeat")
def _repeat(b: Builder, x: Node, repeats: Sequence[int]) -> Node:
    lead = len(repeats) - len(x.shape)
    shape = (1,) * lead + x.shape
    doubled = b.reshape(x, [n for length in shape for n in (1, length)])
    wide = b.expand(doubled, [m for r, n in zip(repeats, shape, strict=True) for m in (r, n)])
    return b.reshape(wide, [r * n for r, n in zip(repeats, shape, strict=True)])


@lowers("constant_pad_nd")
def _pad(b: Builder, x: Node, pad: Sequence[int], value: float = 0) -> Node:
    for i in range(0, len(pad), 2):
        dim, (before, after) = len(x.shape) - 1 - i // 2, pad[i : i + 2]
        n = x.shape[dim]
        x = b.slice(x, dim, max(-before, 0), n - max(-after, 0))
        x = b.cat([_filled(b, x, dim, before, value), x, _filled(b, x, dim, after, value)], dim)
    return x


def _filled(b: Builder, x: Node, dim: int, length: int, value: float = 0) -> Node:
    """A constant of the shape of another array but for one axis."""
    shape = (*x.shape[:dim], max(length, 0), *x.shape[dim + 1 :])
    return b.constant(value if length > 0 else (), shape)


# Elements at known places

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
    base = x if isinstance(x, Node) else constant_of(b, x)
    places = places_of(base.shape)[_known_all(indices)]
    new = values if isinstance(values, Node) else constant_of(b, values)
    return put(b, base, places, b.expand(new, tuple(places.shape)), accumulate)


@lowers("embedding", raw=True)
def _embedding(b: Builder, weight: Node, index: Any, *options: Any) -> Node:
    _known(index)
    return take(b, weight, places_of(weight.shape)[index])


@lowers("scatter", "scatter_add", "index_add", "index_copy", raw=True)
def _scatter(b: Builder, x: Any, dim: int, index: Any, *values: Any, **options: Any) -> Node:
    raise Unsupported("writes to places by an index along an axis")


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
    after = _filled(b, wide, dim, shape[dim] - 1 - index)
    return b.cat((_filled(b, wide, dim, index), wide, after), dim)


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
