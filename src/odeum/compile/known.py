"""Fields that were traced before, found again in a few microseconds.

A field is looked up by its make: the code of a function, the class of an object. Of that make
there may be several that read different state; the guard of each says whether it is the one.
"""

import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from odeum.compile.derivative import differentiate
from odeum.compile.emit.kernel import Program
from odeum.compile.guard import Guard
from odeum.compile.interpret import interpret
from odeum.compile.runtime.kernels import Kernel
from odeum.compile.trace import Traced, check_setting, refused, traced_under, watch
from odeum.eager.field import RowField
from odeum.errors import TraceError
from odeum.types import Tensor

OF_ONE_MAKE = 16
"""Traces kept of one make of field."""

MAKES = 256
"""Makes of field of which traces are kept: those met last."""


@dataclass(eq=False)
class CompiledField:
    """A traced field with what has been made of it so far.

    Attributes:
        traced: the field.
        programs: its graphs, by the names of the inputs that want gradients.
        kernels: machine code, by everything else that it depends on.
        met: what kernels were asked for, whether compiled or not.
    """

    traced: Traced
    programs: dict[frozenset[str], Program] = field(default_factory=dict)
    kernels: dict[Any, Kernel] = field(default_factory=dict)
    met: set[Any] = field(default_factory=set)

    @property
    def is_read_as_found(self) -> bool:
        """Whether kernels read the tensors that the field reads, and nothing made of them."""
        return self.traced.prologue is None and not self.traced.converted

    def inputs(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """All that kernels read, from the tensors that the field reads, by name."""
        prologue = self.traced.prologue
        if prologue is None:
            return values
        return {**values, **interpret(prologue, values, rows=False)}

    def program(self, wanted: frozenset[str]) -> Program:
        """The graphs that gradients of some inputs take; without any where none is wanted."""
        if wanted not in self.programs:
            forward = self.traced.graph
            program = Program(forward)
            if wanted:
                found = differentiate(self.traced.differentiable, wanted)
                program = Program(forward, found.recording, found.backward)
            self.programs[wanted] = program
        return self.programs[wanted]


@dataclass(frozen=True)
class _Refused:
    """A field that cannot be traced.

    Attributes:
        guard: the state in which it cannot; None where there is too much state to watch.
        field: the field itself in that case, while it lives.
        error: why.
    """

    guard: Guard | None
    field: Callable[[], Any]
    error: TraceError

    def is_of(self, field: RowField) -> bool:
        """Whether it is this field, in this state."""
        if self.guard is None:
            return self.field() is field.field
        found = self.guard.matched(field.field, field.args, field.integrals)
        return not isinstance(found, int)


_known: OrderedDict[Any, list[CompiledField | _Refused]] = OrderedDict()


def make_of(field: Any) -> Any:
    """What fields have in common that a trace may fit.

    Example:
        >>> import torch
        >>> make_of(torch.sin) is torch.sin, make_of(torch.nn.Tanh()) is torch.nn.Tanh
        (True, True)
    """
    # By type, not by attribute: asking a module for one that it has not takes microseconds.
    if isinstance(field, FunctionType):
        return field.__code__
    if isinstance(field, MethodType):
        return field.__func__
    return field if isinstance(field, BuiltinFunctionType) else type(field)


def find(field: RowField, y: Tensor, t: Tensor) -> tuple[CompiledField, dict[str, Tensor]]:
    """A field's trace and the tensors that it reads, as they are now.

    Args:
        field: the user's, as the engines call it.
        y: initial states, [batch, dim].
        t: times of these rows, [batch, 1].

    Raises:
        TraceError: where it cannot be traced.
    """
    check_setting(field)
    structure = field.structure
    key = (
        make_of(field.field),
        structure.spec,
        structure.shapes,
        structure.dtype,
        field.scalar_time,
    )
    entries = _known.setdefault(key, [])
    _known.move_to_end(key)
    for i, entry in enumerate(entries):
        if isinstance(entry, CompiledField):
            values = entry.traced.values(field)
            if values is not None:
                if i:
                    entries.insert(0, entries.pop(i))
                return entry, values
        elif entry.is_of(field):
            raise entry.error.with_traceback(None)
    return _traced(field, y, t, entries)


def _traced(
    field: RowField, y: Tensor, t: Tensor, entries: list[CompiledField | _Refused]
) -> tuple[CompiledField, dict[str, Tensor]]:
    watched = None
    try:
        watched = watch(field)
        compiled = CompiledField(traced_under(watched, field, y, t))
        values = compiled.traced.values(field)
        assert values is not None
    except TraceError as error:
        entries.insert(0, _refused(watched, field, error))
        raise
    finally:
        del entries[OF_ONE_MAKE:]
        while len(_known) > MAKES:
            _known.popitem(last=False)
    entries.insert(0, compiled)
    return compiled, values


def _refused(watched: Guard | None, field: RowField, error: TraceError) -> _Refused:
    # Without a traceback, which would keep everything alive that the trace has seen.
    error = error.with_traceback(None)
    if watched is not None:
        return _Refused(refused(watched, field), _nothing, error)
    try:
        return _Refused(None, weakref.ref(field.field), error)
    except TypeError:
        return _Refused(None, _nothing, error)


def _nothing() -> None:
    """A field that is gone."""
