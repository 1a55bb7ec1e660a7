"""Rules that make one operation simpler; results differ by rounding at most, NaN stays NaN."""

from collections.abc import Callable

from odeum.compile.build import Builder
from odeum.compile.ir import Node

Rule = Callable[[Node], Node | None]


def simplified(node: Node) -> Node:
    """A node as the first rules that apply make it."""
    for rule in RULES.get(node.op, ()):
        simpler = rule(node)
        if simpler is not None:
            return simpler
    return node


def _scalar(node: Node) -> float | None:
    """The number that all elements of a constant are."""
    value = node.attributes["value"] if node.op == "constant" else None
    return value if isinstance(value, int | float) else None


def _as(x: Node, node: Node) -> Node:
    """An operand in the place of an operation."""
    return Builder(node.source).expand(x, node.shape)


def _reshape(node: Node) -> Node | None:
    (x,) = node.inputs
    if x.shape == node.shape:
        return x
    if x.op == "reshape":
        return Builder(node.source).reshape(x.inputs[0], node.shape)
    return None


def _permute(node: Node) -> Node | None:
    (x,) = node.inputs
    dims, b = node.attributes["dims"], Builder(node.source)
    if dims == tuple(range(len(dims))):
        return x
    if x.op == "permute":
        first = x.attributes["dims"]
        return b.permute(x.inputs[0], [first[d] for d in dims])
    moved = [d for d in dims if x.shape[d] != 1]
    if moved == sorted(moved):
        return b.reshape(x, node.shape)
    if x.op == "matmul":
        return _turned_product(node, x, dims)
    return None


def _turned_product(node: Node, product: Node, dims: tuple[int, ...]) -> Node | None:
    rank = len(dims)
    if dims != (*range(rank - 2), rank - 1, rank - 2):
        return None
    b = Builder(product.source)
    left, right = (b.transpose(x, -2, -1) for x in product.inputs)
    return b("matmul", right, left)


def _sum(node: Node) -> Node | None:
    (x,) = node.inputs
    dims = node.attributes["dims"]
    if all(x.shape[d] == 1 for d in dims):
        return Builder(node.source).reshape(x, node.shape)
    return None


RULES: dict[str, tuple[Rule, ...]] = {
    "reshape": (_reshape,),
    "permute": (_permute,),
    "sum": (_sum,),
}
