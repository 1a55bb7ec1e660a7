"""How nodes are made: shapes inferred, numbers taken where arrays are, views in torch's manner.

Owns the small vocabulary in which everything that makes graphs is written. Knows no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

from odeum.compile.ir import Node, Shape
from odeum.compile.verify import FREE, inferred, is_boolean, slice_length

Operand = Node | float | int | bool


@dataclass(frozen=True)
class Builder:
    """Makes nodes that come from one line of the user's.

    Attributes:
        source: the line, ``file:line``; None where there is none.

    Example:
        >>> x = Node("input", (), (2, 1), {"role": "state", "name": "state"})
        >>> Builder().add(x, 1.0).shape, Builder().expand(x, (2, 3)).shape
        ((2, 1), (2, 3))
    """

    source: str | None = None

    def __call__(self, op: str, *inputs: Operand, **attributes: Any) -> Node:
        """An operation whose shape follows from its inputs."""
        nodes = tuple(self.node(x) for x in inputs)
        assert op not in FREE, f"the shape of {op} is to be given"
        shape = inferred(op, nodes, attributes)
        return Node(op, nodes, shape, attributes, is_boolean(op, nodes), self.source)

    def node(self, x: Operand) -> Node:
        """A node as it is, a number as a constant."""
        return x if isinstance(x, Node) else self.constant(x)

    def constant(self, value: Any, shape: Shape = ()) -> Node:
        """A number for every element of a shape, or nested tuples of them."""
        first = value
        while isinstance(first, tuple) and first:
            first = first[0]
        boolean = isinstance(first, bool)
        if not isinstance(value, tuple):
            value = value if boolean else float(value)
        return Node("constant", (), shape, {"value": value}, boolean, self.source)

    def add(self, a: Operand, b: Operand) -> Node:
        """``a + b``."""
        return self("add", a, b)

    def sub(self, a: Operand, b: Operand) -> Node:
        """``a - b``."""
        return self("sub", a, b)

    def mul(self, a: Operand, b: Operand) -> Node:
        """``a b``."""
        return self("mul", a, b)

    def div(self, a: Operand, b: Operand) -> Node:
        """``a / b``."""
        return self("div", a, b)

    def neg(self, x: Operand) -> Node:
        """``-x``."""
        return self("neg", x)

    def where(self, condition: Operand, a: Operand, b: Operand) -> Node:
        """``a`` where the condition holds, ``b`` elsewhere."""
        return self("where", condition, a, b)

    def reshape(self, x: Node, shape: Sequence[int]) -> Node:
        """The same elements in their order; one length may be -1."""
        new = tuple(int(n) for n in shape)
        if -1 in new:
            known = -prod(new)
            new = tuple(x.size // known if n == -1 else n for n in new)
        if new == x.shape:
            return x
        return Node("reshape", (x,), new, {}, x.boolean, self.source)

    def expand(self, x: Node, shape: Sequence[int]) -> Node:
        """Broadcast to a shape, in which -1 keeps a length."""
        lead = len(shape) - len(x.shape)
        new = tuple(x.shape[i - lead] if n == -1 else int(n) for i, n in enumerate(shape))
        if new == x.shape:
            return x
        return Node("expand", (x,), new, {}, x.boolean, self.source)

    def permute(self, x: Node, dims: Sequence[int]) -> Node:
        """Axes in another order."""
        order = tuple(d % len(x.shape) for d in dims)
        if order == tuple(range(len(order))):
            return x
        return self("permute", x, dims=order)

    def transpose(self, x: Node, a: int, b: int) -> Node:
        """Two axes exchanged."""
        order = list(range(len(x.shape)))
        if order:
            order[a], order[b] = order[b], order[a]
        return self.permute(x, order)

    def slice(self, x: Node, dim: int, start: int, stop: int, step: int = 1) -> Node:
        """Part of an axis; bounds as nodes hold them, not counted from the end."""
        if (start, stop, step) == (0, x.shape[dim], 1):
            return x
        if not slice_length(start, stop, step):
            return self.constant((), (*x.shape[:dim], 0, *x.shape[dim + 1 :]))
        return self("slice", x, dim=dim, start=start, stop=stop, step=step)

    def select(self, x: Node, dim: int, index: int) -> Node:
        """One place of an axis, which disappears."""
        dim, index = dim % len(x.shape), index % x.shape[dim]
        part = self.slice(x, dim, index, index + 1)
        return self.reshape(part, x.shape[:dim] + x.shape[dim + 1 :])

    def unsqueeze(self, x: Node, dim: int) -> Node:
        """Another axis of length 1."""
        dim %= len(x.shape) + 1
        return self.reshape(x, (*x.shape[:dim], 1, *x.shape[dim:]))

    def cat(self, parts: Sequence[Node], dim: int) -> Node:
        """One after the other along an axis; empty ones do not count."""
        full = [x for x in parts if x.size] or list(parts[:1])
        if len(full) == 1:
            return full[0]
        return self("cat", *full, dim=dim % len(full[0].shape))

    def reduce(self, op: str, x: Node, dims: Sequence[int] | None, keepdim: bool = False) -> Node:
        """A reduction over some axes, all of them where None are named."""
        rank = len(x.shape)
        over = tuple(sorted({d % rank for d in dims})) if dims else tuple(range(rank))
        if not over:
            return x
        kept = tuple(1 if d in over else n for d, n in enumerate(x.shape))
        result = self(op, x, dims=over)
        return self.reshape(result, kept) if keepdim else result

    def gather(self, x: Node, places: Sequence[int], shape: Shape) -> Node:
        """The array whose elements lie at known places of another.

        Args:
            x: where they are taken from, in the order of its elements.
            places: one for each element of the result; -1 for zero.
            shape: of the result.
        """
        flat = self.reshape(x, (x.size,))
        parts = [self._run(flat, run) for run in _runs(places)]
        return self.reshape(self.cat(parts, 0), shape) if parts else self.constant((), shape)

    def _run(self, flat: Node, run: tuple[int, int, int]) -> Node:
        start, length, step = run
        if start < 0:
            return self.constant(False if flat.boolean else 0.0, (length,))
        if step == 0:
            return self.expand(self.slice(flat, 0, start, start + 1), (length,))
        last = start + (length - 1) * step
        return self.slice(flat, 0, start, last + (1 if step > 0 else -1), step)


def filled(b: Builder, x: Node, dim: int, length: int, value: float = 0) -> Node:
    """A constant of the shape of another array but for one axis."""
    shape = (*x.shape[:dim], max(length, 0), *x.shape[dim + 1 :])
    return b.constant(value if length > 0 else (), shape)


def _runs(places: Sequence[int]) -> list[tuple[int, int, int]]:
    """Places as arithmetic progressions, ``(start, length, step)``."""
    runs: list[tuple[int, int, int]] = []
    steps = [b - a if a >= 0 and b >= 0 else 0 for a, b in pairwise(places)]
    i = 0
    while i < len(places):
        length, step = 1, 0
        if i < len(steps):
            step = steps[i]
            while i + length < len(places) and steps[i + length - 1] == step:
                same_kind = (places[i] < 0) == (places[i + length] < 0)
                if not same_kind:
                    break
                length += 1
        runs.append((places[i], length, step if length > 1 else 1))
        i += length
    return runs
