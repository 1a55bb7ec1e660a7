"""Passes change no value: on random fields, and rule by rule."""

import pytest
import torch
from compositions import Composed, fields
from fields import FIELDS, Case, states
from hypothesis import HealthCheck, given, settings
from tracing import inputs_of, pulled_back, traced

from odeum.compile import passes
from odeum.compile.build import Builder
from odeum.compile.derivative import differentiate
from odeum.compile.interpret import interpret
from odeum.compile.ir import Graph, Node
from odeum.compile.passes import optimise

B = Builder()
Y = Node("input", (), (4,), {"role": "state", "name": "state"})
M = Node("input", (), (2, 3), {"role": "shared", "name": "m"})
K = Node("input", (), (), {"role": "shared", "name": "k"})
C = Node("input", (), (4,), {"role": "cotangent", "name": "cotangent"})
ROW, COLUMN = B.reshape(Y, (1, 4)), B.reshape(Y, (4, 1))
POSITIVE = B("gt", Y, 0)
EYE = B.constant(((1.0, 0.0), (0.0, 1.0)), (2, 2))


def operations(node: Node) -> list[str]:
    """What is left of a node."""
    graph = optimise(Graph((Y, M, K, C), {"f": node}))
    return [x.op for x in graph.nodes() if x.op not in ("input", "constant")]


@pytest.mark.parametrize(
    ("node", "left"),
    [
        (B.mul(Y, 1.0), []),
        (B.add(0.0, Y), []),
        (B.sub(Y, 0.0), []),
        (B.sub(0.0, Y), ["neg"]),
        (B.mul(Y, -1.0), ["neg"]),
        (B.neg(B.neg(Y)), []),
        (B.neg(B.sub(Y, K)), ["sub"]),
        (B.add(Y, B.neg(K)), ["sub"]),
        (B.sub(Y, B.neg(K)), ["add"]),
        (B.mul(B.neg(Y), B.neg(K)), ["mul"]),
        (B.mul(B.mul(Y, 2.0), 3.0), ["mul"]),
        (B.div(Y, 4.0), ["mul"]),
        (B.div(1.0, Y), ["reciprocal"]),
        (B.mul(Y, 0.0), ["mul"]),  # may be infinite
        (B.sub(Y, Y), ["sub"]),
        (B("exp", B.constant(0.5)), []),
        (B.add(B("exp", Y), B("exp", Y)), ["exp", "add"]),
        (B.mul(B.add(Y, K), B.add(K, Y)), ["add", "mul"]),
        (B.where(POSITIVE, Y, Y), []),
        (B.where(B("not", POSITIVE), Y, C), ["gt", "where"]),
        (B("ne", B("to_float", POSITIVE), 0.0), ["gt"]),
        (B.add(B.where(POSITIVE, Y, 0.0), B.where(POSITIVE, 0.0, C)), ["gt", "where"]),
        (B("stop", B("stop", Y)), ["stop"]),
        (B("stop", B.constant(1.0)), []),
        (B.reshape(B.reshape(Y, (2, 2)), (4,)), []),
        (B.permute(B.permute(M, (1, 0)), (1, 0)), []),
        (B.permute(ROW, (1, 0)), ["reshape"]),
        (B.expand(B.expand(K, (4,)), (3, 4)), ["expand"]),
        (B("exp", B.expand(K, (3, 4))), ["exp", "expand"]),
        (B.add(B.expand(K, (4,)), Y), ["add"]),
        (B.reshape(B("exp", ROW), (4,)), ["exp"]),
        (B.reshape(B.add(ROW, 1.0), (4,)), ["add"]),
        (B.slice(B.slice(Y, 0, 1, 4), 0, 1, 3), ["slice"]),
        (B.slice(B.cat((Y, C), 0), 0, 0, 4), []),
        (B.slice(B.cat((Y, C), 0), 0, 5, 7), ["slice"]),
        (B.cat((B.slice(Y, 0, 0, 1), B.slice(Y, 0, 1, 4)), 0), []),
        (B.cat((B.slice(Y, 0, 0, 1), B.slice(Y, 0, 2, 3)), 0), ["slice"]),
        (B.cat((B.cat((Y, C), 0), Y), 0), ["cat"]),
        (B.add(B.cat((Y, B.constant(0.0, (4,))), 0), B.cat((B.constant(0.0, (4,)), C), 0)),
         ["cat"]),
        (B.reduce("sum", ROW, (0,)), []),
        (B.reduce("sum", B.expand(K, (4,)), (0,)), ["mul"]),
        (B.reduce("sum", B.reduce("sum", M, (0,)), (0,)), ["sum"]),
        (B("matmul", EYE, M), []),
        (B.permute(B("matmul", COLUMN, ROW), (1, 0)), ["reshape", "reshape", "matmul"]),
        (B("matmul", B.reshape(ROW, (1, 1, 4)), B.reshape(COLUMN, (1, 4, 1))),
         ["reshape", "reshape", "matmul", "reshape"]),
        (B("matmul", B.reshape(Y, (2, 1, 2)), B.expand(B.reshape(M, (1, 2, 3)), (2, 2, 3))),
         ["reshape", "matmul", "reshape"]),
    ],
)  # fmt: skip
def test_rules(node, left):
    """Each shortens what it is for, and changes no value."""
    assert operations(node) == left
    values = {"state": states(3, 4), "cotangent": states(3, 4, seed=1),
              "m": states(2, 3, seed=2), "k": states(seed=3)}  # fmt: skip
    before = Graph((Y, M, K, C), {"f": node})
    torch.testing.assert_close(*(interpret(g, values)["f"] for g in (optimise(before), before)))


def test_signs_of_zero_and_kinds_of_one_are_told_apart():
    negative, positive = (B.div(Y, B.constant(x)) for x in (-0.0, 0.0))
    assert len(operations(B.add(negative, positive))) == 3
    assert passes.share(Graph((Y,), {"f": B.cat((Y, Y), 0)})).nodes()


def test_nan_is_kept():
    y = torch.full((1, 4), torch.nan)
    for node in (B.mul(Y, 0.0), B.sub(Y, Y), B.div(Y, Y)):
        graph = optimise(Graph((Y,), {"f": node}))
        assert interpret(graph, {"state": y})["f"].isnan().all()


def counted(graph: Graph) -> dict[str, int]:
    views = {"input", "constant", "reshape", "permute", "expand", "slice"}
    names = [node.op for node in graph.nodes() if node.op not in views]
    return {name: names.count(name) for name in sorted(set(names))}


def test_a_network_is_as_short_as_can_be():
    """And its derivative: one product for each layer and each weight, one of tanh's slopes."""
    found, *_ = traced(FIELDS["two_layers"]())
    assert counted(found.graph) == {"add": 3, "matmul": 3, "tanh": 2}
    names = frozenset(node.name for node in found.graph.inputs)
    derivative = differentiate(found.differentiable, names)
    assert counted(derivative.backward) == {"matmul": 6, "mul": 4, "sub": 2}
    assert sorted(derivative.recording.outputs) == ["f", "saved0", "saved1"]
    shapes = {name: node.shape for name, node in derivative.backward.outputs.items()}
    inputs = {node.name: node.shape for node in found.graph.inputs}
    assert shapes == {name: inputs[name] for name in shapes}
    assert set(inputs) - set(shapes) == {"time"}
    for name, node in derivative.backward.outputs.items():
        if len(inputs[name]) == 2:
            assert node.op == "matmul"
            assert node.inputs[0].shape[1] == 1
        elif name != "state":
            assert node.op in ("reshape", "input")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(fields)
def test_random_fields(field: Composed) -> None:
    """What is traced is the field, what is derived its gradient."""
    y0 = states(4, 4, seed=3)
    case = Case(field, y0)
    found, row_field, y, t = traced(case)
    inputs = inputs_of(found, row_field, y, t)
    names = [node.name for node in found.graph.inputs]
    leaves = [inputs[name].detach().clone().requires_grad_() for name in ("time", "state")]
    inputs |= dict(zip(("time", "state"), leaves, strict=True))
    f = field(leaves[0][:, None], leaves[1])
    cotangent = states(*f.shape, seed=4)
    read = [inputs[name] for name in names]
    wanted = torch.autograd.grad(f, read, cotangent, allow_unused=True)
    derivative = differentiate(found.differentiable, frozenset(names))
    with torch.no_grad():
        given_f, products = pulled_back(derivative, inputs, cotangent)
    torch.testing.assert_close(given_f, f.detach(), rtol=1e-10, atol=1e-10)
    for name, want in zip(names, wanted, strict=True):
        if found.prologue is not None and name.startswith("prologue"):
            continue
        got = products.get(name)
        if want is None or got is None:
            assert got is None or not got.any()
            assert want is None or not want.any()
        else:
            torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)
