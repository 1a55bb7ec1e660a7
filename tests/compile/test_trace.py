"""What is traced is what the field computes; what cannot be traced says why, and where."""

import pytest
import torch
from fields import FIELDS, REFUSED, Case, states
from tracing import inputs_of, traced

from odeum.compile.interpret import interpret
from odeum.compile.trace import trace
from odeum.eager.field import RowField
from odeum.errors import TraceError
from odeum.tree import structure_of

# Torch's own forward-mode derivatives are still written in TorchScript.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script")


@pytest.mark.parametrize("name", FIELDS)
def test_graph_is_the_field(name):
    case = FIELDS[name]()
    found, field, y, t = traced(case)
    y = y + 0.05 * torch.cos(torch.arange(y.numel())).reshape(y.shape)
    for graph in (found.graph, found.differentiable):
        given = interpret(graph, inputs_of(found, field, y, t))["f"]
        torch.testing.assert_close(given, field(t, y), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    build, words = REFUSED[name]
    with pytest.raises(TraceError, match=words) as raised:
        traced(build())
    assert raised.value.operation
    assert "\n" not in str(raised.value)


def test_refusals_tell_the_line():
    def field(t, y):
        z = torch.sort(y).values  # the line
        return z * 2

    with pytest.raises(TraceError, match=r"sort \(test_trace.py:\d+\) is not among") as raised:
        traced(Case(field, states(3, 2)))
    line = field.__code__.co_firstlineno + 1
    assert raised.value.operation == "sort"
    assert raised.value.source == f"test_trace.py:{line}"


def test_nodes_tell_their_lines():
    def field(t, y):
        z = torch.sin(y)
        return z * torch.func.grad(lambda x: x.exp().sum())(y)

    found, *_ = traced(Case(field, states(3, 2)))
    first = field.__code__.co_firstlineno
    sources = {node.op: node.source for node in found.graph.nodes()}
    assert sources["sin"] == f"test_trace.py:{first + 1}"
    assert sources["exp"] == f"test_trace.py:{first + 2}"


def test_what_depends_on_weights_alone_is_computed_once():
    case = FIELDS["weight_norm"]()
    found, field, y, t = traced(case)
    assert found.prologue is not None
    (name,) = found.prologue.outputs
    assert {node.op for node in found.graph.nodes()}.isdisjoint({"div", "sqrt"})
    f = interpret(found.graph, inputs_of(found, field, y, t))["f"]
    parameters = list(case.field.parameters())
    expected = torch.autograd.grad(field(t, y).square().sum(), parameters)
    for given, wanted in zip(torch.autograd.grad(f.square().sum(), parameters), expected,
                             strict=True):  # fmt: skip
        torch.testing.assert_close(given, wanted)
    assert name in {node.name for node in found.graph.inputs}


def test_views_of_weights_are_no_prologue():
    weight = states(3, 2).requires_grad_()
    found, *_ = traced(Case(lambda t, y: y @ weight.T[:, 1:], states(3, 2)))
    assert found.prologue is None


def test_one_row_alone_may_be_taken_for_granted():
    def field(t, y):
        position, velocity = y[0]
        return torch.stack([velocity, -position])[None]

    alone = Case(field, states(1, 2))
    found, row_field, *_ = traced(alone)
    assert found.single
    assert found.values(row_field) is not None
    with pytest.raises(TraceError, match="fails on 3"):
        traced(Case(field, states(4, 2)))
    assert found.values(traced(Case(lambda t, y: -y, states(4, 2)))[1]) is None
    many = RowField(field, structure_of(states(4, 2)), None, joint=False)
    assert found.values(many) is None
    assert not traced(Case(lambda t, y: -y, states(1, 2)))[0].single


def test_constant_fields():
    found, field, y, t = traced(Case(lambda t, y: torch.ones_like(y), states(3, 2)))
    assert interpret(found.graph, inputs_of(found, field, y, t))["f"].tolist() == [[1.0, 1.0]] * 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"joint": True}, "coupling"), ({"integrals": object()}, "integrals")],
)
def test_settings_that_are_refused(changes, words):
    y = states(3, 2)
    field = RowField(lambda t, y: -y, structure_of(y), None, **{"joint": False, **changes})
    with pytest.raises(TraceError, match=words):
        trace(field, y, torch.zeros(3, 1))


def test_inside_a_transform_fields_are_refused():
    y = states(3, 2)
    field = RowField(lambda t, y: -y, structure_of(y), None, joint=False)
    with pytest.raises(TraceError, match=r"torch\.func"):
        torch.func.vmap(lambda x: trace(field, y, x))(torch.zeros(2, 3, 1))


def test_low_precision_is_refused():
    with pytest.raises(TraceError, match="float16"):
        traced(Case(lambda t, y: -y, states(3, 2).half()))


def test_tracing_leaves_no_trace():
    """Neither in gradients, nor in random numbers, nor in the field."""
    net = FIELDS["two_layers"]().field
    y = states(5, 2)
    before = torch.get_rng_state()
    kept = dict(vars(net))
    traced(Case(net, y))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in net.parameters())
    assert vars(net) == kept
    assert not y.requires_grad


def test_what_torch_compile_wraps_is_taken_as_written():
    net = FIELDS["two_layers"]().field
    found, field, y, t = traced(Case(torch.compile(net, backend="eager"), states(5, 2)))
    given = interpret(found.graph, inputs_of(found, field, y, t))["f"]
    torch.testing.assert_close(given, net(t, y))
