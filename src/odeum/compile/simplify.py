"""Rules that make one operation simpler: arithmetic.

Results differ by rounding at most; NaN stays NaN, and nothing times 0 is taken for 0. A rule sees
a node whose inputs are simple already.
"""

import math
from collections.abc import Callable

from odeum.compile.build import Builder
from odeum.compile.ir import BINARY, POINTWISE, UNARY, Node
from odeum.compile.verify import broadcast

Rule = Callable[[Node, Builder], Node | None]


def scalar(node: Node) -> float | None:
    """The number that all elements of a constant are; None for anything else."""
    value = node.attributes["value"] if node.op == "constant" and not node.boolean else None
    return value if isinstance(value, float) else None


def is_zero(node: Node) -> bool:
    """Whether all elements are the number 0."""
    return scalar(node) == 0.0


def _add(node: Node, b: Builder) -> Node | None:
    x, y = node.inputs
    if is_zero(y):
        return b.expand(x, node.shape)
    if is_zero(x):
        return b.expand(y, node.shape)
    if y.op == "neg":
        return b.sub(x, y.inputs[0])
    if x.op == "neg":
        return b.sub(y, x.inputs[0])
    return None


def _add_of_choices(node: Node, b: Builder) -> Node | None:
    """What is added where a condition holds and where it does not, is chosen."""
    x, y = node.inputs
    if x.op != "where" or y.op != "where" or x.inputs[0] is not y.inputs[0]:
        return None
    (condition, p, q), (_, r, s) = x.inputs, y.inputs
    for first, second in (((p, q), (r, s)), ((r, s), (p, q))):
        if is_zero(first[0]) and is_zero(second[1]):
            return _chosen(node, condition, second[0], first[1], b)
    return None


def _chosen(node: Node, condition: Node, x: Node, y: Node, b: Builder) -> Node | None:
    value = b.where(condition, x, y)
    return value if value.shape == node.shape else None


def _mul_of_choice(node: Node, b: Builder) -> Node | None:
    """Where a factor is chosen to be 0, so is the product: a branch not taken adds nothing."""
    for choice, factor in (node.inputs, node.inputs[::-1]):
        if choice.op != "where":
            continue
        condition, x, y = choice.inputs
        if is_zero(x):
            return _chosen(node, condition, x, b.mul(y, factor), b)
        if is_zero(y):
            return _chosen(node, condition, b.mul(x, factor), y, b)
    return None


def _sub(node: Node, b: Builder) -> Node | None:
    x, y = node.inputs
    if is_zero(y):
        return b.expand(x, node.shape)
    if is_zero(x):
        return b.expand(b.neg(y), node.shape)
    if y.op == "neg":
        return b.add(x, y.inputs[0])
    return None


def _mul(node: Node, b: Builder) -> Node | None:
    x, y = node.inputs
    for factor, other in ((x, y), (y, x)):
        number = scalar(factor)
        if number is None:
            continue
        if number == 1.0:
            return b.expand(other, node.shape)
        if number == -1.0:
            return b.expand(b.neg(other), node.shape)
        if other.op == "neg":
            return b.mul(other.inputs[0], b.constant(-number, factor.shape))
        if other.op == "mul":
            return _scaled_twice(factor, number, other, b)
    if x.op == "neg" and y.op == "neg":
        return b.mul(x.inputs[0], y.inputs[0])
    return None


def _scaled_twice(factor: Node, number: float, product: Node, b: Builder) -> Node | None:
    for inner, rest in (product.inputs, product.inputs[::-1]):
        value = scalar(inner)
        if value is not None and value * number != 0.0 and math.isfinite(value * number):
            shape = broadcast(factor.shape, inner.shape)
            return b.mul(rest, b.constant(value * number, shape))
    return None


def _div(node: Node, b: Builder) -> Node | None:
    x, y = node.inputs
    number = scalar(y)
    if number is not None and number != 0.0 and 1e-30 < abs(number) < 1e30:
        return b.mul(x, b.constant(1.0 / number, y.shape))
    if scalar(x) == 1.0:
        return b.expand(b("reciprocal", y), node.shape)
    return None


def _neg(node: Node, b: Builder) -> Node | None:
    (x,) = node.inputs
    if x.op == "neg":
        return x.inputs[0]
    if x.op == "sub":
        return b.sub(x.inputs[1], x.inputs[0])
    if x.op in ("reshape", "sum") and x.inputs[0].op == "neg":
        (inner,) = x.inputs[0].inputs
        return Node(x.op, (inner,), x.shape, x.attributes, False, x.source)
    return None


def _where(node: Node, b: Builder) -> Node | None:
    condition, x, y = node.inputs
    if x is y:
        return b.expand(x, node.shape)
    if condition.op == "constant" and isinstance(condition.attributes["value"], bool):
        return b.expand(x if condition.attributes["value"] else y, node.shape)
    if condition.op == "not":
        return b.where(condition.inputs[0], y, x)
    return None


def _ne(node: Node, b: Builder) -> Node | None:
    x, y = node.inputs
    if x.op == "to_float" and is_zero(y):
        return b.expand(x.inputs[0], node.shape)
    return None


def _not(node: Node, b: Builder) -> Node | None:
    (x,) = node.inputs
    return x.inputs[0] if x.op == "not" else None


def _stop(node: Node, b: Builder) -> Node | None:
    (x,) = node.inputs
    return x if x.op in ("stop", "constant") else None


def _without_expand(node: Node, b: Builder) -> Node | None:
    """Pointwise operations broadcast by themselves."""
    bare = tuple(_bare(x) for x in node.inputs)
    if all(x is y for x, y in zip(bare, node.inputs, strict=True)):
        return None
    value = b(node.op, *bare)
    if value.shape == node.shape:
        return value
    if value.size == node.size:
        return b.reshape(value, node.shape)
    if len(node.inputs) == 1 or all(x.size == 1 for x in bare):
        return b.expand(value, node.shape)
    return _some_bare(node, bare, b)


def _some_bare(node: Node, bare: tuple[Node, ...], b: Builder) -> Node | None:
    """Without as many expansions as leave the shape as it is."""
    inputs = list(node.inputs)
    for i, x in enumerate(bare):
        tried = [*inputs[:i], x, *inputs[i + 1 :]]
        if x is not inputs[i] and broadcast(*(y.shape for y in tried)) == node.shape:
            inputs = tried
    if all(x is y for x, y in zip(inputs, node.inputs, strict=True)):
        return None
    return b(node.op, *inputs)


def _padded(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    return (1,) * (rank - len(shape)) + shape


def _bare(x: Node) -> Node:
    """What broadcasts to the same as an expansion, or as axes of length 1 put in front."""
    while True:
        if x.op == "expand" or (
            x.op == "reshape" and x.shape == _padded(x.inputs[0].shape, len(x.shape))
        ):
            x = x.inputs[0]
        elif x.op == "constant" and x.shape and not isinstance(x.attributes["value"], tuple):
            return Node("constant", (), (), x.attributes, x.boolean, x.source)
        else:
            return x


def _under_reshape(node: Node, b: Builder) -> Node | None:
    """A pointwise operation of reshaped arrays is the reshaped operation."""
    inner: list[Node] = []
    shapes = set()
    for x in node.inputs:
        if x.op == "constant" and x.size == 1:
            inner.append(b.reshape(x, ()))
        elif x.op == "reshape" and x.shape == node.shape:
            inner.append(x.inputs[0])
            shapes.add(x.inputs[0].shape)
        else:
            return None
    if len(shapes) != 1:
        return None
    return b.reshape(b(node.op, *inner), node.shape)


OWN: dict[str, tuple[Rule, ...]] = {
    "add": (_add, _add_of_choices),
    "sub": (_sub,),
    "mul": (_mul, _mul_of_choice),
    "div": (_div,),
    "neg": (_neg,),
    "where": (_where,),
    "ne": (_ne,),
    "not": (_not,),
    "stop": (_stop,),
}
ARITHMETIC: dict[str, tuple[Rule, ...]] = {
    op: (*OWN.get(op, ()), _without_expand, _under_reshape) for op in sorted(POINTWISE)
}
assert set(ARITHMETIC) == UNARY | BINARY | {"where"}
