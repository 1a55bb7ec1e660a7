"""Rules that make one operation simpler: views, concatenations, reductions, products of matrices.

Views cost nothing where they are read in place; they are brought together, and out of the way of
what could be joined.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

from odeum.compile.build import Builder
from odeum.compile.ir import Node, Shape
from odeum.compile.simplify import Rule, is_zero
from odeum.compile.verify import slice_length


def _reshape(node: Node, b: Builder) -> Node | None:
    (x,) = node.inputs
    if x.shape == node.shape:
        return x
    if x.op == "reshape":
        return b.reshape(x.inputs[0], node.shape)
    if x.op == "constant" and not isinstance(x.attributes["value"], tuple):
        return b.constant(x.attributes["value"], node.shape)
    if x.op == "cat" and any(part.op == "reshape" for part in x.inputs):
        return _cat_under_reshape(node, x, b)
    return None


def _cat_under_reshape(node: Node, cat: Node, b: Builder) -> Node | None:
    """Parts are reshaped instead, where that takes or adds axes of length 1."""
    long = [d for d, n in enumerate(cat.shape) if n != 1]
    kept = [d for d, n in enumerate(node.shape) if n != 1]
    along = cat.attributes["dim"]
    if along not in long or [cat.shape[d] for d in long] != [node.shape[d] for d in kept]:
        return None
    dim = kept[long.index(along)]
    before, after = node.shape[:dim], node.shape[dim + 1 :]
    parts = [b.reshape(x, (*before, x.shape[along], *after)) for x in cat.inputs]
    return b.cat(parts, dim)


def _expand(node: Node, b: Builder) -> Node | None:
    (x,) = node.inputs
    if x.shape == node.shape:
        return x
    if x.op == "expand":
        return b.expand(x.inputs[0], node.shape)
    if x.op == "constant" and not isinstance(x.attributes["value"], tuple):
        return b.constant(x.attributes["value"], node.shape)
    return None


def _permute(node: Node, b: Builder) -> Node | None:
    (x,) = node.inputs
    dims = node.attributes["dims"]
    if dims == tuple(range(len(dims))):
        return x
    if x.op == "permute":
        first = x.attributes["dims"]
        return b.permute(x.inputs[0], [first[d] for d in dims])
    moved = [d for d in dims if x.shape[d] != 1]
    if moved == sorted(moved):
        return b.reshape(x, node.shape)
    if x.op == "constant" and not isinstance(x.attributes["value"], tuple):
        return b.constant(x.attributes["value"], node.shape)
    if x.op == "matmul":
        return _turned_product(x, dims, b)
    return None


def _turned_product(product: Node, dims: tuple[int, ...], b: Builder) -> Node | None:
    rank = len(dims)
    if dims != (*range(rank - 2), rank - 1, rank - 2):
        return None
    left, right = (b.transpose(x, -2, -1) for x in product.inputs)
    return b("matmul", right, left)


def _slice(node: Node, b: Builder) -> Node | None:
    (x,) = node.inputs
    dim, start, stop, step = _bounds(node)
    if node.shape == x.shape and step == 1:
        return x
    if x.op == "constant" and not isinstance(x.attributes["value"], tuple):
        return b.constant(x.attributes["value"], node.shape)
    if x.op == "slice" and x.attributes["dim"] == dim:
        _, first, _, inner = _bounds(x)
        n = slice_length(start, stop, step)
        return _run(x.inputs[0], dim, first + start * inner, n, step * inner, b)
    if x.op == "cat" and x.attributes["dim"] == dim:
        return _slice_of_parts(x, dim, start, stop, step, b)
    if x.op == "reshape":
        return _slice_under_reshape(node, x, b)
    if x.op == "expand" and len(x.shape) == len(x.inputs[0].shape):
        (inside,) = x.inputs
        if inside.shape[dim] == 1:
            return b.expand(inside, node.shape)
        return b.expand(b.slice(inside, dim, start, stop, step), node.shape)
    return None


def _bounds(node: Node) -> tuple[int, int, int, int]:
    dim, start, stop, step = (node.attributes[key] for key in ("dim", "start", "stop", "step"))
    return dim, start, stop, step


def _run(x: Node, dim: int, start: int, length: int, step: int, b: Builder) -> Node:
    last = start + (length - 1) * step
    return b.slice(x, dim, start, last + (1 if step > 0 else -1), step)


def _slice_of_parts(
    cat: Node, dim: int, start: int, stop: int, step: int, b: Builder
) -> Node | None:
    """A slice of a concatenation, of the parts that it touches alone."""
    places = range(start, stop, step)
    low, high = min(places), max(places) + 1
    touched: list[Node] = []
    first = 0
    ends = [0, *accumulate(x.shape[dim] for x in cat.inputs)]
    for part, (begin, end) in zip(cat.inputs, pairwise(ends), strict=True):
        if begin < high and end > low:
            first = first if touched else begin
            touched.append(part)
    if len(touched) > 1 and step == 1:
        return b.cat(
            [
                _part(cat, dim, max(start, e), min(stop, f), b)
                for e, f in pairwise(ends)
                if max(start, e) < min(stop, f)
            ],
            dim,
        )
    if len(touched) == len(cat.inputs) and len(touched) > 1:
        return None
    rest = b.cat(touched, dim)
    return _run(rest, dim, start - first, len(places), step, b)


def _slice_under_reshape(node: Node, reshape: Node, b: Builder) -> Node | None:
    """Where axes of length 1 are all that a reshape adds or leaves out, it comes last."""
    (x,) = reshape.inputs
    dim, start, stop, step = _bounds(node)
    long = [d for d, n in enumerate(reshape.shape) if n != 1]
    inner = [d for d, n in enumerate(x.shape) if n != 1]
    if [reshape.shape[d] for d in long] != [x.shape[d] for d in inner] or dim not in long:
        return None
    part = b.slice(x, inner[long.index(dim)], start, stop, step)
    return b.reshape(part, node.shape)


def _cat(node: Node, b: Builder) -> Node | None:
    dim = node.attributes["dim"]
    parts: list[Node] = []
    for x in node.inputs:
        nested = x.op == "cat" and x.attributes["dim"] == dim
        for part in x.inputs if nested else (x,):
            joined = _joined(parts[-1], part, dim, b) if parts else None
            if joined is None:
                parts.append(part)
            else:
                parts[-1] = joined
    if len(parts) == len(node.inputs):
        return None
    return b.cat(parts, dim)


def _joined(x: Node, y: Node, dim: int, b: Builder) -> Node | None:
    """Two parts of a concatenation as one."""
    shape = (*x.shape[:dim], x.shape[dim] + y.shape[dim], *x.shape[dim + 1 :])
    values = [part.attributes["value"] for part in (x, y) if part.op == "constant"]
    if len(values) == 2:
        if values[0] == values[1] and not isinstance(values[0], tuple):
            return b.constant(values[0], shape)
        return None
    if x.op != "slice" or y.op != "slice" or x.inputs != y.inputs:
        return None
    if x.attributes["dim"] != dim or y.attributes["dim"] != dim:
        return None
    (_, start, _, step), (_, then, _, other) = _bounds(x), _bounds(y)
    n, m = x.shape[dim], y.shape[dim]
    # A single element may belong to a run of any step.
    step = then - start if n == 1 else step
    other = step if m == 1 else other
    if step == 0 or step != other or start + n * step != then:
        return None
    return _run(x.inputs[0], dim, start, n + m, step, b)


def _sum(node: Node, b: Builder) -> Node | None:
    (x,) = node.inputs
    dims: Sequence[int] = node.attributes["dims"]
    if all(x.shape[d] == 1 for d in dims):
        return b.reshape(x, node.shape)
    if any(x.shape[d] == 1 for d in dims):
        kept = [d for d in range(len(x.shape)) if d not in dims or x.shape[d] != 1]
        rest = b.reshape(x, [x.shape[d] for d in kept])
        return b("sum", rest, dims=tuple(i for i, d in enumerate(kept) if d in dims))
    if x.op == "sum":
        left = [d for d in range(len(x.inputs[0].shape)) if d not in x.attributes["dims"]]
        both = {*x.attributes["dims"], *(left[d] for d in dims)}
        return b("sum", x.inputs[0], dims=tuple(sorted(both)))
    if x.op == "neg":
        return b.neg(b("sum", x.inputs[0], dims=dims))
    if x.op == "expand":
        return _sum_of_expanded(node, x, dims, b)
    return None


def _sum_of_expanded(node: Node, x: Node, dims: Sequence[int], b: Builder) -> Node | None:
    (inner,) = x.inputs
    lead = len(x.shape) - len(inner.shape)
    inner = b.reshape(inner, (1,) * lead + inner.shape)
    repeated = [d for d in dims if inner.shape[d] == 1]
    if not repeated:
        return None
    n = 1
    for d in repeated:
        n *= x.shape[d]
    kept = [1 if d in repeated else length for d, length in enumerate(x.shape)]
    return b("sum", b.mul(b.expand(inner, kept), float(n)), dims=tuple(dims))


def _matmul(node: Node, b: Builder) -> Node | None:
    left, right = node.inputs
    batch: Shape = node.shape[:-2]
    n = node.shape[-1]
    if not batch:
        return right if _is_identity(left) else left if _is_identity(right) else None
    if all(length == 1 for length in batch):
        flat = (b.reshape(x, x.shape[-2:]) for x in node.inputs)
        return b.reshape(b("matmul", *flat), node.shape)
    # One matrix for the whole batch: rows of the other are multiplied by it all at once.
    shared = _shared(right, b)
    if shared is not None:
        rows = b.reshape(left, (-1, left.shape[-1]))
        return b.reshape(b("matmul", rows, shared), node.shape)
    shared = _shared(left, b)
    if shared is not None and n == 1:
        rows = b.reshape(right, (-1, right.shape[-2]))
        return b.reshape(b("matmul", rows, b.transpose(shared, 0, 1)), node.shape)
    return None


def _is_identity(x: Node) -> bool:
    """Whether a matrix is known to be 1 on the diagonal, 0 elsewhere."""
    value = x.attributes["value"] if x.op == "constant" else None
    if not isinstance(value, tuple) or x.shape[0] != x.shape[1]:
        return x.shape == (1, 1) and value == 1.0
    return all(v == float(i == j) for i, row in enumerate(value) for j, v in enumerate(row))


def _shared(x: Node, b: Builder) -> Node | None:
    """The matrix that an array repeats, if it does."""
    if x.op == "permute" and x.inputs[0].op == "expand":
        dims, (inside,) = x.attributes["dims"], x.inputs
        rank = len(dims)
        if dims == (*range(rank - 2), rank - 1, rank - 2):
            matrix = _shared(inside, b)
            return None if matrix is None else b.transpose(matrix, 0, 1)
    if x.op != "expand":
        return None
    inner = x.inputs[0]
    if inner.shape[-2:] != x.shape[-2:] or inner.size != x.shape[-1] * x.shape[-2]:
        return None
    return b.reshape(inner, inner.shape[-2:])


def _add_of_parts(node: Node, b: Builder) -> Node | None:
    """Sums of arrays that are zero where the other is not: what derivatives of slices leave."""
    x, y = node.inputs
    if x.op != "cat" or y.op != "cat" or x.shape != y.shape:
        return None
    dim = x.attributes["dim"]
    if y.attributes["dim"] != dim:
        return None
    cuts = sorted({*_ends(x, dim), *_ends(y, dim)})
    parts: list[Node] = []
    for start, stop in pairwise((0, *cuts)):
        p, q = (_part(z, dim, start, stop, b) for z in (x, y))
        if is_zero(p):
            parts.append(q)
        elif is_zero(q):
            parts.append(p)
        elif cuts == _ends(x, dim) == _ends(y, dim):
            parts.append(b.add(p, q))
        else:
            return None
    return b.cat(parts, dim)


def _ends(cat: Node, dim: int) -> list[int]:
    return list(accumulate(part.shape[dim] for part in cat.inputs))


def _part(cat: Node, dim: int, start: int, stop: int, b: Builder) -> Node:
    begin = 0
    for x in cat.inputs:
        end = begin + x.shape[dim]
        if start < end:
            part: Any = b.slice(x, dim, start - begin, stop - begin)
            if is_zero(x):
                return b.constant(0.0, part.shape)
            return part
        begin = end
    raise AssertionError("beyond the end")


REARRANGING: dict[str, tuple[Rule, ...]] = {
    "reshape": (_reshape,),
    "expand": (_expand,),
    "permute": (_permute,),
    "slice": (_slice,),
    "cat": (_cat,),
    "sum": (_sum,),
    "matmul": (_matmul,),
    "add": (_add_of_parts,),
}
