"""A whole module: the field, the functions on a thread's rows, and entry points for all threads.

An entry point ``NAME(arguments)`` gives each thread a share of the rows that depends on nothing but
numbers, so that sums over rows come out the same whenever the number of threads is the same. The
threads are those that torch's own operations run on, which wait for work for a while: to wake one,
or to start it, takes as long as a small solve. Where there are none, threads are started.
"""

from llvmlite import ir

from odeum.compile.emit.backward import BackwardCode
from odeum.compile.emit.blocks import Block, Fields
from odeum.compile.emit.code import I32, I64, POINTER, Code, Variable
from odeum.compile.emit.forward import ForwardCode
from odeum.compile.emit.graphs import GraphCode
from odeum.compile.emit.kernel import Arguments, Spec
from odeum.compile.emit.places import Place
from odeum.compile.emit.products import lane_sum
from odeum.compile.emit.pulls import PullCode, emit_outer_sums, emit_pull, emit_recording
from odeum.compile.emit.stages import FieldCode, input_places

VOID = ir.VoidType()

MAX_THREADS = 64
"""The most threads an entry point may be asked for."""

STACK_SIZE = 16 * 2**20
"""Bytes of stack of a thread: systems differ in what they give unasked."""

ATTRIBUTES_SIZE = 256
"""Room for the attributes of a thread, whose size is the system's; none needs as much."""

_TASK = Fields.of(arguments=(POINTER, 1), thread=(I64, 1), handle=(I64, 1), failed=(I32, 1))


def emit_module(spec: Spec, triple: str, data_layout: str) -> ir.Module:
    """The module of a kernel.

    Args:
        spec: what is compiled.
        triple: the machine's.
        data_layout: the machine's.
    """
    module = ir.Module(name="odeum")
    module.triple, module.data_layout = triple, data_layout
    field = emit_field(
        _internal(module, "field", POINTER, POINTER, POINTER, POINTER, POINTER), spec
    )
    advance = _internal(module, "advance", POINTER, POINTER, I64)
    ForwardCode(advance, spec, field)
    _emit_entry(module, spec, "forward", advance)
    if spec.records:
        record = _internal(module, "record", *[POINTER] * 4)
        emit_recording(record, spec)
        pull = _internal(module, "pull", *[POINTER] * 8)
        emit_pull(pull, spec)
        outer = _internal(module, "outer", POINTER, I64, POINTER)
        emit_outer_sums(outer, spec)
        sweep = _internal(module, "sweep", POINTER, POINTER, I64)
        BackwardCode(sweep, spec, PullCode(record, pull, outer))
        totals = _internal(module, "totals", POINTER)
        emit_totals(totals, spec)
        _emit_entry(module, spec, "backward", sweep, totals)
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


def emit_totals(function: ir.Function, spec: Spec) -> None:
    """Writes ``(arguments)``: gradients of what rows share, from the parts of threads and lanes."""
    code = Code(function)
    arguments = Arguments(code, code.arguments[0])
    result, threads = arguments.address("g_shared"), arguments.address("threads")
    n_threads, done = arguments.number("n_threads"), 0
    for node in spec.program.wanted("shared"):
        kind, offset = spec.thread.kinds[node.name], spec.thread.offsets[node.name]
        with code.loop(node.size) as i:
            total = Variable(code, kind)
            total.set(code.value(ir.Constant(kind, None)))
            with code.loop(n_threads) as thread:
                own = code.builder.mul(thread, code.integer(spec.thread.size))
                part = code.offset(code.offset(threads, own), offset)
                total.set(total.get() + code.load(part, kind, i))
            code.store(lane_sum(code, total.get()), result, code.add(i, done))
        done += node.size
    code.finish()


def _emit_entry(
    module: ir.Module,
    spec: Spec,
    name: str,
    function: ir.Function,
    at_last: ir.Function | None = None,
) -> None:
    """Writes the entry point that calls a function on every thread, with the thread's block.

    Args:
        module: where it goes.
        spec: what is compiled.
        name: its name.
        function: ``(arguments, block, thread)``.
        at_last: ``(arguments)``, called once all threads are done with the last call.
    """
    worker = _internal(module, f"{name}_worker", POINTER, I64)
    code = Code(worker)
    pointer, thread = code.arguments
    arguments = Arguments(code, pointer)
    at = code.builder.mul(thread, code.integer(spec.group.size))
    block = code.offset(arguments.address("groups"), at)
    code.call(function, pointer, block, thread)
    code.finish()
    _emit_threads(module, name, worker, at_last)


def _emit_threads(
    module: ir.Module, name: str, worker: ir.Function, at_last: ir.Function | None
) -> None:
    """Writes ``NAME(arguments)``: the worker on every thread, the calling one among them."""
    entry = ir.Function(module, ir.FunctionType(VOID, [POINTER]), name)
    code = Code(entry)
    builder, pointer = code.builder, code.arguments[0]
    arguments = Arguments(code, pointer)
    many = builder.icmp_signed(">", arguments.number("n_threads"), code.integer(1))
    team = builder.icmp_signed("!=", arguments.number("parallel"), code.integer(0))
    with code.when(builder.not_(many)):
        code.call(worker, pointer, code.integer(0))
    with code.when(builder.and_(many, team)):
        parallel, member = arguments.address("parallel"), _emit_team_member(module, name, worker)
        n_threads = builder.trunc(arguments.number("n_threads"), I32)
        code.call_at(parallel, VOID, member, pointer, n_threads, ir.Constant(I32, 0))
    with code.when(builder.and_(many, builder.not_(team))):
        code.call(_emit_own_threads(module, name, worker), pointer)
    if at_last is not None:
        last_call = arguments.number("last_call")
        with code.when(builder.icmp_signed("!=", last_call, code.integer(0))):
            code.call(at_last, pointer)
    code.finish()


def _emit_team_member(module: ir.Module, name: str, worker: ir.Function) -> ir.Function:
    """Writes ``(arguments)``: what each thread of an OpenMP team does, which may be a small one."""
    member = _internal(module, f"{name}_member", POINTER)
    code = Code(member)
    pointer = code.arguments[0]
    arguments = Arguments(code, pointer)
    size, number = (
        code.builder.zext(code.call_at(arguments.address(of), I32), I64)
        for of in ("team_size", "team_number")
    )
    thread = Variable(code, I64)
    thread.set(code.value(number))
    n_threads = code.value(arguments.number("n_threads"))
    with code.forever() as leave:
        leave.unless((thread.get() < n_threads).value)
        code.call(worker, pointer, thread.get().value)
        thread.set(thread.get() + code.value(size))
    code.finish()
    return member


def _emit_own_threads(module: ir.Module, name: str, worker: ir.Function) -> ir.Function:
    """Writes ``(arguments)``: the worker on threads that are started for it."""
    start = ir.Function(module, ir.FunctionType(POINTER, [POINTER]), f"{name}_thread")
    start.linkage = "internal"
    code = Code(start)
    task = Block(code, _TASK, code.arguments[0])
    code.call(worker, task.get("arguments").value, task.get("thread").value)
    code.finish(ir.Constant(POINTER, None))

    all_threads = _internal(module, f"{name}_threads", POINTER)
    code = Code(all_threads)
    pointer = code.arguments[0]
    n_threads = Arguments(code, pointer).number("n_threads")
    tasks = code.room(ir.IntType(8), _TASK.size * MAX_THREADS)

    def task_of(thread: ir.Value) -> Block:
        at = code.builder.mul(thread, code.integer(_TASK.size))
        return Block(code, _TASK, code.offset(tasks, at))

    attributes = code.room(ir.IntType(8), ATTRIBUTES_SIZE)
    code.call(_external(module, "pthread_attr_init", POINTER), attributes)
    set_size = _external(module, "pthread_attr_setstacksize", POINTER, I64)
    code.call(set_size, attributes, code.integer(STACK_SIZE))
    with code.loop(n_threads, start=1) as thread:
        task = task_of(thread)
        task.set("arguments", code.value(pointer))
        task.set("thread", code.value(thread))
        create, handle = _create(module), task.where("handle")
        failed = code.call(create, handle, attributes, start, task.pointer)
        task.set("failed", code.value(failed))
    code.call(worker, pointer, code.integer(0))
    with code.loop(n_threads, start=1) as thread:
        task = task_of(thread)
        # Where the system gave no thread, this one does its part.
        with code.when((task.get("failed") != 0).value):
            code.call(worker, pointer, thread)
        with code.when((task.get("failed") == 0).value):
            code.call(_join(module), task.get("handle").value, ir.Constant(POINTER, None))
    code.finish()
    return all_threads


def _external(module: ir.Module, name: str, *kinds: ir.Type) -> ir.Function:
    known = module.globals.get(name)
    return known or ir.Function(module, ir.FunctionType(I32, kinds), name)


def _create(module: ir.Module) -> ir.Function:
    return _external(module, "pthread_create", *[POINTER] * 4)


def _join(module: ir.Module) -> ir.Function:
    return _external(module, "pthread_join", I64, POINTER)
