"""Runs emitted code on NumPy arrays."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from llvmlite import binding, ir

from odeum.compile.emit.values import DOUBLE, FLOAT

binding.initialize_native_target()
binding.initialize_native_asmprinter()

ON_X86 = binding.get_default_triple().startswith("x86_64")
TARGETS = {
    "host": (binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()),
    **({"baseline": ("x86-64", "")} if ON_X86 else {}),
}

Emit = Callable[..., ir.Value]


@dataclass
class Pointwise:
    """Compiles functions of each element, given how a builder computes them from operands."""

    engines: list[object]

    def __call__(
        self, emit: Emit, element: ir.Type, lanes: int, *, n_operands: int = 1, target: str = "host"
    ) -> Callable[..., np.ndarray]:
        module = _module(emit, element, lanes, n_operands)
        cpu, features = TARGETS[target]
        machine = binding.Target.from_default_triple().create_target_machine(
            cpu=cpu, features=features, opt=3
        )
        parsed = binding.parse_assembly(str(module))
        parsed.verify()
        options = binding.create_pipeline_tuning_options(speed_level=3)
        passes = binding.create_pass_builder(machine, options)
        passes.getModulePassManager().run(parsed, passes)
        engine = binding.create_mcjit_compiler(parsed, machine)
        engine.finalize_object()
        self.engines.append(engine)
        pointers = [ctypes.c_void_p] * (n_operands + 1)
        native = ctypes.CFUNCTYPE(None, ctypes.c_int64, *pointers)(
            engine.get_function_address("pointwise")
        )
        dtype = np.float32 if element == FLOAT else np.float64

        def run(*arrays: np.ndarray) -> np.ndarray:
            n = len(arrays[0])
            padded = [np.zeros(n + -n % lanes, dtype) for _ in arrays]
            for target_array, array in zip(padded, arrays, strict=True):
                assert array.dtype == dtype
                target_array[:n] = array
            result = np.empty_like(padded[0])
            native(len(result), *(a.ctypes.data for a in padded), result.ctypes.data)
            return result[:n]

        return run


@pytest.fixture(scope="session")
def pointwise() -> Pointwise:
    return Pointwise([])


def _module(emit: Emit, element: ir.Type, lanes: int, n_operands: int) -> ir.Module:
    kind = ir.VectorType(element, lanes) if lanes > 1 else element
    index_type, pointer = ir.IntType(64), ir.PointerType()
    module = ir.Module()
    module.triple = binding.get_default_triple()
    signature = ir.FunctionType(ir.VoidType(), [index_type, *[pointer] * (n_operands + 1)])
    function = ir.Function(module, signature, "pointwise")
    n, *sources, destination = function.args
    entry, loop, end = (function.append_basic_block() for _ in range(3))
    builder = ir.IRBuilder(entry)
    builder.branch(loop)
    builder.position_at_end(loop)
    index = builder.phi(index_type)
    index.add_incoming(ir.Constant(index_type, 0), entry)
    operands = []
    for source in sources:
        operand = builder.load(builder.gep(source, [index], source_etype=element), typ=kind)
        operand.align = 8 if element == DOUBLE else 4
        operands.append(operand)
    result = emit(builder, *operands)
    place = builder.gep(destination, [index], source_etype=element)
    builder.store(result, place, align=8 if element == DOUBLE else 4)
    following = builder.add(index, ir.Constant(index_type, lanes))
    index.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, n), loop, end)
    builder.position_at_end(end)
    builder.ret_void()
    return module
