"""Reductions, and what is made of them: means, norms, softmax, normalisation over features."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from odeum.compile.build import Builder, Operand
from odeum.compile.ir import Node
from odeum.compile.lowering.pointwise import number_of, truth_of
from odeum.compile.lowering.table import Unsupported, constant_of, lowers

Dims = int | Sequence[int] | None


def _dims(dims: Dims) -> Sequence[int] | None:
    return (dims,) if isinstance(dims, int) else dims


def total(b: Builder, x: Node, dims: Dims = None, keepdim: bool = False) -> Node:
    """The sum over some axes; over all where None are named."""
    return b.reduce("sum", number_of(b, x), _dims(dims), keepdim)


def _count(x: Node, dims: Dims) -> int:
    over = _dims(dims)
    return math.prod(x.shape[d] for d in over) if over else x.size


@lowers("sum")
def _sum(
    b: Builder, x: Node, dims: Dims = None, keepdim: bool = False, *, dtype: Any = None
) -> Node:
    return total(b, x, dims, keepdim)


@lowers("mean")
def mean(
    b: Builder, x: Node, dims: Dims = None, keepdim: bool = False, *, dtype: Any = None
) -> Node:
    """The mean over some axes."""
    return b.div(total(b, x, dims, keepdim), _count(x, dims))


@lowers("amax")
def _amax(b: Builder, x: Node, dims: Dims = None, keepdim: bool = False) -> Node:
    return b.reduce("amax", x, _dims(dims), keepdim)


@lowers("amin")
def _amin(b: Builder, x: Node, dims: Dims = None, keepdim: bool = False) -> Node:
    return b.reduce("amin", x, _dims(dims), keepdim)


@lowers("max")
def _max(b: Builder, x: Node, dim: Any = None, keepdim: bool = False) -> Any:
    if isinstance(dim, Node):
        return b("maximum", x, dim)
    largest = b.reduce("amax", x, _dims(dim), keepdim)
    return largest if dim is None else (largest, None)


@lowers("min")
def _min(b: Builder, x: Node, dim: Any = None, keepdim: bool = False) -> Any:
    if isinstance(dim, Node):
        return b("minimum", x, dim)
    smallest = b.reduce("amin", x, _dims(dim), keepdim)
    return smallest if dim is None else (smallest, None)


@lowers("any")
def _any(b: Builder, x: Node, dims: Dims = None, keepdim: bool = False) -> Node:
    truth = b("to_float", truth_of(b, x))
    return b("ne", b.reduce("amax", truth, _dims(dims), keepdim), 0)


@lowers("all")
def _all(b: Builder, x: Node, dims: Dims = None, keepdim: bool = False) -> Node:
    truth = b("to_float", truth_of(b, x))
    return b("ne", b.reduce("amin", truth, _dims(dims), keepdim), 0)


@lowers("prod")
def _prod(
    b: Builder, x: Node, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None
) -> Node:
    if dim is None:
        x, dim = b.reshape(x, (x.size,)), 0
    factors = [b.select(x, dim, i) for i in range(x.shape[dim])]
    while len(factors) > 1:  # pairwise, that the chain is short
        pairs = zip(factors[::2], factors[1::2], strict=False)
        odd = factors[-1:] if len(factors) % 2 else []
        factors = [b.mul(p, q) for p, q in pairs] + odd
    return b.unsqueeze(factors[0], dim) if keepdim else factors[0]


@lowers("cumsum")
def _cumsum(b: Builder, x: Node, dim: int, *, dtype: Any = None) -> Node:
    if not x.shape:
        return x
    places = [b.select(x, dim, i) for i in range(x.shape[dim])]
    for i in range(1, len(places)):
        places[i] = b.add(places[i - 1], places[i])
    return b.cat([b.unsqueeze(part, dim % len(x.shape)) for part in places], dim)


@lowers("var")
def variance(
    b: Builder, x: Node, dims: Any = None, keepdim: Any = None, *, correction: float = 1, **_: Any
) -> Node:
    """The variance over some axes."""
    if isinstance(dims, bool):  # var(x, unbiased)
        dims, correction = None, float(dims)
    kept = bool(keepdim)
    away = b.sub(x, mean(b, x, dims, True) if dims else mean(b, x))
    return b.div(total(b, b.mul(away, away), dims, kept), _count(x, dims) - correction)


@lowers("std")
def _std(
    b: Builder, x: Node, dims: Any = None, keepdim: Any = None, *, correction: float = 1
) -> Node:
    return b("sqrt", variance(b, x, dims, keepdim, correction=correction))


@lowers("var_mean")
def _var_mean(
    b: Builder, x: Node, dims: Any = None, keepdim: Any = None, *, correction: float = 1
) -> tuple[Node, Node]:
    kept = bool(keepdim)
    return variance(b, x, dims, kept, correction=correction), mean(b, x, dims, kept)


@lowers("linalg_vector_norm", "norm")
def norm(
    b: Builder, x: Node, order: float | None = 2, dims: Dims = None, keepdim: bool = False, **_: Any
) -> Node:
    """A vector norm over some axes, whose derivative at 0 is 0."""
    over = _dims(dims)
    if order in (None, 2):
        return _root(b, total(b, b.mul(x, x), dims, keepdim))
    size = b("abs", x)
    if order == 1:
        return total(b, size, dims, keepdim)
    if order in (math.inf, -math.inf):
        return b.reduce("amax" if order > 0 else "amin", size, over, keepdim)
    if order == 0:
        return total(b, b("ne", x, 0), dims, keepdim)
    return b("pow", total(b, b("pow", size, float(order)), dims, keepdim), 1 / float(order))


def _root(b: Builder, square: Node) -> Node:
    zero = b("eq", square, 0)
    return b.where(zero, 0, b("sqrt", b.where(zero, 1, square)))


@lowers("_cdist_forward", "_euclidean_dist")
def _cdist(b: Builder, x: Node, y: Node, order: float = 2, mode: Any = None) -> Node:
    return norm(b, b.sub(b.unsqueeze(x, -2), b.unsqueeze(y, -3)), order, -1)


# Softmax


@lowers("_softmax", "softmax", "_safe_softmax")
def softmax(b: Builder, x: Node, dim: int, *_: Any, **__: Any) -> Node:
    """Exponentials that add up to 1 along an axis."""
    shifted = b("exp", b.sub(x, b("stop", b.reduce("amax", x, (dim,), True))))
    return b.div(shifted, total(b, shifted, dim, True))


@lowers("_log_softmax", "log_softmax")
def _log_softmax(b: Builder, x: Node, dim: int, *_: Any, **__: Any) -> Node:
    shifted = b.sub(x, b("stop", b.reduce("amax", x, (dim,), True)))
    return b.sub(shifted, b("log", total(b, b("exp", shifted), dim, True)))


@lowers("logsumexp")
def _logsumexp(b: Builder, x: Node, dims: Dims, keepdim: bool = False) -> Node:
    largest = b("stop", b.reduce("amax", x, _dims(dims), True))
    sums = total(b, b("exp", b.sub(x, largest)), dims, keepdim)
    return b.add(b("log", sums), b.reshape(largest, sums.shape))


@lowers("_softmax_backward_data")
def _softmax_backward(b: Builder, g: Node, y: Node, dim: int, dtype: Any) -> Node:
    weighted = b.mul(g, y)
    return b.sub(weighted, b.mul(y, total(b, weighted, dim, True)))


@lowers("_log_softmax_backward_data")
def _log_softmax_backward(b: Builder, g: Node, y: Node, dim: int, dtype: Any) -> Node:
    return b.sub(g, b.mul(b("exp", y), total(b, g, dim, True)))


# Normalisation over the features of a row


def _standardised(b: Builder, x: Node, dims: Sequence[int], eps: float) -> tuple[Node, Node, Node]:
    """What is left of mean and scale; the mean; the reciprocal of the scale."""
    centre = mean(b, x, dims, True)
    away = b.sub(x, centre)
    scale = b("rsqrt", b.add(mean(b, b.mul(away, away), dims, True), eps))
    return b.mul(away, scale), centre, scale


def _affine(b: Builder, x: Node, weight: Operand | None, bias: Operand | None) -> Node:
    x = x if weight is None else b.mul(x, weight)
    return x if bias is None else b.add(x, bias)


@lowers("native_layer_norm")
def _layer_norm(
    b: Builder,
    x: Node,
    shape: Sequence[int],
    weight: Node | None,
    bias: Node | None,
    eps: float,
) -> tuple[Node, Node, Node]:
    dims = range(len(x.shape) - len(shape), len(x.shape))
    value, centre, scale = _standardised(b, x, dims, eps)
    return _affine(b, value, weight, bias), centre, scale


@lowers("native_layer_norm_backward")
def _layer_norm_backward(
    b: Builder,
    g: Node,
    x: Node,
    shape: Sequence[int],
    centre: Node,
    scale: Node,
    weight: Node | None,
    bias: Node | None,
    wanted: Sequence[bool],
) -> tuple[Node, Node | None, Node | None]:
    first = len(x.shape) - len(shape)
    inner, outer = tuple(range(first, len(x.shape))), tuple(range(first))
    value = b.mul(b.sub(x, centre), scale)
    inside = g if weight is None else b.mul(g, weight)
    along = b.mul(value, mean(b, b.mul(inside, value), inner, True))
    state = b.mul(scale, b.sub(b.sub(inside, mean(b, inside, inner, True)), along))
    product = b.mul(g, value)
    to_weight = b.reduce("sum", product, outer) if outer else product
    to_bias = b.reduce("sum", g, outer) if outer else g
    return state, None if weight is None else to_weight, None if bias is None else to_bias


@lowers("native_group_norm")
def _group_norm(
    b: Builder,
    x: Node,
    weight: Node | None,
    bias: Node | None,
    n: int,
    channels: int,
    rest: int,
    groups: int,
    eps: float,
) -> tuple[Node, Node, Node]:
    grouped = b.reshape(x, (n, groups, -1))
    grouped, centre, scale = _standardised(b, grouped, (2,), eps)
    value = b.reshape(grouped, x.shape)
    shape = (channels,) + (1,) * (len(x.shape) - 2)
    factors = [p if p is None else b.reshape(p, shape) for p in (weight, bias)]
    located, scaled = (b.reshape(p, (n, groups)) for p in (centre, scale))
    return _affine(b, value, *factors), located, scaled


@lowers("_fused_rms_norm")
def _rms_norm(
    b: Builder, x: Node, shape: Sequence[int], weight: Node | None, eps: float | None
) -> tuple[Node, Node]:
    dims = range(len(x.shape) - len(shape), len(x.shape))
    if eps is None:
        raise Unsupported("leaves eps to torch")
    scale = b("rsqrt", b.add(mean(b, b.mul(x, x), dims, True), eps))
    return _affine(b, b.mul(x, scale), weight, None), scale


@lowers(
    "native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit",
    "_batch_norm_no_update", "_batch_norm_with_update", raw=True,
)  # fmt: skip
def _batch_norm(
    b: Builder, x: Node, weight: Any, bias: Any, centre: Any, variance: Any, *options: Any
) -> tuple[Any, ...]:
    if options and options[0] is True:
        raise Unsupported("normalises over the rows of a batch, which mixes them")
    shape = (-1,) + (1,) * (len(x.shape) - 2)

    def along(p: Any) -> Node | None:
        if p is None:
            return None
        return b.reshape(constant_of(b, p) if isinstance(p, torch.Tensor) else p, shape)

    located, spread, eps = along(centre), along(variance), options[-1]
    if located is None or spread is None:
        raise Unsupported("normalises over the rows of a batch, which mixes them")
    value = b.mul(b.sub(x, located), b("rsqrt", b.add(spread, eps)))
    return _affine(b, value, along(weight), along(bias)), None, None, None, None
