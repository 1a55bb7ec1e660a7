"""Kernels: compiled once a process, and once a machine where the disk keeps them."""

import ctypes
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from odeum.compile import emit
from odeum.compile.emit.kernel import Spec
from odeum.compile.emit.module import emit_module
from odeum.compile.runtime import disk
from odeum.compile.runtime.machine import Library, Machine, compiled, data_layout
from odeum.compile.runtime.threads import stack_room

EntryPoint = Callable[[int], None]
"""Called with the address of an array of arguments."""


FIRST_STEPS = 64
"""Steps of a row that a first tape has room for."""


class Kernel:
    """Machine code for one kind of solve.

    Args:
        spec: what it was compiled for.
        library: the machine code.

    Attributes:
        forward: solves.
        backward: pulls a solve back; None where none is recorded.
        rows_at_once: rows that a thread solves at once.
        n_shared: how many tensors it reads that all rows share.
        block_size: bytes of what a thread knows of its rows.
        numbers_at: where its numbers lie in that.
        record_size: bytes of what is kept of a step of its rows; 0 where nothing is.
        thread_size: bytes of the gradients that a thread adds up.
        shared_wanted: which of the tensors that rows share get gradients.
        n_numbers: in all of these gradients.
        row_shapes: of the gradients of what each row has of its own.
        places: of each input, which of those gradients it gets, the shared ones first; None
            where it wants none.
        needs_deep_stack: whether it may take more stack than threads are sure to have.
        usual_steps: steps of a row that a tape should have room for.
    """

    def __init__(self, spec: Spec, library: Library) -> None:
        self.spec = spec
        self._library = library
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        entries = {name: prototype(address) for name, address in library.addresses.items()}
        self.forward: EntryPoint = entries["forward"]
        self.backward: EntryPoint | None = entries.get("backward")
        self.rows_at_once = spec.layout.n_rows
        self.n_shared = len(spec.program.shared)
        group = spec.group
        self.block_size, self.numbers_at = group.size, group.offsets["numbers"]
        self.record_size = spec.record.size if spec.keeps_steps else 0
        self.thread_size = spec.thread.size if spec.records else 0
        program = spec.program
        wanted = program.wanted("shared"), program.wanted("row")
        self.shared_wanted = [i for i, node in enumerate(program.shared) if node in wanted[0]]
        self.n_numbers = sum(node.size for node in wanted[0])
        self.row_shapes = [node.shape for node in wanted[1]]
        names = [node.name for nodes in wanted for node in nodes]
        self.places = [
            names.index(node.name) if node.name in names else None
            for node in (*program.shared, *program.row)
        ]
        self.needs_deep_stack = spec.stack_size > stack_room()
        self.usual_steps = FIRST_STEPS


def kernel_of(spec: Spec, made_for: Machine) -> Kernel:
    """The kernel for a kind of solve: from the disk, or compiled."""
    key = _key(spec, made_for)
    code = disk.read(key)
    names = ("forward", "backward") if spec.records else ("forward",)
    if code is not None:
        try:
            return Kernel(spec, Library(code, names, made_for))
        except RuntimeError:  # what the linker says of an object that is none
            pass
    code = compiled(str(emit_module(spec, made_for.triple, data_layout(made_for))), made_for)
    disk.write(key, code)
    return Kernel(spec, Library(code, names, made_for))


def is_kept(spec: Spec, made_for: Machine) -> bool:
    """Whether the disk keeps a kernel, so that it need not be compiled."""
    return disk.holds(_key(spec, made_for))


def _key(spec: Spec, made_for: Machine) -> str:
    """A name that says everything machine code depends on."""
    tableau, program = spec.tableau, spec.program
    graphs = (program.forward, program.recording, program.backward)
    parts = [
        _source_digest(),
        repr(made_for),
        *("" if graph is None else graph.text() for graph in graphs),
        repr((tableau.order, tableau.embedded_order, tableau.a, tableau.b, tableau.b_error)),
        repr((tableau.c, tableau.interpolant)),
        repr([(node.name, node.role, node.shape) for node in program.forward.inputs]),
        repr(spec.controller),
        repr((spec.lands_on_outputs, spec.per_row_times, spec.dim, spec.records, spec.dense)),
        repr((spec.wants_times, str(spec.time), str(spec.layout))),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@cache
def _source_digest() -> str:
    """Of the code that writes kernels: another version writes others."""
    digest = hashlib.sha256()
    for path in sorted(Path(emit.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    digest.update((Path(emit.__file__).parents[2] / "control.py").read_bytes())
    return digest.hexdigest()
