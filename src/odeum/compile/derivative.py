"""The derivative of a field's graph: one graph that records, one that goes back.

No derivative rule is written here: autograd differentiates ``interpret`` on one row, and what it
executes is taken down.
"""

from dataclasses import dataclass

import torch

from odeum.compile.interpret import evaluate, weighted
from odeum.compile.ir import POINTWISE, VIEWS, Graph, Node, topological, with_inputs
from odeum.compile.passes import optimise, without_stops
from odeum.compile.record import Known, Recorder
from odeum.compile.verify import verify
from odeum.types import Tensor

CHEAP = frozenset(
    [
        "neg",
        "abs",
        "sign",
        "not",
        "to_float",
        "add",
        "sub",
        "mul",
        "lt",
        "le",
        "gt",
        "ge",
        "eq",
        "ne",
        "and",
        "or",
        "where",
    ]
)
"""Computed again on the way back where all they read is there, instead of being stored."""


@dataclass(frozen=True)
class Derivative:
    """A vector-Jacobian product of a field.

    Attributes:
        recording: the field, outputs "f" and what goes on to the other graph: "saved0", ...
        backward: inputs those, "cotangent" [dim], and those of the field that it reads; outputs
            by the names of the field's inputs, each in the shape of the input. One that does not
            depend on the cotangent is left out.
    """

    recording: Graph
    backward: Graph


def differentiate(graph: Graph, wanted: frozenset[str]) -> Derivative:
    """The derivative of output "f" with respect to some inputs.

    Args:
        graph: of a field, with ``stop`` where it cuts derivatives.
        wanted: names of inputs.

    Example:
        >>> from odeum.compile.build import Builder
        >>> y = Node("input", (), (2,), {"role": "state", "name": "state"})
        >>> graph = Graph((y,), {"f": Builder()("tanh", y)})
        >>> derivative = differentiate(graph, frozenset(["state"]))
        >>> list(derivative.recording.outputs), list(derivative.backward.outputs)
        (['f', 'saved0'], ['state'])
    """
    cotangent = Node(
        "input", (), graph.outputs["f"].shape, {"role": "cotangent", "name": "cotangent"}
    )
    whole = Graph((*graph.inputs, cotangent), {"f": graph.outputs["f"]})
    gradients = _gradients(whole, cotangent, wanted)
    both = optimise(Graph(whole.inputs, {"f": graph.outputs["f"], **gradients}))
    both = without_stops(both)
    return _split(both)


def _gradients(graph: Graph, cotangent: Node, wanted: frozenset[str]) -> dict[str, Node]:
    """What autograd computes, as nodes."""
    like = torch.zeros((), dtype=torch.float64)
    leaves = {node: _sample(node, like) for node in graph.inputs}
    recorder = Recorder(like.dtype, _none, users=False)
    done: dict[Node, Tensor] = {}
    asked = [node for node in graph.inputs if node.name in wanted]
    for node, leaf in leaves.items():
        recorder.define(leaf.requires_grad_(node in asked), node, frozen=True)
    with torch.enable_grad(), recorder:
        for node in graph.nodes():
            if node.op == "input":
                done[node] = leaves[node]
                continue
            operands = [done[x] for x in node.inputs]
            done[node] = evaluate(node, operands, [False] * len(operands), like)
            recorder.define(done[node], node)
        f = done[graph.outputs["f"]]
        if not f.requires_grad:
            return {}
        gradients = torch.autograd.grad(
            weighted(f, leaves[cotangent]), [leaves[node] for node in asked], allow_unused=True
        )
    found = {}
    for node, gradient in zip(asked, gradients, strict=True):
        if gradient is not None:
            value = recorder.value(gradient)
            if isinstance(value, Node):
                found[node.name] = value
    return found


def _none(tensor: Tensor) -> Known | None:
    return None


def _sample(node: Node, like: Tensor) -> Tensor:
    """Values for an input; any will do, for which path is taken depends on none."""
    wave = torch.cos(torch.arange(1, node.size + 1, dtype=like.dtype))
    return wave.reshape(node.shape)


def _split(both: Graph) -> Derivative:
    """Sets apart what depends on the cotangent, with what is as well computed there."""
    forward = topological([both.outputs["f"]])
    recorded = set(forward)
    backwards = {name: node for name, node in both.outputs.items() if name != "f"}
    cotangent = both.input("cotangent")
    backwards = {name: node for name, node in backwards.items() if cotangent in topological([node])}
    nodes = topological(backwards.values())
    own = [node for node in nodes if node not in recorded]
    needed = {x for node in own for x in node.inputs if x in recorded}
    needed |= {node for node in backwards.values() if node in recorded}
    again, saved = _chosen(forward, needed)
    inputs = {
        node: Node("input", (), node.shape, {"role": "saved", "name": f"saved{i}"}, node.boolean)
        for i, node in enumerate(saved)
    }
    back: dict[Node, Node] = dict(inputs)
    for node in nodes:
        if node not in back:
            back[node] = with_inputs(node, tuple(back[x] for x in node.inputs))
    assert all(x in again or x in inputs or x.op in ("input", "constant") for x in needed)
    recording = Graph(
        tuple(x for x in both.inputs if x is not cotangent),
        {"f": both.outputs["f"], **{inputs[node].name: node for node in saved}},
    )
    backward = Graph(
        (*inputs.values(), *both.inputs),
        {name: back[node] for name, node in backwards.items()},
    )
    return Derivative(verify(recording), optimise(backward))


def _chosen(forward: list[Node], needed: set[Node]) -> tuple[set[Node], list[Node]]:
    """Which values that the way back reads are computed again, and which are saved.

    Booleans and views are never saved, cheap operations only where what they read is not there.
    """
    needed = set(needed)
    for node in reversed(forward):
        if node in needed and (node.boolean or node.op in VIEWS or node.op == "to_float"):
            needed |= set(node.inputs)
    there: set[Node] = set()
    again: set[Node] = set()
    saved: list[Node] = []
    for node in forward:
        if node.op in ("input", "constant"):
            there.add(node)
        elif (node.op in VIEWS or (node.op in POINTWISE and node.op in CHEAP)) and all(
            x in there for x in node.inputs
        ):
            there.add(node)
            again.add(node)
        elif node in needed:
            there.add(node)
            saved.append(node)
    return again, saved
