"""A field's evaluation recorded, and pulled back: cotangents of its inputs from one of its value.

What a stage's evaluation leaves for its way back lies in the stage's block of memory.
"""

from dataclasses import dataclass

from llvmlite import ir

from odeum.compile.emit.blocks import Block, Fields
from odeum.compile.emit.code import Code, bytes_of
from odeum.compile.emit.graphs import GraphCode
from odeum.compile.emit.kernel import Spec
from odeum.compile.emit.outer import OuterProducts, emit_outer
from odeum.compile.emit.places import Place
from odeum.compile.emit.stages import input_places
from odeum.compile.ir import Graph, Node

LEFT, RIGHT = "left", "right"


def stage_fields(spec: Spec) -> Fields:
    """What is known of one stage: where it is evaluated, and what that leaves."""
    n, lane = spec.layout.registers, spec.layout.lane
    program = spec.program
    fields = {"t": (lane, n), "y": (lane, n * spec.dim)}
    for node in program.saved:
        fields[node.name] = (lane, n * node.size)
    for name, (left, right) in outer_factors(spec).items():
        fields[_factor(name, LEFT)] = (lane, n * left.size)
        fields[_factor(name, RIGHT)] = (lane, n * right.size)
    return Fields.of(**fields)


def outer_factors(spec: Spec) -> dict[str, tuple[Node, Node]]:
    """The factors of shared gradients that are outer products, by the input's name."""
    assert spec.program.backward is not None
    outputs = spec.program.backward.outputs
    found = {}
    for node in spec.program.wanted("shared"):
        if spec.is_outer(node):
            left, right = outputs[node.name].inputs
            found[node.name] = (left, right)
    return found


def _factor(name: str, side: str) -> str:
    return f"{name} {side}"


def emit_recording(function: ir.Function, spec: Spec) -> None:
    """Writes ``(shared, row, stage, f)``: the field at a stage's time and state, recorded."""
    graph = spec.program.recording
    assert graph is not None
    code = Code(function)
    shared, row, pointer, f = code.arguments
    stage = Block(code, stage_fields(spec), pointer)
    inputs = input_places(code, spec, shared, row, stage.where("t"), stage.where("y"))
    outputs = {
        name: Place.contiguous(f if name == "f" else stage.where(name), node.shape)
        for name, node in graph.outputs.items()
    }
    GraphCode(code, spec.layout, graph, inputs, outputs)
    code.finish()


def emit_pull(function: ir.Function, spec: Spec) -> None:
    """Writes ``(shared, row, stage, g, g_t, g_y, g_row, sums)``.

    Cotangents of the time and the state are put, those of row inputs and of shared ones that are
    no outer products are added; of the others, the stage keeps the factors.
    """
    graph = spec.program.backward
    assert graph is not None
    layout, outer = spec.layout, outer_factors(spec)
    code = Code(function)
    shared, row, pointer, g, g_t, g_y, g_row, sums = code.arguments
    stage = Block(code, stage_fields(spec), pointer)
    inputs = input_places(code, spec, shared, row, stage.where("t"), stage.where("y"))
    for node in graph.of_role("cotangent"):
        inputs[node.name] = Place.contiguous(g, node.shape)
    for node in graph.of_role("saved"):
        inputs[node.name] = Place.contiguous(stage.where(node.name), node.shape)
    outputs: dict[str, Node] = {}
    places: dict[str, Place] = {}
    for name, node in graph.outputs.items():
        if name in outer:
            for side, factor in zip((LEFT, RIGHT), outer[name], strict=True):
                outputs[_factor(name, side)] = factor
                where = stage.where(_factor(name, side))
                places[_factor(name, side)] = Place.contiguous(where, factor.shape)
            continue
        outputs[name] = node
        if name in ("time", "state"):
            where = g_t if name == "time" else g_y
        else:
            where = code.room(layout.lane, node.size * layout.registers + layout.features)
        places[name] = Place.contiguous(where, node.shape)
    GraphCode(code, layout, Graph(graph.inputs, outputs), inputs, places)
    for name in ("time", "state"):
        if name not in outputs:
            n = layout.registers * (spec.dim if name == "state" else 1)
            _clear(code, spec, g_t if name == "time" else g_y, n)
    totals = Block(code, spec.thread, sums)
    done = 0
    for node in spec.program.wanted("row"):
        _add(code, spec, places[node.name], code.at(g_row, layout.lane, done), across=False)
        done += node.size * layout.registers
    for node in spec.program.wanted("shared"):
        if node.name not in outer:
            _add(code, spec, places[node.name], totals.where(node.name), across=True)
    code.finish()


def _clear(code: Code, spec: Spec, pointer: ir.Value, n: int) -> None:
    zero = code.value(ir.Constant(spec.layout.lane, None))
    for i in code.each(n, 24):
        code.store(zero, pointer, i)


def _add(code: Code, spec: Spec, place: Place, total: ir.Value, *, across: bool) -> None:
    """Adds an array to a total, which holds each register, or the sum across registers."""
    layout = spec.layout
    n = layout.registers
    size = 1
    for length in place.shape:
        size *= length
    for i in code.each(size, 24):
        values = [
            code.load(place.pointer, layout.lane, code.add(code.times(i, n), register))
            for register in range(n)
        ]
        if across:
            values = [sum(values[1:], start=values[0])]
        for register, value in enumerate(values):
            at = code.add(code.times(i, len(values)), register)
            code.store(code.load(total, layout.lane, at) + value, total, at)


def emit_outer_sums(function: ir.Function, spec: Spec) -> None:
    """Writes ``(stages, n_stages, sums)``: adds the outer products of which stages keep factors."""
    code = Code(function)
    stages, n_stages, sums = code.arguments
    fields = stage_fields(spec)
    totals, first = Block(code, spec.thread, sums), Block(code, fields, stages)
    for node in spec.program.wanted("shared"):
        if not spec.is_outer(node):
            continue
        n_rows, n_columns = node.shape
        products = OuterProducts(
            first.where(_factor(node.name, LEFT)),
            first.where(_factor(node.name, RIGHT)),
            fields.size // bytes_of(spec.layout.lane),
            n_rows,
            n_columns,
            spec.derivatives.n,
        )
        emit_outer(code, spec.layout, products, n_stages, totals.where(node.name))
    code.finish()


@dataclass(frozen=True)
class PullCode:
    """The recorded field and its way back, as functions that other functions call.

    Attributes:
        recording: see :func:`emit_recording`.
        pull: see :func:`emit_pull`.
        outer: see :func:`emit_outer_sums`.
    """

    recording: ir.Function
    pull: ir.Function
    outer: ir.Function
