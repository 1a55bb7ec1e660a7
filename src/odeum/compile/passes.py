"""Passes over graphs: constants folded, what is computed twice once, what simplifies simplified.

Every pass is a small function from graph to graph; the verifier stands between all of them.
"""

from collections.abc import Callable

import torch

from odeum.compile.build import Builder
from odeum.compile.interpret import evaluate
from odeum.compile.ir import Graph, Node, with_inputs
from odeum.compile.lowering.table import constant_of
from odeum.compile.simplify import simplified
from odeum.compile.verify import verify

LARGEST_FOLDED = 4096
"""Elements of a constant that folding may make."""

Pass = Callable[[Graph], Graph]


def optimise(graph: Graph) -> Graph:
    """All passes, until none changes anything."""
    verify(graph)
    for _ in range(20):
        before = graph
        for each in PASSES:
            graph = verify(each(graph))
        if str(graph) == str(before):
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
        # repr tells 0.0 from -0.0, and 1.0 from True.
        key = (node.op, inputs, node.shape, repr(sorted(node.attributes.items())))
        return first.setdefault(key, node)

    return graph.rewritten(rule)


def simplify(graph: Graph) -> Graph:
    """Each operation as the simplest that gives the same."""

    def rule(node: Node, inputs: tuple[Node, ...]) -> Node:
        return simplified(with_inputs(node, inputs))

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
