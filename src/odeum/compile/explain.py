"""What the fused engine makes of a field, for people to read."""

from dataclasses import dataclass, field
from typing import Any

import torch

from odeum import methods
from odeum.compile.derivative import Derivative, differentiate
from odeum.compile.emit.kernel import Program, Spec
from odeum.compile.emit.module import emit_module
from odeum.compile.emit.places import Layout
from odeum.compile.engine import REALS
from odeum.compile.ir import Graph
from odeum.compile.known import find
from odeum.compile.runtime.machine import assembly, data_layout, machine
from odeum.compile.trace import Traced
from odeum.eager.field import RowField
from odeum.errors import InputError, TraceError
from odeum.tree import structure_of
from odeum.types import Field, PyTree, Tensor


@dataclass(frozen=True)
class Explanation:
    """Whether the fused engine takes a field; true where it does.

    Attributes:
        takes: whether it does.
        reason: why not, or what it found.
        operation: what cannot be compiled; None where everything can.
        source: where that is in the user's code, ``file:line``; None where it is nowhere in
            particular.
        graph: what the field does to one row; None where it was not taken.
    """

    takes: bool
    reason: str
    operation: str | None = None
    source: str | None = None
    graph: Graph | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        return self.takes

    def __str__(self) -> str:
        verdict = "the fused engine takes this field" if self.takes else "this field runs eagerly"
        return f"{verdict}: {self.reason}"


def explain(
    field: Field, y0: PyTree, args: PyTree = None, *, t0: float | Tensor = 0.0
) -> Explanation:
    """Whether the fused engine would take a field; if not, which operation at which line.

    Args:
        field: ``f(t, y)`` or ``f(t, y, args)``, as for :func:`odeum.solve`.
        y0: initial states, [batch, *shape], [dim], or a pytree.
        args: handed to the field.
        t0: the time at which it is looked at.

    Example:
        >>> import odeum
        >>> print(odeum.explain(lambda t, y: -2 * y, torch.ones(3, 2)))
        the fused engine takes this field: 1 operation on one row, 0 tensors read besides the state
        >>> why = odeum.explain(lambda t, y: y - y.mean(0), torch.randn(3, 2))
        >>> bool(why), "rows" in why.reason
        (False, True)
    """
    try:
        traced = _traced(field, y0, args, t0)
    except TraceError as error:
        return Explanation(False, str(error), error.operation, error.source)
    graph = traced.graph
    n = sum(node.op not in ("input", "constant") for node in graph.nodes())
    n_read = len(traced.inputs)
    reason = (
        f"{n} operation{'s' * (n != 1)} on one row, {n_read} tensor{'s' * (n_read != 1)} read "
        "besides the state"
    )
    return Explanation(True, reason, graph=graph)


def show(
    field: Field,
    y0: PyTree,
    args: PyTree = None,
    *,
    method: str | methods.Method = "tsit5",
    gradient: bool = True,
    machine_code: bool = False,
    t0: float | Tensor = 0.0,
) -> None:
    """Prints what becomes of a field on its way to a kernel, stage by stage.

    Args:
        field: as for :func:`odeum.solve`.
        y0: likewise.
        args: likewise.
        method: an explicit Runge-Kutta method.
        gradient: whether the way back is shown, too.
        machine_code: whether the whole kernel is shown as the machine's own instructions; else
            the field alone, as LLVM writes it.
        t0: the time at which the field is looked at.

    Raises:
        TraceError: where the field cannot be compiled.

    Example:
        >>> import odeum
        >>> odeum.compile.show(lambda t, y: -2 * y, torch.ones(3, 2), gradient=False)
        ... # doctest: +ELLIPSIS
        graph of one row
        ----------------
        %0: float[2] = input(role=state, name=state)...
    """
    chosen = methods.get(method)
    if not isinstance(chosen, methods.ExplicitRungeKutta):
        raise InputError(
            f"method={method!r} has no kernel: show takes explicit Runge-Kutta methods, as tsit5"
        )
    traced = _traced(field, y0, args, t0)
    _section("graph of one row", traced.graph)
    if traced.prologue is not None:
        _section("computed once a solve, by torch", traced.prologue)
    derivative: Derivative | None = None
    if gradient:
        wanted = frozenset(node.name for node in traced.graph.inputs)
        derivative = differentiate(traced.differentiable, wanted)
        _section("recorded for the way back", derivative.recording)
        _section("the way back", derivative.backward)
    code = _kernel_code(traced, derivative, y0, chosen)
    if machine_code:
        _section("kernel", assembly(code, machine()))
    else:
        _section("the field in the kernel, as LLVM code", _function(code, "field"))


def _traced(field: Field, y0: PyTree, args: PyTree, t0: float | Tensor) -> Traced:
    structure = structure_of(y0)
    rows = structure.flatten(y0)
    times = torch.as_tensor(t0, dtype=structure.dtype, device=structure.device)
    row_field = RowField(field, structure, args, joint=False)
    return find(row_field, rows, times.expand(len(rows), 1))[0].traced


def _kernel_code(
    traced: Traced,
    derivative: Derivative | None,
    y0: PyTree,
    method: methods.ExplicitRungeKutta,
) -> str:
    structure = structure_of(y0)
    real = REALS[structure.dtype]
    program = Program(traced.graph)
    if derivative is not None:
        program = Program(traced.graph, derivative.recording, derivative.backward)
    spec = Spec(
        program,
        method.tableau,
        method.controller if method.adaptive else None,
        not method.adaptive,
        False,
        sum(structure.sizes),
        Layout(real, machine().width(structure.dtype.itemsize)),
        real,
        derivative is not None,
        False,
        False,
    )
    return str(emit_module(spec, machine().triple, data_layout(machine())))


def _function(code: str, name: str) -> str:
    """One function of a module."""
    start = code.index(f'@"{name}"(')
    start = code.rindex("define", 0, start)
    return code[start : code.index("\n}", start) + 2]


def _section(title: str, content: Any) -> None:
    print(title)
    print("-" * len(title))
    print(content)
    print()
