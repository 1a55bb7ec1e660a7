"""Passes over graphs: constants folded, what is computed twice once, what simplifies simplified.

Every pass is a small function from graph to graph; the verifier stands between all of them.
"""

from collections.abc import Callable

import torch

from odeum.compile.build import Builder
from odeum.compile.interpret import evaluate
from odeum.compile.ir import Graph, Node, with_inputs
from odeum.compile.lowering.table import constant_of
from odeum.compile.rearrange import REARRANGING
from odeum.compile.simplify import ARITHMETIC
from odeum.compile.verify import verify

LARGEST_FOLDED = 4096
"""Elements of a constant that folding may make."""

LONGEST = 50
"""Rounds of all passes; every rule makes graphs simpler, so that they end by themselves."""

COMMUTATIVE = frozenset(["add", "mul", "maximum", "minimum", "eq", "ne", "and", "or"])

Pass = Callable[[Graph], Graph]


def optimise(graph: Graph) -> Graph:
    """All passes, until none changes anything."""
    verify(graph)
    for _ in range(LONGEST):
        before = graph
        for each in PASSES:
            graph = verify(each(graph))
        if all(node is before.outputs[name] for name, node in graph.outputs.items()):
            break
    return graph


def fold(graph: Graph) -> Graph:
    """Operations on constants are constants."""

    def rule(node: Node, inputs: tuple[Node, ...]) -> Node:
        node = with_inputs(node, inputs)
        constant = inputs and all(x.op == "constant" for x in inputs)
        if not constant or node.size > LARGEST_FOLDED:
            return node
        like = torch.zeros((), dtype=torch.float64)
        operands = [evaluate(x, [], [], like) for x in inputs]
        value = evaluate(node, operands, [False] * len(inputs), like)
        return constant_of(Builder(node.source), value)

    return graph.rewritten(rule)


def share(graph: Graph) -> Graph:
    """What is computed twice is computed once."""
    first: dict[object, Node] = {}

    def rule(node: Node, inputs: tuple[Node, ...]) -> Node:
        node = with_inputs(node, inputs)
        if node.op == "input":
            return node
        read = frozenset(inputs) if node.op in COMMUTATIVE else inputs
        # repr tells 0.0 from -0.0, and 1.0 from True.
        key = (node.op, read, node.shape, repr(sorted(node.attributes.items())))
        return first.setdefault(key, node)

    return graph.rewritten(rule)


def simplify(graph: Graph) -> Graph:
    """Each operation as the simplest that gives the same."""

    def rule(node: Node, inputs: tuple[Node, ...]) -> Node:
        node = with_inputs(node, inputs)
        b = Builder(node.source)
        for each in (*ARITHMETIC.get(node.op, ()), *REARRANGING.get(node.op, ())):
            simpler = each(node, b)
            if simpler is not None:
                return simpler
        return node

    return graph.rewritten(rule)


def without_stops(graph: Graph) -> Graph:
    """A graph that is not to be differentiated any more."""

    def rule(node: Node, inputs: tuple[Node, ...]) -> Node:
        return inputs[0] if node.op == "stop" else with_inputs(node, inputs)

    return optimise(graph.rewritten(rule))


def with_inputs_read(graph: Graph) -> Graph:
    """A graph whose inputs are the time, the state, and what else it reads."""
    read = set(graph.nodes())
    inputs = [node for node in graph.inputs if node in read or node.role in ("time", "state")]
    return Graph(tuple(inputs), graph.outputs)


PASSES: tuple[Pass, ...] = (fold, simplify, share)
"""In this order; what nothing reads is gone by itself, for graphs hold outputs alone."""
