"""Random fields: the eager engine, the interpreter and machine code agree."""

import pytest
import torch
from agreement import assert_near, assert_same
from compositions import Composed, fields
from fields import Case, states
from hypothesis import HealthCheck, Verbosity, given, settings
from hypothesis import strategies as st
from native import LAYOUTS, Natives, add_graph
from torch import nn
from torch.nn import functional
from tracing import inputs_of, traced

from odeum.compile.derivative import differentiate
from odeum.compile.interpret import interpret

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script")

EVERYTHING = list(HealthCheck)
usual = settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=EVERYTHING,
    verbosity=Verbosity.quiet,
)
many = settings(max_examples=300, deadline=None, suppress_health_check=EVERYTHING)


def check_graphs(field: nn.Module, dim: int, n_rows: int) -> None:
    """A field and its vector-Jacobian product: torch's, the interpreter's, the machine's."""
    y = states(n_rows, dim, seed=n_rows)
    found, row_field, y, t = traced(Case(field, y))
    inputs = inputs_of(found, row_field, y, t)
    names = [node.name for node in found.graph.inputs]
    inputs = {name: inputs[name].detach().requires_grad_() for name in names}
    cotangent = states(n_rows, dim, seed=9)
    of_field = {**dict(field.named_parameters()), "y": y, "t": t}
    leaves = {name: x.detach().clone().requires_grad_() for name, x in of_field.items()}
    weights = {name: x for name, x in leaves.items() if name not in ("y", "t")}
    expected = torch.func.functional_call(field, weights, (leaves["t"], leaves["y"]))
    grads = torch.autograd.grad(expected, [leaves["y"], leaves["t"]], cotangent, allow_unused=True)
    derivative = differentiate(found.differentiable, frozenset(names))
    with torch.no_grad():
        recorded = interpret(derivative.recording, inputs)
        given_values = {**inputs, **recorded, "cotangent": cotangent}
        pulled = interpret(derivative.backward, given_values)
    scale = max(1.0, *(float(x.abs().max()) for x in [expected.detach(), *pulled.values()]))
    assert_near(recorded["f"], expected, 1e-12 * scale)
    for name, g, size in (("state", grads[0], y.shape), ("time", grads[1], t[:, 0].shape)):
        g = torch.zeros(size) if g is None else g.reshape(size)
        assert_near(pulled.get(name, torch.zeros(size)), g, 1e-10 * scale)
    for layout in (LAYOUTS["rows"], LAYOUTS["features"]):
        natives = Natives()
        graphs = (found.graph, derivative.recording, derivative.backward)
        natively = [add_graph(natives, graph, layout) for graph in graphs]
        roles = {node.name: node.role for graph in graphs for node in graph.inputs}
        rows = torch.arange(layout.n_rows) % n_rows
        own = {
            name: x.detach() if roles.get(name) == "shared" else x.detach()[rows]
            for name, x in given_values.items()
        }
        wanted = ({"f": recorded["f"]}, recorded, pulled)
        for run, outputs in zip(natively, wanted, strict=True):
            for name, x in run(own).items():
                assert_near(x, outputs[name].detach()[rows], 1e-12 * scale)


class Layered(nn.Module):
    """A field of any dimension: layers, pointwise functions, time, norms and views."""

    def __init__(self, dim: int, kinds: list[str], widths: list[int]) -> None:
        super().__init__()
        torch.manual_seed(dim)
        self.kinds, self.layers = kinds, nn.ModuleList()
        n = dim
        for kind, width in zip(kinds, widths, strict=False):
            n += kind == "time"
            self.layers.append(nn.Linear(n, width))
            n = width
        self.last = nn.Linear(n, dim)

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = y
        for kind, layer in zip(self.kinds, self.layers, strict=False):
            if kind == "time":
                x = torch.cat([x, t.expand(len(x), 1)], -1)
            elif kind == "norm":
                x = functional.layer_norm(x, x.shape[-1:])
            elif kind == "softmax":
                x = torch.softmax(x, -1)
            elif kind == "residual":
                x = x + torch.tanh(x).flip(-1)
            elif kind == "scaled":
                x = x / (1 + x.square().sum(-1, keepdim=True))
            elif kind == "largest":
                x = x - x.amax(-1, keepdim=True)
            x = functional.silu(layer(x))
        return self.last(x)


kinds = st.lists(
    st.sampled_from(["time", "norm", "softmax", "residual", "scaled", "largest", "none"]),
    min_size=1,
    max_size=3,
)
layered = st.tuples(st.integers(1, 9), kinds, st.lists(st.integers(1, 20), min_size=3, max_size=3))
rows = st.integers(1, 20)


def check_solve(field: nn.Module, dim: int, n_rows: int) -> None:
    ts = torch.tensor([0.0, 0.05, 0.2])
    step = None if n_rows % 2 else {"method": "rk4"}
    assert_same(field, states(n_rows, dim), ts, gradients=1e-9, states=1e-11, **(step or {}))


@usual
@given(fields, rows)
def test_compositions(field: Composed, n_rows: int) -> None:
    check_graphs(field, 4, n_rows)


@pytest.mark.slow
@usual
@given(layered, rows)
def test_layers(drawn: tuple[int, list[str], list[int]], n_rows: int) -> None:
    check_graphs(Layered(*drawn), drawn[0], n_rows)


@pytest.mark.slow
@settings(usual, max_examples=2)
@given(layered, rows)
def test_solves(drawn: tuple[int, list[str], list[int]], n_rows: int) -> None:
    check_solve(Layered(*drawn), drawn[0], n_rows)


@pytest.mark.slow
@many
@given(fields, rows)
def test_many_compositions(field: Composed, n_rows: int) -> None:
    check_graphs(field, 4, n_rows)


@pytest.mark.slow
@many
@given(layered, rows)
def test_many_layers(drawn: tuple[int, list[str], list[int]], n_rows: int) -> None:
    check_graphs(Layered(*drawn), drawn[0], n_rows)


@pytest.mark.slow
@settings(many, max_examples=100)
@given(layered, rows)
def test_many_solves(drawn: tuple[int, list[str], list[int]], n_rows: int) -> None:
    check_solve(Layered(*drawn), drawn[0], n_rows)


@pytest.mark.slow
@settings(many, max_examples=100)
@given(fields, rows)
def test_many_solves_of_compositions(field: Composed, n_rows: int) -> None:
    check_solve(field, 4, n_rows)
