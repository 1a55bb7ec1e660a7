"""Pointwise operations, and the derivatives of activations that fields take by themselves.

Comparisons are written such that NaN stays NaN, and such that the derivative is torch's where two
branches meet.
"""

import math
from typing import Any

from odeum.compile.build import Builder, Operand
from odeum.compile.ir import Node
from odeum.compile.lowering.table import RULES, Unsupported, lowers, number

SAME = (
    "neg abs sign exp expm1 log log1p sqrt rsqrt reciprocal sin cos tan tanh sigmoid erf asin acos "
    "atan sinh cosh floor ceil trunc maximum minimum atan2"
)
"""Operations that nodes have under the same name."""


def _same(name: str) -> None:
    @lowers(name)
    def rule(b: Builder, *operands: Operand) -> Node:
        return b(name, *operands)


for _name in SAME.split():
    _same(_name)
RULES["sgn"] = RULES["sign"]
RULES["absolute"] = RULES["abs"]


def number_of(b: Builder, x: Operand) -> Node:
    """A number, 1 and 0 for a boolean."""
    node = b.node(x)
    return b("to_float", node) if node.boolean else node


@lowers("add")
def _add(b: Builder, x: Operand, y: Operand, *, alpha: float = 1) -> Node:
    x, y = number_of(b, x), number_of(b, y)
    return b.add(x, y if alpha == 1 else b.mul(y, alpha))


@lowers("sub")
def _sub(b: Builder, x: Operand, y: Operand, *, alpha: float = 1) -> Node:
    x, y = number_of(b, x), number_of(b, y)
    return b.sub(x, y if alpha == 1 else b.mul(y, alpha))


@lowers("rsub")
def _rsub(b: Builder, x: Operand, y: Operand, alpha: float = 1) -> Node:
    return _sub(b, y, x, alpha=alpha)


@lowers("mul")
def _mul(b: Builder, x: Operand, y: Operand) -> Node:
    return b.mul(number_of(b, x), number_of(b, y))


@lowers("div", "true_divide")
def _div(b: Builder, x: Operand, y: Operand, *, rounding_mode: str | None = None) -> Node:
    quotient = b.div(number_of(b, x), number_of(b, y))
    if rounding_mode is None:
        return quotient
    return b("floor" if rounding_mode == "floor" else "trunc", quotient)


@lowers("floor_divide")
def _floor_divide(b: Builder, x: Operand, y: Operand) -> Node:
    return b("floor", b.div(x, y))


@lowers("remainder")
def _remainder(b: Builder, x: Operand, y: Operand) -> Node:
    return b.sub(x, b.mul(b("floor", b.div(x, y)), y))


@lowers("fmod")
def _fmod(b: Builder, x: Operand, y: Operand) -> Node:
    return b.sub(x, b.mul(b("trunc", b.div(x, y)), y))


@lowers("round")
def _round(b: Builder, x: Node, *, decimals: int = 0) -> Node:
    if decimals:
        raise Unsupported("rounds to decimals")
    return b("round", x)


@lowers("frac")
def _frac(b: Builder, x: Node) -> Node:
    return b.sub(x, b("trunc", x))


@lowers("square")
def _square(b: Builder, x: Node) -> Node:
    return b.mul(x, x)


@lowers("pow")
def power(b: Builder, x: Operand, exponent: Operand) -> Node:
    """Small whole and half exponents are products and roots."""
    if isinstance(exponent, Node) and (exponent.op != "constant" or exponent.size != 1):
        return b("pow", x, exponent)
    n, node = float(number(exponent, "an exponent")), b.node(x)
    if isinstance(exponent, Node) and len(exponent.shape) > len(node.shape):
        node = b.expand(node, exponent.shape)
    if n < 0 and abs(n) <= 4 and n != -0.5 and (2 * n).is_integer():
        return b("reciprocal", power(b, node, -n))
    if n == 0:
        return b.constant(1.0, node.shape)
    if n == 1:
        return node
    if n == 0.5:
        return b("sqrt", node)
    if n == -0.5:
        return b("rsqrt", node)
    if n in (1.5, 2.5, 3.5):
        return b.mul(power(b, node, n - 0.5), b("sqrt", node))
    if n.is_integer() and 0 < n <= 16:
        half = power(b, node, n // 2)
        square = b.mul(half, half)
        return b.mul(square, node) if n % 2 else square
    return b("pow", node, n)


@lowers("exp2")
def _exp2(b: Builder, x: Node) -> Node:
    return b("exp", b.mul(x, math.log(2)))


@lowers("log2")
def _log2(b: Builder, x: Node) -> Node:
    return b.mul(b("log", x), 1 / math.log(2))


@lowers("log10")
def _log10(b: Builder, x: Node) -> Node:
    return b.mul(b("log", x), 1 / math.log(10))


@lowers("erfc")
def _erfc(b: Builder, x: Node) -> Node:
    return b.sub(1, b("erf", x))


@lowers("asinh")
def _asinh(b: Builder, x: Node) -> Node:
    # Odd, and accurate near 0: sign(x) log1p(|x| + x^2 / (1 + sqrt(1 + x^2))).
    size, square = b("abs", x), b.mul(x, x)
    root = b("sqrt", b.add(1, square))
    value = b("log1p", b.add(size, b.div(square, b.add(1, root))))
    return b.where(b("lt", x, 0), b.neg(value), value)


@lowers("acosh")
def _acosh(b: Builder, x: Node) -> Node:
    return b("log", b.add(x, b("sqrt", b.sub(b.mul(x, x), 1))))


@lowers("atanh")
def _atanh(b: Builder, x: Node) -> Node:
    return b.mul(0.5, b.sub(b("log1p", x), b("log1p", b.neg(x))))


@lowers("logaddexp")
def _logaddexp(b: Builder, x: Node, y: Node) -> Node:
    largest = b("stop", b("maximum", x, y))
    total = b.add(b("exp", b.sub(x, largest)), b("exp", b.sub(y, largest)))
    return b.add(largest, b("log", total))


@lowers("addcmul")
def _addcmul(b: Builder, x: Operand, p: Operand, q: Operand, *, value: float = 1) -> Node:
    return _add(b, x, b.mul(p, q), alpha=value)


@lowers("addcdiv")
def _addcdiv(b: Builder, x: Operand, p: Operand, q: Operand, *, value: float = 1) -> Node:
    return _add(b, x, b.div(p, q), alpha=value)


@lowers("lerp")
def _lerp(b: Builder, start: Node, end: Node, weight: Operand) -> Node:
    return b.add(start, b.mul(weight, b.sub(end, start)))


@lowers("hypot")
def _hypot(b: Builder, x: Node, y: Node) -> Node:
    return b("sqrt", b.add(b.mul(x, x), b.mul(y, y)))


# Choices


def _comparison(name: str) -> None:
    @lowers(name)
    def rule(b: Builder, x: Operand, y: Operand) -> Node:
        return b(name, number_of(b, x), number_of(b, y))


for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    _comparison(_name)


def truth_of(b: Builder, x: Operand) -> Node:
    """A boolean, of a number whether it is not 0."""
    node = b.node(x)
    return node if node.boolean else b("ne", node, 0)


def _logical(op: str, *names: str) -> None:
    @lowers(*names)
    def rule(b: Builder, *operands: Operand) -> Node:
        return b(op, *(truth_of(b, x) for x in operands))


_logical("and", "logical_and", "bitwise_and", "__and__")
_logical("or", "logical_or", "bitwise_or", "__or__")
_logical("not", "logical_not", "bitwise_not")


@lowers("logical_xor", "bitwise_xor", "__xor__")
def _xor(b: Builder, x: Operand, y: Operand) -> Node:
    x, y = truth_of(b, x), truth_of(b, y)
    return b("and", b("or", x, y), b("not", b("and", x, y)))


@lowers("isnan")
def _isnan(b: Builder, x: Node) -> Node:
    return b("ne", x, x)


@lowers("isinf")
def _isinf(b: Builder, x: Node) -> Node:
    return b("eq", b("abs", x), math.inf)


@lowers("isfinite")
def _isfinite(b: Builder, x: Node) -> Node:
    return b("lt", b("abs", x), math.inf)


@lowers("where")
def _where(b: Builder, condition: Node, x: Operand, y: Operand) -> Node:
    x, y = b.node(x), b.node(y)
    if x.boolean and y.boolean:
        return b("or", b("and", condition, x), b("and", b("not", condition), y))
    return b.where(truth_of(b, condition), number_of(b, x), number_of(b, y))


@lowers("masked_fill")
def _masked_fill(b: Builder, x: Node, mask: Node, value: Operand) -> Node:
    return _where(b, mask, value, x)


@lowers("clamp", "clip")
def _clamp(b: Builder, x: Node, low: Operand | None = None, high: Operand | None = None) -> Node:
    if high is not None:
        x = b.where(b("gt", x, high), high, x)
    return x if low is None else b.where(b("lt", x, low), low, x)


@lowers("clamp_min")
def _clamp_min(b: Builder, x: Node, low: Operand) -> Node:
    return _clamp(b, x, low)


@lowers("clamp_max")
def _clamp_max(b: Builder, x: Node, high: Operand) -> Node:
    return _clamp(b, x, None, high)


@lowers("fmin")
def _fmin(b: Builder, x: Node, y: Node) -> Node:
    return b.where(b("or", b("le", x, y), b("ne", y, y)), x, y)


@lowers("fmax")
def _fmax(b: Builder, x: Node, y: Node) -> Node:
    return b.where(b("or", b("ge", x, y), b("ne", y, y)), x, y)


@lowers("nan_to_num")
def _nan_to_num(
    b: Builder, x: Node, nan: float | None = None, high: Any = None, low: Any = None
) -> Node:
    if high is None or low is None:
        raise Unsupported("takes posinf and neginf as numbers")
    finite = _clamp(b, x, low, high)
    infinite = b("eq", b("abs", x), math.inf)
    return b.where(b("ne", x, x), nan or 0.0, b.where(infinite, finite, x))


@lowers("heaviside")
def _heaviside(b: Builder, x: Node, at_zero: Node) -> Node:
    step = b.where(b("lt", x, 0), 0, b.where(b("gt", x, 0), 1, at_zero))
    return b.where(b("ne", x, x), x, step)


@lowers("xlogy")
def _xlogy(b: Builder, x: Operand, y: Operand) -> Node:
    zero = b("eq", x, 0)
    return b.where(zero, 0, b.mul(x, b("log", b.where(zero, 1, y))))
