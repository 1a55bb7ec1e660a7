"""Products of matrices and vectors, small linear systems and determinants, attention in a row."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from odeum.compile.build import Builder, Operand
from odeum.compile.ir import Node
from odeum.compile.lowering.reductions import softmax, total
from odeum.compile.lowering.table import Unsupported, lowers
from odeum.compile.verify import broadcast

LARGEST_DETERMINANT = 4


@dataclass(frozen=True)
class Factored:
    """Stands for the factors of a matrix: solving with them is solving with it."""

    matrix: Node


@lowers("mm", "bmm")
def _mm(b: Builder, x: Node, y: Node) -> Node:
    return b("matmul", x, y)


@lowers("mv")
def _mv(b: Builder, x: Node, y: Node) -> Node:
    return b.reshape(b("matmul", x, b.unsqueeze(y, 1)), (-1,))


@lowers("dot", "vdot")
def _dot(b: Builder, x: Node, y: Node) -> Node:
    return total(b, b.mul(x, y))


@lowers("outer", "ger")
def _outer(b: Builder, x: Node, y: Node) -> Node:
    return b.mul(b.unsqueeze(x, 1), y)


def _plus(b: Builder, x: Operand, product: Node, beta: float, alpha: float) -> Node:
    scaled = product if alpha == 1 else b.mul(product, alpha)
    return scaled if beta == 0 else b.add(scaled, x if beta == 1 else b.mul(x, beta))


@lowers("addmm", "baddbmm")
def _addmm(b: Builder, x: Node, p: Node, q: Node, *, beta: float = 1, alpha: float = 1) -> Node:
    return _plus(b, x, b("matmul", p, q), beta, alpha)


@lowers("addmv")
def _addmv(b: Builder, x: Node, p: Node, q: Node, *, beta: float = 1, alpha: float = 1) -> Node:
    return _plus(b, x, _mv(b, p, q), beta, alpha)


@lowers("addr")
def _addr(b: Builder, x: Node, p: Node, q: Node, *, beta: float = 1, alpha: float = 1) -> Node:
    return _plus(b, x, _outer(b, p, q), beta, alpha)


@lowers("addbmm")
def _addbmm(b: Builder, x: Node, p: Node, q: Node, *, beta: float = 1, alpha: float = 1) -> Node:
    return _plus(b, x, total(b, b("matmul", p, q), 0), beta, alpha)


@lowers("_trilinear")
def _trilinear(
    b: Builder,
    x: Node,
    y: Node,
    z: Node,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll_dim: int = 1,
) -> Node:
    parts = []
    for part, dims in ((x, expand1), (y, expand2), (z, expand3)):
        for dim in dims:
            part = b.unsqueeze(part, dim)
        parts.append(part)
    # Contracted where that is a product of matrices, as in a bilinear layer: nothing of the size
    # of all three together is laid out.
    product = b.mul(b.mul(parts[0], parts[1]), parts[2])
    return b.reduce("sum", product, sumdim) if sumdim else product


@lowers("linalg_cross")
def _cross(b: Builder, x: Node, y: Node, *, dim: int = -1) -> Node:
    p = [b.select(x, dim, i) for i in range(3)]
    q = [b.select(y, dim, i) for i in range(3)]
    parts = [b.sub(b.mul(p[i], q[j]), b.mul(p[j], q[i])) for i, j in ((1, 2), (2, 0), (0, 1))]
    axis = dim % max(len(x.shape), len(y.shape))
    return b.cat([b.unsqueeze(part, axis) for part in parts], axis)


# Linear systems


def _solved(b: Builder, matrix: Node, right: Node) -> Node:
    batch, other = matrix.shape[:-2], right.shape[:-2]
    if batch != other:
        lead = broadcast(batch, other)
        matrix = b.expand(matrix, (*lead, *matrix.shape[-2:]))
        right = b.expand(right, (*lead, *right.shape[-2:]))
    return b("solve", matrix, right)


@lowers("_linalg_solve_ex")
def _linalg_solve(
    b: Builder, matrix: Node, right: Node, *, left: bool = True, check_errors: bool = False
) -> tuple[Any, ...]:
    factors = Factored(matrix)
    vector = len(right.shape) == 1 or right.shape == matrix.shape[:-1]
    if vector:
        if not left:
            raise Unsupported("solves from the right for a vector")
        value = _solved(b, matrix, b.unsqueeze(right, -1))
        return b.reshape(value, value.shape[:-1]), factors, None, None
    return linear_solve(b, factors, None, right, left=left), factors, None, None


@lowers("linalg_lu_solve")
def linear_solve(
    b: Builder,
    factors: Any,
    pivots: Any,
    right: Node,
    *,
    left: bool = True,
    adjoint: bool = False,
) -> Node:
    """Solves with the matrix behind factors, or its transpose, from the left or the right."""
    if not isinstance(factors, Factored):
        raise Unsupported("solves with factors of its own")
    matrix = factors.matrix
    if left:
        return _solved(b, b.transpose(matrix, -2, -1) if adjoint else matrix, right)
    turned = _solved(
        b, matrix if adjoint else b.transpose(matrix, -2, -1), b.transpose(right, -2, -1)
    )
    return b.transpose(turned, -2, -1)


@lowers("linalg_inv_ex")
def _inverse(b: Builder, matrix: Node, *, check_errors: bool = False) -> tuple[Any, ...]:
    n = matrix.shape[-1]
    eye = tuple(tuple(float(i == j) for j in range(n)) for i in range(n))
    return _solved(b, matrix, b.expand(b.constant(eye, (n, n)), matrix.shape)), None


@lowers("_linalg_check_errors")
def _check_errors(b: Builder, *_: Any, **__: Any) -> None:
    return None


@lowers("_linalg_det")
def _determinant(b: Builder, matrix: Node) -> tuple[Any, ...]:
    return determinant(b, matrix), Factored(matrix), None


def determinant(b: Builder, matrix: Node) -> Node:
    """The determinant of a small matrix, by its first row."""
    n = matrix.shape[-1]
    if n > LARGEST_DETERMINANT:
        raise Unsupported(f"takes matrices up to {LARGEST_DETERMINANT} x {LARGEST_DETERMINANT}")
    rows = [[b.select(b.select(matrix, -2, i), -1, j) for j in range(n)] for i in range(n)]
    return _minor(b, rows, 0, tuple(range(n)))


def _minor(b: Builder, rows: list[list[Node]], first: int, columns: tuple[int, ...]) -> Node:
    if len(columns) == 1:
        return rows[first][columns[0]]
    terms = []
    for i, column in enumerate(columns):
        rest = columns[:i] + columns[i + 1 :]
        term = b.mul(rows[first][column], _minor(b, rows, first + 1, rest))
        terms.append(b.neg(term) if i % 2 else term)
    return reduce(b.add, terms)


@lowers("_linalg_slogdet")
def _slogdet(b: Builder, matrix: Node) -> tuple[Any, ...]:
    value = determinant(b, matrix)
    return b("sign", value), b("log", b("abs", value)), Factored(matrix), None


# Attention over the features of a row


@lowers("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math")
def _attention(
    b: Builder,
    query: Node,
    key: Node,
    value: Node,
    *options: Any,
    attn_mask: Node | None = None,
    scale: float | None = None,
    **_: Any,
) -> tuple[Any, ...]:
    dropout, causal = (*options[-2:], 0.0, False)[:2] if options else (0.0, False)
    if dropout or causal:
        raise Unsupported("leaves parts of the attention out")
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = b.mul(b("matmul", query, b.transpose(key, -2, -1)), factor)
    if attn_mask is not None:
        if attn_mask.boolean:
            scores = b.where(attn_mask, scores, -math.inf)
        else:
            scores = b.add(scores, attn_mask)
    return b("matmul", softmax(b, scores, -1), value), None
