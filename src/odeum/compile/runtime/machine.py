"""The processor that kernels are made for, and machine code for it."""

import os
import platform
from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm

from odeum.errors import InputError

REGISTER_BYTES = (("avx512f", 64), ("avx2", 32))
"""Sizes of vector registers by the feature of x86 processors that brings them; else 16."""

BASELINE = "baseline"


@dataclass(frozen=True)
class Machine:
    """A processor.

    Attributes:
        triple: architecture and system.
        cpu: its name, as LLVM knows it.
        features: what it can do, as LLVM writes that down.
        register_bytes: the size of a vector register.
    """

    triple: str
    cpu: str
    features: str
    register_bytes: int

    def width(self, dtype_bytes: int) -> int:
        """Numbers in a vector register."""
        return self.register_bytes // dtype_bytes


@cache
def machine(target: str | None = None) -> Machine:
    """The processor at hand, or a plainer one of its architecture.

    Args:
        target: "baseline" for what every processor of the architecture can do; the environment
            variable ``ODEUM_TARGET`` where None, and the processor at hand where that is not set.

    Raises:
        InputError: for another target.

    Example:
        >>> machine("baseline").register_bytes
        16
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = llvm.get_process_triple()
    target = target or os.environ.get("ODEUM_TARGET") or None
    if target is None:
        features = llvm.get_host_cpu_features()
        sizes = [size for name, size in REGISTER_BYTES if features.get(name)]
        return Machine(triple, llvm.get_host_cpu_name(), features.flatten(), max([16, *sizes]))
    if target != BASELINE:
        raise InputError(
            f"ODEUM_TARGET is {target!r}: leave it unset for the processor at hand, or set it "
            'to "baseline" for code that runs on every processor of its kind'
        )
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return Machine(triple, "x86-64" if x86 else "generic", "", 16)


@cache
def _target_machine(made_for: Machine) -> llvm.TargetMachine:
    target = llvm.Target.from_triple(made_for.triple)
    return target.create_target_machine(
        cpu=made_for.cpu, features=made_for.features, opt=2, reloc="pic", codemodel="default"
    )


def data_layout(made_for: Machine) -> str:
    """How the processor lays out memory, as LLVM writes that down."""
    return str(_target_machine(made_for).target_data)


def compiled(code: str, made_for: Machine) -> bytes:
    """Machine code of a module, as an object file.

    Args:
        code: LLVM's assembly language.
        made_for: the processor.
    """
    return bytes(_target_machine(made_for).emit_object(_optimised(code, made_for)))


def assembly(code: str, made_for: Machine) -> str:
    """Machine code of a module, for people to read."""
    return str(_target_machine(made_for).emit_assembly(_optimised(code, made_for)))


def _optimised(code: str, made_for: Machine) -> llvm.ModuleRef:
    module = llvm.parse_assembly(code)
    module.verify()
    target = _target_machine(made_for)
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    # Loops are laid out for the registers already: more copies of them only take time to compile.
    options.loop_unrolling = False
    options.loop_vectorization = False
    options.slp_vectorization = False
    builder = llvm.create_pass_builder(target, options)
    builder.getModulePassManager().run(module, builder)
    return module


class Library:
    """Machine code in memory, ready to be called.

    Args:
        code: an object file.
        names: its entry points.
        made_for: the processor it was compiled for.

    Attributes:
        addresses: of the entry points.
    """

    _n_loaded = 0

    def __init__(self, code: bytes, names: tuple[str, ...], made_for: Machine) -> None:
        Library._n_loaded += 1
        builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
        for name in names:
            builder.export_symbol(name)
        # Held as long as the addresses are: it owns the memory behind them.
        self._linked = builder.link(_linker(made_for), f"odeum{Library._n_loaded}")
        self.addresses = {name: self._linked[name] for name in names}


@cache
def _linker(made_for: Machine) -> llvm.LLJIT:
    # The other linker maps code and constants apart from each other, at times too far for the
    # machine's short addresses, and then ends the process.
    return llvm.create_lljit_compiler(_target_machine(made_for), use_jit_link=True)
