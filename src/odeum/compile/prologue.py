"""What a field computes from shared tensors alone, set apart: it is the same for all rows.

Torch computes it once a solve, under autograd, so that gradients flow on to where it came from.
"""

from odeum.compile.ir import VIEWS, Graph, Node, depends_on, with_inputs
from odeum.compile.passes import with_inputs_read
from odeum.compile.verify import verify

OF_ROWS = ("time", "state", "cotangent", "row", "saved")


def split(graph: Graph) -> tuple[Graph, Graph | None]:
    """A graph as what is left of it, and its prologue.

    Returns:
        The graph, with another shared input for each output of the prologue, named alike; and the
        prologue, None where there is nothing to compute. Views are no computation.
    """
    nodes = graph.nodes()
    of_rows = depends_on(nodes, OF_ROWS)
    of_shared = depends_on(nodes, ("shared",))
    once = {node for node in of_shared if node not in of_rows and node.op != "input"}
    computed = {node for node in once if _computes(node, once)}
    read = [node for node in nodes if node not in once] + [
        node for node in once if node not in computed
    ]
    kept = {x for node in read for x in node.inputs} | set(graph.outputs.values())
    results = [node for node in nodes if node in computed and node in kept]
    if not results:
        return graph, None
    inputs = {
        node: Node("input", (), node.shape, {"role": "shared", "name": f"prologue{i}"})
        for i, node in enumerate(results)
    }
    rest = _with_inputs(graph, inputs)
    outputs = {inputs[node].name: node for node in results}
    prologue = Graph(tuple(graph.of_role("shared")), outputs)
    return verify(with_inputs_read(rest)), verify(with_inputs_read(prologue))


def _computes(node: Node, once: set[Node]) -> bool:
    """Whether a node is more than a view of tensors as they are."""
    stack = [node]
    while stack:
        x = stack.pop()
        if x.op not in VIEWS:
            return x.op not in ("input", "constant")
        stack += x.inputs
    return False


def _with_inputs(graph: Graph, inputs: dict[Node, Node]) -> Graph:
    def rule(node: Node, operands: tuple[Node, ...]) -> Node:
        return inputs.get(node) or with_inputs(node, operands)

    rest = graph.rewritten(rule)
    return Graph((*graph.inputs, *inputs.values()), rest.outputs)
