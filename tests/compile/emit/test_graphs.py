"""Graphs as machine code against the interpreter, in every layout of rows."""

from collections.abc import Callable

import pytest
import torch
from fields import FIELDS, states
from native import LAYOUTS, Natives, add_graph
from tracing import inputs_of, traced

from odeum.compile.build import Builder
from odeum.compile.derivative import differentiate
from odeum.compile.emit.places import Layout
from odeum.compile.emit.values import DOUBLE
from odeum.compile.interpret import interpret
from odeum.compile.ir import BINARY, UNARY, Graph, Node

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script")

B = Builder()


def argument(name: str, role: str, *shape: int) -> Node:
    return Node("input", (), shape, {"role": role, "name": name})


T = argument("t", "time")
SMALL = argument("small", "state", 2, 3)
LARGE = argument("large", "state", 5, 9)
LINE = argument("line", "row", 9)
COLUMN = argument("column", "shared", 5, 1)
WEIGHT = argument("weight", "shared", 9, 7)
OWN = argument("own", "row", 9, 7)
LONG = argument("long", "state", 70)
INPUTS = (T, SMALL, LARGE, LINE, COLUMN, WEIGHT, OWN, LONG)


def values(n_rows: int) -> dict[str, torch.Tensor]:
    return {
        node.name: states(
            *(() if node.role == "shared" else (n_rows,)), *node.shape, seed=i, low=0.1, high=0.9
        )
        for i, node in enumerate(INPUTS)
    }


def pointwise() -> dict[str, Node]:
    """Written out element by element, as a loop, and mixed with what rows share."""
    found = {}
    boolean = B("lt", SMALL, 0.5)
    for op in sorted(UNARY - {"not", "to_float", "stop"}):
        found[op] = B(op, LARGE)
    for op in sorted(BINARY - {"and", "or"}):
        result = B(op, LARGE, B.mul(LINE, COLUMN))
        found[op] = B("to_float", result) if result.boolean else result
    for op in ("and", "or"):
        found[op] = B("to_float", B(op, boolean, B("gt", SMALL, T)))
    found["not"] = B("to_float", B("not", boolean))
    found["where"] = B.where(B("lt", LARGE, LINE), COLUMN, LARGE)
    found["written out"] = B("tanh", SMALL)
    found["where of numbers"] = B.where(B("lt", T, 0.5), 1.0, B.neg(T))
    return found


def chains() -> dict[str, Node]:
    """What is computed where it is read, and what is not."""
    twice = B("exp", LARGE)
    less = B("lt", LARGE, 0.4)
    mask = B.where(less, twice, B.mul(twice, LINE))
    return {
        "a chain": B("tanh", B.add(B.mul(LARGE, 2.0), LINE)),
        "read twice": B.mul(B.add(twice, 1.0), B("sin", twice)),
        "a mask read twice": B.add(mask, B.where(less, 0.0, LARGE)),
        "number for all": B.mul(LARGE, B("exp", T)),
        "of shared alone": B("exp", COLUMN),
        "a large reader": B.mul(B.expand(B("exp", LINE), (5, 9)), LARGE),
        "inside a sum": B.reduce("sum", B("exp", B.mul(LARGE, LARGE)), (1,)),
    }


def views() -> dict[str, Node]:
    turned = B.permute(LARGE, (1, 0))
    part = B.slice(LARGE, 1, 1, 8, 3)
    back = B.slice(LARGE, 1, 8, 1, -2)
    return {
        "permuted": turned,
        "reshaped": B.reshape(LARGE, (3, 15)),
        "no strides": B.reshape(turned, (45,)),
        "no strides, then more": B("exp", B.reshape(B.permute(LARGE, (1, 0)), (15, 3))),
        "expanded": B.expand(COLUMN, (5, 9)),
        "expanded and reshaped": B.reshape(B.expand(COLUMN, (5, 9)), (9, 5)),
        "sliced": part,
        "sliced, in a product": B.mul(part, B.slice(back, 1, 0, 3)),
        "backwards": back,
        "to the first": B.slice(LINE, 0, 8, -1, -1),
        "one": B.select(LARGE, 0, 3),
        "concatenated": B.cat([LARGE, B.mul(turned, 2.0), B.reshape(LINE, (1, 9))], 0)
        if turned.shape[1] == 9
        else B.cat([LARGE, B.expand(COLUMN, (5, 4)), B.mul(LARGE, 2.0)], 1),
        "concatenated of numbers": B.cat([B.reshape(T, (1,)), LINE], 0),
        "gathered": B.gather(LARGE, [7, 3, 3, 44, 0, 12], (2, 3)),
        "constants": B.mul(B.constant(((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)), (2, 3)), SMALL),
        "constants alone": B.constant((1.5, -2.5), (2,)),
        "an input": LARGE,
    }


def reductions() -> dict[str, Node]:
    found = {}
    for op in ("sum", "amax", "amin"):
        for node, dims in ((SMALL, (0,)), (SMALL, (0, 1)), (LARGE, (1,)), (LARGE, (0,))):
            found[f"{op} {node.name} {dims}"] = B.reduce(op, node, dims)
        found[f"{op} long"] = B.reduce(op, LONG, (0,))
        found[f"{op} of what all share"] = B.reduce(op, WEIGHT, (0,))
        found[f"{op} permuted"] = B.reduce(op, B.permute(LARGE, (1, 0)), (1,), keepdim=True)
    return found


def products() -> dict[str, Node]:
    line = B.reshape(LINE, (1, 9))
    return {
        "shared": B("matmul", LARGE, WEIGHT),
        "own": B("matmul", LARGE, OWN),
        "a vector": B("matmul", line, WEIGHT),
        "an outer product": B("matmul", B.permute(line, (1, 0)), line),
        "of something computed": B("matmul", B("exp", LARGE), B.mul(WEIGHT, 2.0)),
        "pulled back": B("matmul", B.permute(B("matmul", line, OWN), (1, 0)), line),
        "solved": B(
            "solve",
            B.add(
                B("matmul", SMALL, B.permute(SMALL, (1, 0))),
                B.constant(((3.0, 0.0), (0.0, 3.0)), (2, 2)),
            ),
            SMALL,
        ),
    }  # fmt: skip


CLASSES: dict[str, Callable[[], dict[str, Node]]] = {
    "pointwise": pointwise,
    "chains": chains,
    "views": views,
    "reductions": reductions,
    "products": products,
}


def compare(graph: Graph, layout: Layout, given: dict, expected: dict, scale: float = 1.0) -> None:
    bound = scale * (1e-13 if layout.real == DOUBLE else 1e-5)
    for name, x in expected.items():
        torch.testing.assert_close(
            given[name].double(), x, rtol=bound, atol=bound, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.sweep(2)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", CLASSES)
def test_operations(kind, layout):
    if layout == "two registers of rows" and kind == "pointwise":
        return  # its own loops are those of the other kinds; the functions are the same
    layout = LAYOUTS[layout]
    graph = Graph(INPUTS, CLASSES[kind]())
    if layout.real != DOUBLE:  # what is discontinuous may jump between two roundings
        keep = {"floor", "ceil", "round", "trunc", "eq", "ne", "lt", "le", "gt", "ge", "sign"}
        outputs = {n: x for n, x in graph.outputs.items() if n.split()[0] not in keep}
        graph = Graph(INPUTS, outputs)
    natives = Natives()
    native = add_graph(natives, graph, layout)
    given = values(layout.n_rows)
    if layout.real != DOUBLE:
        given = {name: x.float().double() for name, x in given.items()}
    compare(graph, layout, native(given), interpret(graph, given))


@pytest.mark.parametrize("layout", ["rows", "features"])
def test_special_values(layout):
    """NaN, infinities and zeros go where torch says."""
    layout = LAYOUTS[layout]
    special = torch.tensor(
        [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1.0, -2.0, 1e-310]
    )
    x, z = (argument(name, "state", 64) for name in ("x", "z"))
    boolean = ("lt", "le", "gt", "ge", "eq", "ne")
    outputs = {op: B(op, x, z) for op in ("add", "mul", "div", "maximum", "minimum", *boolean)}
    outputs = {op: B("to_float", y) if y.boolean else y for op, y in outputs.items()}
    outputs |= {op: B(op, x) for op in ("neg", "abs", "sign", "reciprocal", "sqrt", "rsqrt")}
    outputs["where"] = B.where(B("lt", x, z), x, z)
    outputs |= {op: B.reduce(op, B.reshape(x, (8, 8)), (1,)) for op in ("sum", "amax", "amin")}
    graph = Graph((x, z), outputs)
    native = add_graph(Natives(), graph, layout)
    rows = (layout.n_rows, 64)
    given = {"x": special.repeat_interleave(8).expand(rows), "z": special.repeat(8).expand(rows)}
    for name, wanted in interpret(graph, given).items():
        found = native(given)[name]
        torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
        zeros = wanted == 0
        assert (found.signbit() == wanted.signbit())[zeros].all() or name == "sum"


FIELDS_HERE = ["attention", "newton_step"]


@pytest.mark.parametrize("name", FIELDS_HERE)
def test_fields(name):
    """A field, recorded and pulled back, in every layout of rows."""
    check_field(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(FIELDS) - set(FIELDS_HERE)))
def test_every_field(name):
    check_field(name)


def check_field(name: str) -> None:
    found, field, y, t = traced(FIELDS[name]())
    inputs = inputs_of(found, field, y, t)
    names = [node.name for node in found.graph.inputs]
    derivative = differentiate(found.differentiable, frozenset(names))
    cotangent = states(*y.shape, seed=9)
    with torch.no_grad():
        recorded = interpret(derivative.recording, inputs)
        given = {**inputs, **recorded, "cotangent": cotangent}
        pulled = interpret(derivative.backward, given)
    for layout in (LAYOUTS["rows"], LAYOUTS["features"]):
        natives = Natives()
        graphs = [found.graph, derivative.recording, derivative.backward]
        native = [add_graph(natives, graph, layout) for graph in graphs]
        rows = torch.arange(layout.n_rows) % len(y)
        roles = {node.name: node.role for graph in graphs for node in graph.inputs}
        # What no graph reads may have no rows.
        own = {
            n: given[n].detach() if role == "shared" else given[n].detach()[rows]
            for n, role in roles.items()
        }
        wanted = [{"f": recorded["f"]}, recorded, pulled]
        for run, expected, graph in zip(native, wanted, graphs, strict=True):
            expected = {n: expected[n].detach()[rows] for n in graph.outputs}
            scale = max(1.0, *(float(x.abs().max()) for x in expected.values()))
            compare(graph, layout, run(own), expected, 10 * scale)
