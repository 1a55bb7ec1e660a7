"""A whole module: the field, the functions on groups of rows, and entry points that share out rows.

An entry point ``NAME(arguments)`` gives each thread every ``n_threads``-th group, so that sums over
rows come out the same whenever the number of threads is the same.
"""

from llvmlite import ir

from odeum.compile.emit.blocks import Block
from odeum.compile.emit.code import I32, I64, POINTER, Code, Variable
from odeum.compile.emit.forward import DONE, ForwardCode
from odeum.compile.emit.graphs import GraphCode
from odeum.compile.emit.kernel import Arguments, Spec
from odeum.compile.emit.places import Place
from odeum.compile.emit.stages import FieldCode

VOID = ir.VoidType()


def emit_module(spec: Spec, triple: str, data_layout: str) -> ir.Module:
    """The module of a kernel.

    Args:
        spec: what is compiled.
        triple: the machine's.
        data_layout: the machine's.
    """
    module = ir.Module(name="odeum")
    module.triple, module.data_layout = triple, data_layout
    field = emit_field(_internal(module, "field", POINTER, POINTER, POINTER, POINTER, POINTER), spec)
    advance = _internal(module, "advance", POINTER, POINTER, I64)
    ForwardCode(advance, spec, field)
    _emit_entry(module, spec, "forward", advance)
    return module


def _internal(module: ir.Module, name: str, *kinds: ir.Type) -> ir.Function:
    function = ir.Function(module, ir.FunctionType(VOID, kinds), name)
    function.linkage = "internal"
    for argument in function.args:
        if argument.type == POINTER:
            argument.add_attribute("noalias")
    return function


def emit_field(function: ir.Function, spec: Spec) -> FieldCode:
    """Writes the field into a function ``(shared, row, t, y, f)``."""
    code, graph = Code(function), spec.program.forward
    shared, row, t, y, f = code.arguments
    inputs = input_places(code, spec, shared, row, t, y)
    GraphCode(code, spec.layout, graph, inputs, {"f": Place.contiguous(f, (spec.dim,))})
    code.finish()
    return FieldCode(spec, function)


def input_places(
    code: Code, spec: Spec, shared: ir.Value, row: ir.Value, t: ir.Value, y: ir.Value
) -> dict[str, Place]:
    """Where the inputs of a field's graphs lie, by name."""
    graph, layout = spec.program.forward, spec.layout
    places = {}
    for role, pointer in (("time", t), ("state", y)):
        for node in graph.of_role(role):
            places[node.name] = Place.contiguous(pointer, node.shape)
    for i, node in enumerate(spec.program.shared):
        pointer = code.load(shared, POINTER, i).value
        places[node.name] = Place.contiguous(pointer, node.shape, rows=False)
    done = 0
    for node in spec.program.row:
        pointer = code.at(row, layout.lane, done * layout.registers)
        places[node.name] = Place.contiguous(pointer, node.shape)
        done += node.size
    return places


def _emit_entry(module: ir.Module, spec: Spec, name: str, function: ir.Function) -> None:
    """Writes the entry point that calls a function of groups on all of them."""
    worker = _internal(module, f"{name}_worker", POINTER, I64)
    code = Code(worker)
    pointer, thread = code.arguments
    arguments = Arguments(code, pointer)
    n_groups = arguments.number("n_groups")
    group = Variable(code, I64)
    group.set(code.value(thread))
    with code.forever() as leave:
        leave.unless(code.builder.icmp_signed("<", group.get().value, n_groups))
        at = code.builder.mul(group.get().value, code.integer(spec.group.size))
        block = Block(code, spec.group, code.offset(arguments.address("groups"), at))
        first = code.builder.mul(group.get().value, code.integer(spec.layout.n_rows))
        with code.when((block.get("numbers", DONE) == 0).value):
            code.call(function, pointer, block.pointer, first)
        group.set(group.get() + code.value(arguments.number("n_threads")))
    code.finish()
    _emit_threads(module, name, worker)


def _emit_threads(module: ir.Module, name: str, worker: ir.Function) -> None:
    """Writes ``NAME(arguments)``: the worker on every thread, the calling one among them."""
    task = ir.LiteralStructType([POINTER, I64])
    start = ir.Function(module, ir.FunctionType(POINTER, [POINTER]), f"{name}_thread")
    start.linkage = "internal"
    code = Code(start)
    own = code.arguments[0]
    arguments = code.load(own, POINTER, 0).value
    code.call(worker, arguments, code.load(own, I64, 1).value)
    code.finish(ir.Constant(POINTER, None))

    create = ir.Function(module, ir.FunctionType(I32, [POINTER] * 4), "pthread_create")
    join = ir.Function(module, ir.FunctionType(I32, [I64, POINTER]), "pthread_join")
    entry = ir.Function(module, ir.FunctionType(VOID, [POINTER]), name)
    code = Code(entry)
    pointer = code.arguments[0]
    n_threads = Arguments(code, pointer).number("n_threads")
    del task, create, join, n_threads
    code.call(worker, pointer, code.integer(0))
    code.finish()
