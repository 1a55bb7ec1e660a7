"""How the rows of a batch are best laid over registers and threads, by counting instructions.

The counts decide alone, never a clock: a solve done twice is laid out alike twice.
"""

from dataclasses import dataclass
from math import prod

from llvmlite import ir

from odeum.compile.emit.places import Layout
from odeum.compile.ir import POINTWISE, Graph, Node

INSTRUCTIONS = {
    **dict.fromkeys(("exp", "expm1", "sigmoid", "tanh", "log", "log1p", "sin", "cos"), 20),
    **dict.fromkeys(("erf", "pow"), 40),
    **dict.fromkeys(("tan", "asin", "acos", "atan", "atan2", "sinh", "cosh"), 100),
    **dict.fromkeys(("div", "reciprocal", "sqrt", "rsqrt"), 5),
}
"""About how many instructions a pointwise operation takes, where it is more than one."""

PAIRED = 0.85
"""Two registers of rows, side by side, take this share of the time of one after the other."""

WORTH_A_THREAD = 5_000
"""Instructions of one evaluation on the whole batch for which a thread is worth its start."""


@dataclass(frozen=True)
class Choice:
    """A layout, and what an evaluation on the whole batch costs in it.

    Attributes:
        layout: the layout.
        n_threads: how many threads are worth it.
    """

    layout: Layout
    n_threads: int


def chosen(graph: Graph, real: ir.Type, width: int, n_rows: int, n_threads: int) -> Choice:
    """The layout that takes the fewest instructions, and the threads worth starting.

    Args:
        graph: the field.
        real: the floating-point type.
        width: numbers in a register.
        n_rows: rows of the batch.
        n_threads: threads there are.
    """
    by_rows, by_features = cost(graph, 1), cost(graph, width)
    candidates = [
        (by_rows, Layout(real, width)),
        (2 * PAIRED * by_rows, Layout(real, width, 2)),
        (by_features, Layout(real, 1, 1, width)),
    ]

    def n_useful(per_group: float, n_groups: int) -> int:
        return min(n_threads, n_groups, max(1, int(per_group * n_groups / WORTH_A_THREAD)))

    def time(candidate: tuple[float, Layout]) -> float:
        per_group, layout = candidate
        n_groups = _n_groups(layout, n_rows)
        return -(-n_groups // n_useful(per_group, n_groups)) * per_group

    per_group, layout = min(candidates, key=time)
    return Choice(layout, n_useful(per_group, _n_groups(layout, n_rows)))


def _n_groups(layout: Layout, n_rows: int) -> int:
    return max(-(-n_rows // layout.n_rows), 1)


def cost(graph: Graph, features: int) -> float:
    """Instructions of an evaluation on one register of rows, or on one row.

    Args:
        graph: the field.
        features: elements of a row that a register holds; 1 where it holds rows.

    Example:
        >>> y = Node("input", (), (16,), {"role": "state", "name": "state"})
        >>> graph = Graph((y,), {"f": Node("tanh", (y,), (16,))})
        >>> cost(graph, 1) > cost(graph, 8)
        True
    """
    # What the solver does to a state itself: stages, errors, acceptance.
    own = 20.0 * prod(graph.outputs["f"].shape)
    return own + sum(_cost(node, features) for node in graph.nodes())


def _cost(node: Node, features: int) -> float:
    if node.op in POINTWISE:
        n = node.size
        if node.shape and node.shape[-1] >= features:
            n = -(-node.size // features)
        return n * INSTRUCTIONS.get(node.op, 1)
    if node.op == "matmul":
        *_, k = node.inputs[0].shape
        n = node.shape[-1] if node.shape[-1] > 1 else node.shape[-2]
        # Sums over lanes, and numbers spread over them, take more than the multiplications.
        shared = features / 1.3 if max(n, k) >= features > 1 else 1.0
        return node.size * k / shared
    if node.op == "solve":
        return float(node.inputs[0].size * node.shape[-2])
    return float(node.size) if node.op in ("cat", "sum", "amax", "amin") else 0.0
