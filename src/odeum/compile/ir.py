"""The graph of one row: tracing makes it, passes rewrite it, ``interpret`` and ``emit`` read it.

A node is an operation on arrays of static shape that belong to one row of the batch. Floating-point
values all have the dtype of the state; comparisons give booleans. Nothing here knows torch.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, ...]

UNARY = frozenset(
    [
        "neg",
        "abs",
        "sign",
        "exp",
        "expm1",
        "log",
        "log1p",
        "sqrt",
        "rsqrt",
        "reciprocal",
        "sin",
        "cos",
        "tan",
        "tanh",
        "sigmoid",
        "erf",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "floor",
        "ceil",
        "round",
        "trunc",
        "not",
        "to_float",
        "stop",
    ]
)
BINARY = frozenset(
    [
        "add",
        "sub",
        "mul",
        "div",
        "pow",
        "maximum",
        "minimum",
        "atan2",
        "lt",
        "le",
        "gt",
        "ge",
        "eq",
        "ne",
        "and",
        "or",
    ]
)
COMPARISONS = frozenset(["lt", "le", "gt", "ge", "eq", "ne"])
LOGICAL = frozenset(["and", "or", "not"])
POINTWISE = UNARY | BINARY | {"where"}
"""Broadcast like NumPy's; ``to_float`` makes 1 and 0 of a boolean; ``stop`` hands a value on that
has no derivative, and is gone from what kernels are made of."""

VIEWS = frozenset(["reshape", "permute", "expand", "slice"])
"""Say how elements are laid out and compute nothing."""

REDUCTIONS = frozenset(["sum", "amax", "amin"])

ROLES = ("time", "state", "cotangent", "shared", "row", "saved")
"""What an input is: the time, the state, the cotangent of the derivative, a tensor that all rows
share, one of which each row has its own, or a value that another graph computed for this one."""


@dataclass(frozen=True, eq=False)
class Node:
    """One operation.

    Attributes:
        op: its name: "input", "constant", a pointwise operation, a view, "cat", a reduction,
            "matmul" or "solve".
        inputs: what it reads.
        shape: of its value.
        attributes: what else it needs: ``role`` and ``name`` of an input; ``value`` of a constant,
            a number for all elements or nested tuples of them; ``dims`` of a permutation or a
            reduction (whose dims disappear); ``dim``, ``start``, ``stop``, ``step`` of a slice (the
            step may be negative: then ``stop`` may be -1, before the first); ``dim`` of a
            concatenation.
            ``matmul`` takes [*batch, m, k] and [*batch, k, n] with the same batch, ``solve`` takes
            [*batch, n, n] and [*batch, n, m].
        boolean: whether it is true or false rather than a number.
        source: where the user wrote it, ``file:line``; None for what a derivative added.
    """

    op: str
    inputs: tuple["Node", ...]
    shape: Shape
    attributes: Mapping[str, Any] = field(default_factory=dict)
    boolean: bool = False
    source: str | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        n = 1
        for length in self.shape:
            n *= length
        return n

    @property
    def name(self) -> str:
        """The name of an input."""
        return str(self.attributes["name"])

    @property
    def role(self) -> str:
        """The role of an input."""
        return str(self.attributes["role"])


@dataclass(frozen=True)
class Graph:
    """Inputs and named outputs; what lies between them is reached from the outputs.

    Attributes:
        inputs: in the order in which they are handed in; some may be unused.
        outputs: by name.
    """

    inputs: tuple[Node, ...]
    outputs: Mapping[str, Node]

    def nodes(self) -> list[Node]:
        """Every node that an output depends on, each after what it reads."""
        return topological(self.outputs.values())

    def input(self, name: str) -> Node:
        """The input of that name."""
        return next(node for node in self.inputs if node.name == name)

    def of_role(self, role: str) -> list[Node]:
        """The inputs of one role."""
        return [node for node in self.inputs if node.role == role]

    def rewritten(self, rule: Callable[[Node, tuple[Node, ...]], Node]) -> "Graph":
        """The graph with each node replaced by what a rule makes of it.

        Args:
            rule: given a node and its inputs as already rewritten, returns what takes its place.
        """
        new: dict[Node, Node] = {}
        for node in self.nodes():
            new[node] = rule(node, tuple(new[x] for x in node.inputs))
        inputs = tuple(new.get(node, node) for node in self.inputs)
        return Graph(inputs, {name: new[node] for name, node in self.outputs.items()})

    def __str__(self) -> str:
        return self.text(sources=True)

    def text(self, *, sources: bool = False) -> str:
        """One line a node, with or without where the user wrote it."""
        return "\n".join(_lines(self, sources=sources))


def topological(outputs: Any) -> list[Node]:
    """Every node that the outputs depend on, each after what it reads."""
    done: dict[Node, None] = {}
    stack: list[tuple[Node, bool]] = [(node, False) for node in reversed(list(outputs))]
    while stack:
        node, expanded = stack.pop()
        if node in done:
            continue
        if expanded:
            done[node] = None
        else:
            stack.append((node, True))
            stack.extend((x, False) for x in reversed(node.inputs) if x not in done)
    return list(done)


def with_inputs(node: Node, inputs: tuple[Node, ...]) -> Node:
    """The same operation on other values of the same shapes."""
    if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
        return node
    return Node(node.op, inputs, node.shape, node.attributes, node.boolean, node.source)


def users(nodes: list[Node]) -> dict[Node, list[Node]]:
    """Which of the nodes read each of them."""
    found: dict[Node, list[Node]] = {node: [] for node in nodes}
    for node in nodes:
        for x in dict.fromkeys(node.inputs):
            found[x].append(node)
    return found


def depends_on(nodes: list[Node], roles: tuple[str, ...]) -> set[Node]:
    """Those of the nodes, in topological order, that depend on an input of one of the roles."""
    found: set[Node] = set()
    for node in nodes:
        own = node.op == "input" and node.role in roles
        if own or any(x in found for x in node.inputs):
            found.add(node)
    return found


def _lines(graph: Graph, *, sources: bool) -> Iterator[str]:
    numbers = {node: i for i, node in enumerate(graph.nodes())}
    for node, i in numbers.items():
        reads = ", ".join(f"%{numbers[x]}" for x in node.inputs)
        extra = ", ".join(f"{key}={value}" for key, value in node.attributes.items())
        inside = "; ".join(part for part in (reads, extra) if part)
        where = f"    # {node.source}" if node.source and sources else ""
        kind = "bool" if node.boolean else "float"
        yield f"%{i}: {kind}{list(node.shape)} = {node.op}({inside}){where}"
    for name, node in graph.outputs.items():
        yield f"{name} <- %{numbers[node]}"
