"""Views, copies, and whatever else only moves whole parts of arrays about."""

from collections.abc import Sequence
from typing import Any

import torch

from odeum.compile.build import Builder, Operand, filled
from odeum.compile.ir import Node
from odeum.compile.lowering.pointwise import number_of
from odeum.compile.lowering.table import Unsupported, lowers


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
        x = b.cat([filled(b, x, dim, before, value), x, filled(b, x, dim, after, value)], dim)
    return x
