"""What shape and kind the value of each operation has, and the check that a graph keeps to it.

The rules are written once: nodes are built by them, and every graph is held against them between
all passes. A graph that fails is a defect of odeum, never of the user.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

from odeum.compile.ir import (
    BINARY,
    COMPARISONS,
    LOGICAL,
    POINTWISE,
    REDUCTIONS,
    ROLES,
    UNARY,
    Graph,
    Node,
    Shape,
)

FREE = frozenset(("input", "constant", "reshape", "expand"))
"""Operations whose shape is chosen rather than inferred."""


def inferred(op: str, inputs: tuple[Node, ...], attributes: Mapping[str, Any]) -> Shape:
    """The shape of an operation's value, but for those whose shape is chosen.

    Raises:
        AssertionError: where the operation cannot be applied to such inputs.

    Example:
        >>> x = Node("input", (), (2, 3), {"role": "state", "name": "state"})
        >>> inferred("sum", (x,), {"dims": (1,)})
        (2,)
    """
    shapes = [x.shape for x in inputs]
    if op in POINTWISE:
        arity = 1 if op in UNARY else 2 if op in BINARY else 3
        assert len(inputs) == arity, f"{op} takes {arity} inputs, not {len(inputs)}"
        return broadcast(*shapes)
    if op == "cat":
        return _concatenated(shapes, attributes["dim"])
    if op == "matmul":
        (*batch, m, k), (*other, n, p) = shapes
        assert (batch, k) == (other, n), f"matmul of {shapes[0]} and {shapes[1]}"
        return (*batch, m, p)
    if op == "solve":
        (*batch, m, k), (*other, n, p) = shapes
        assert (batch, m, k) == (other, n, n), f"solve of {shapes[0]} and {shapes[1]}"
        return (*batch, n, p)
    assert len(inputs) == 1, f"{op} takes one input"
    (shape,) = shapes
    if op == "permute":
        dims = attributes["dims"]
        assert sorted(dims) == list(range(len(shape))), f"permutation {dims} of {shape}"
        return tuple(shape[d] for d in dims)
    if op == "slice":
        return _sliced(shape, attributes)
    assert op in REDUCTIONS, f"no operation is called {op!r}"
    dims = attributes["dims"]
    over = set(dims) & set(range(len(shape)))
    assert dims, "reduction over nothing"
    assert len(over) == len(dims), f"reduction of {shape} over {dims}"
    return tuple(n for d, n in enumerate(shape) if d not in dims)


def is_boolean(op: str, inputs: tuple[Node, ...]) -> bool:
    """Whether an operation's value is true or false.

    Raises:
        AssertionError: where it takes numbers and is given booleans, or the other way round.
    """
    kinds = [x.boolean for x in inputs]
    if op in COMPARISONS:
        assert not any(kinds), f"{op} compares numbers"
        return True
    if op in LOGICAL:
        assert all(kinds), f"{op} takes booleans"
        return True
    if op == "where":
        assert kinds == [True, False, False], "where chooses between numbers by a boolean"
        return False
    if op == "to_float":
        assert all(kinds), "to_float takes booleans"
        return False
    if op in ("reshape", "permute", "expand", "slice", "cat"):
        assert len(set(kinds)) == 1, f"{op} of numbers and booleans"
        return kinds[0]
    assert not any(kinds), f"{op} takes numbers"
    return False


def broadcast(*shapes: Shape) -> Shape:
    """The shape that shapes broadcast to.

    Raises:
        AssertionError: where they do not.

    Example:
        >>> broadcast((2, 1), (3,))
        (2, 3)
    """
    rank = max(map(len, shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    result = []
    for lengths in zip(*padded, strict=True):
        wide = {n for n in lengths if n != 1}
        assert len(wide) <= 1, f"shapes {shapes} do not broadcast"
        result.append(wide.pop() if wide else 1)
    return tuple(result)


def slice_length(start: int, stop: int, step: int) -> int:
    """Number of elements of a slice as nodes hold it."""
    return len(range(start, stop, step))


def verify(graph: Graph) -> Graph:
    """Holds every node of a graph against the rules.

    Returns:
        The graph.

    Raises:
        AssertionError: naming the node that breaks one.
    """
    registered = set(graph.inputs)
    names = [node.name for node in graph.inputs]
    assert len(set(names)) == len(names), f"inputs of one name: {names}"
    done: set[Node] = set()
    for node in graph.nodes():
        assert all(x in done for x in node.inputs), f"{_told(node)} reads what comes after it"
        done.add(node)
        try:
            _check(node, registered)
        except (AssertionError, KeyError, ValueError) as error:
            raise AssertionError(f"{_told(node)}: {error}") from error
    return graph


def _check(node: Node, registered: set[Node]) -> None:
    if node.op == "input":
        assert node in registered, "is not among the inputs of the graph"
        assert node.role in ROLES, f"has no role called {node.role!r}"
        assert not node.inputs, "an input reads nothing"
    elif node.op == "constant":
        assert not node.inputs, "a constant reads nothing"
        _check_constant(node.attributes["value"], node.shape, node.boolean)
    else:
        if node.op == "reshape":
            assert prod(node.shape) == node.inputs[0].size, f"from {node.inputs[0].shape}"
        elif node.op == "expand":
            (x,) = node.inputs
            assert broadcast(x.shape, node.shape) == node.shape, f"from {x.shape}"
        else:
            shape = inferred(node.op, node.inputs, node.attributes)
            assert shape == node.shape, f"has shape {node.shape} where {shape} comes out"
        boolean = is_boolean(node.op, node.inputs)
        assert boolean == node.boolean, "is a number and a boolean at once"


def _check_constant(value: Any, shape: Shape, boolean: bool) -> None:
    if isinstance(value, tuple):
        assert len(value) == (shape or (None,))[0], f"holds {len(value)} of {shape}"
        for part in value:
            _check_constant(part, shape[1:], boolean)
    else:
        kind = bool if boolean else float
        assert isinstance(value, kind), f"holds a {type(value).__name__}"


def _concatenated(shapes: list[Shape], dim: int) -> Shape:
    first = shapes[0]
    assert 0 <= dim < len(first), f"concatenation of {first} along {dim}"
    others = {(shape[:dim], shape[dim + 1 :]) for shape in shapes}
    assert len(others) == 1, f"concatenation of {shapes} along {dim}"
    return (*first[:dim], sum(shape[dim] for shape in shapes), *first[dim + 1 :])


def _sliced(shape: Shape, attributes: Mapping[str, Any]) -> Shape:
    dim, start, stop, step = (attributes[key] for key in ("dim", "start", "stop", "step"))
    assert 0 <= dim < len(shape), f"slice of {shape} along {dim}"
    places = range(start, stop, step)
    inside = set(places) and {places[0], places[-1]} <= set(range(shape[dim]))
    assert inside, f"slice {start}:{stop}:{step} of {shape}"
    return (*shape[:dim], len(places), *shape[dim + 1 :])


def _told(node: Node) -> str:
    return f"node {node.op} {list(node.shape)} of {[list(x.shape) for x in node.inputs]}"
