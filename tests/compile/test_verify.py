"""The verifier lets no broken graph through."""

import pytest

from odeum.compile.build import Builder
from odeum.compile.ir import Graph, Node
from odeum.compile.verify import verify

B = Builder()
Y = Node("input", (), (2, 3), {"role": "state", "name": "state"})
W = Node("input", (), (3, 4), {"role": "shared", "name": "w"})
POSITIVE = B("gt", Y, 0)


def graph(node, inputs=(Y, W)):
    return Graph(tuple(inputs), {"f": node})


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (Node("tanh", (Y,), (3, 2)), "has shape"),
        (Node("add", (Y, W), (2, 3)), "do not broadcast"),
        (Node("add", (Y,), (2, 3)), "takes 2 inputs"),
        (Node("tanh", (POSITIVE,), (2, 3)), "takes numbers"),
        (Node("gt", (Y, Y), (2, 3)), "is a number and a boolean"),
        (Node("where", (Y, Y, Y), (2, 3)), "by a boolean"),
        (Node("and", (Y, POSITIVE), (2, 3), {}, True), "takes booleans"),
        (Node("reshape", (Y,), (7,)), "from"),
        (Node("expand", (Y,), (2, 4)), "do not broadcast"),
        (Node("permute", (Y,), (3, 2), {"dims": (1, 1)}), "permutation"),
        (Node("slice", (Y,), (1, 3), {"dim": 0, "start": 2, "stop": 3, "step": 1}), "slice"),
        (Node("slice", (Y,), (3, 3), {"dim": 0, "start": 0, "stop": 3, "step": 1}), "slice"),
        (Node("cat", (Y, W), (5, 3), {"dim": 0}), "concatenation"),
        (Node("sum", (Y,), (2,), {"dims": (2,)}), "reduction"),
        (Node("sum", (Y,), (2, 3), {"dims": ()}), "reduction"),
        (Node("matmul", (W, Y), (3, 3)), "matmul"),
        (Node("solve", (W, Y), (3, 3)), "solve"),
        (Node("unheard", (Y,), (2, 3)), "no operation"),
        (Node("tanh", (), ()), "takes 1 inputs"),
        (Node("constant", (), (2,), {"value": (1.0,)}), "holds 1"),
        (Node("constant", (), (), {"value": 1}), "holds a int"),
        (Node("constant", (), (), {}), "value"),
        (Node("input", (), (), {"role": "state", "name": "x"}), "not among the inputs"),
    ],
)
def test_broken(node, words):
    with pytest.raises(AssertionError, match=words) as raised:
        verify(graph(node))
    assert str(raised.value).startswith(f"node {node.op}")


def test_roles_and_names():
    odd = Node("input", (), (2,), {"role": "weight", "name": "w"})
    with pytest.raises(AssertionError, match="no role"):
        verify(graph(odd, [odd]))
    with pytest.raises(AssertionError, match="one name"):
        verify(graph(Y, [Y, Y]))


def test_whole_graphs_pass():
    product = B("matmul", Y, W)
    chosen = B.where(B("gt", product, 0.5), product, B.reduce("sum", product, (1,), True))
    whole = graph(B.slice(B.permute(chosen, (1, 0)), 0, 3, -1, -2))
    assert verify(whole) is whole
    assert whole.outputs["f"].shape == (2, 2)
