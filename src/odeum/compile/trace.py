"""The user's field as a graph of one row, and where its tensors are found at the next call.

The field is called once, on one row, and what torch executes is taken down; then it is called on
several rows and differentiated, and held against the graph. Knows no solver and no kernel.
"""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from odeum.compile.build import Builder
from odeum.compile.check import check
from odeum.compile.guard import Guard, guard
from odeum.compile.ir import Graph, Node
from odeum.compile.lowering import Unsupported, constant_of
from odeum.compile.passes import optimise, with_inputs_read, without_stops
from odeum.compile.prologue import split
from odeum.compile.record import CONSTANT, Foreign, Known, Recorder, refusal
from odeum.compile.sources import first_line, source_of
from odeum.compile.watching import Watching
from odeum.eager.field import PerRow, RowField
from odeum.errors import TraceError
from odeum.types import Tensor

MISSING = object()


@dataclass(frozen=True)
class Traced:
    """A field that can be compiled.

    Attributes:
        differentiable: its graph: output "f", [dim], of inputs "time", (), "state", [dim], and
            those of roles "shared" and "row"; with ``stop`` where the field cuts derivatives.
        graph: the same without ``stop``.
        prologue: what is to be computed from shared tensors once a solve, None where nothing is;
            its outputs are shared inputs of the graph.
        inputs: the shared and row tensors that are read, by name: where each is among those that
            the guard finds, and how the user would name it.
        converted: those of them that the field converts to the dtype of the state.
        guard: the Python state that all this depends on.
        single: whether this is so only where the batch is a single row.
    """

    differentiable: Graph
    graph: Graph
    prologue: Graph | None
    inputs: dict[str, tuple[int, str]]
    converted: tuple[str, ...]
    guard: Guard
    single: bool

    def values(self, field: RowField) -> dict[str, Tensor] | None:
        """The shared and row tensors as they are now, by name; None where the trace is stale.

        All have the dtype of the state: what the field converts comes converted, under autograd.

        Args:
            field: the same as was traced, or another of its make. Tensors in ``args`` that
                belong to rows come whole, [batch, *shape], whatever rows the field holds.

        Raises:
            TraceError: where the solve is one that no kernel is made for.
        """
        check_setting(field)
        found = self.guard.matched(field.field, field.args, field.integrals)
        if isinstance(found, int) or (self.single and field.structure.batch_shape != (1,)):
            return None
        return self.named(found, field.structure.dtype)

    def named(self, found: Sequence[Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """The tensors that the guard found by name, in the dtype of the state."""
        values = {name: found[i] for name, (i, _) in self.inputs.items()}
        for name in self.converted:
            values[name] = values[name].to(dtype)
        return values


def trace(field: RowField, y: Tensor, t: Tensor) -> Traced:
    """Takes a field down as a graph.

    Args:
        field: the user's, as the engines call it.
        y: states that it is to be solved from, [rows, dim].
        t: times of these rows, [rows, 1].

    Raises:
        TraceError: naming the operation, and where it is in the user's code, that cannot be taken.

    Example:
        >>> from odeum.tree import structure_of
        >>> y = torch.ones(4, 2)
        >>> field = RowField(lambda t, y: -2.0 * y, structure_of(y), None, joint=False)
        >>> [node.op for node in trace(field, y, torch.zeros(4, 1)).graph.nodes()]
        ['input', 'constant', 'mul']
    """
    return traced_under(watch(field), field, y, t)


def watch(field: RowField, ignored: frozenset[str] = frozenset()) -> Guard:
    """The guard of everything that a field can read."""
    return guard(field.field, field.args, field.integrals, ignored=ignored)


def traced_under(watched: Guard, field: RowField, y: Tensor, t: Tensor) -> Traced:
    """The same as ``trace`` where the guard is there already."""
    check_setting(field)
    before = [(own, key, own.get(key, MISSING), name) for own, key, name in watched.assigned]
    t = t.detach().to(y.dtype)  # as solvers hand it to a field
    recording = _Recording(watched, field, y.detach(), t)
    graph = recording.graph()
    for own, key, value, label in before:
        if own.get(key, MISSING) is not value:
            raise _changes(label)
    found = watched.matched(field.field, field.args, field.integrals)
    if isinstance(found, int):
        raise _changes(watched.labels[found])
    optimised = with_inputs_read(optimise(graph))
    names = [node.name for node in optimised.inputs]
    read = {name: place for name, place in recording.read.items() if name in names}
    single = _check(optimised, field, y, t, {name: found[i] for name, (i, _) in read.items()})
    differentiable, prologue = split(optimised)
    return Traced(
        differentiable,
        without_stops(differentiable),
        prologue,
        read,
        tuple(name for name, (i, _) in read.items() if found[i].dtype is not y.dtype),
        watched.released(),
        single,
    )


def refused(watched: Guard, field: RowField) -> Guard:
    """The guard of the state in which a field was refused, whatever its calls change of it.

    Args:
        watched: from before it was traced.
        field: the same.
    """
    ignored: set[str] = set()
    while isinstance(found := watched.matched(field.field, field.args, field.integrals), int):
        if watched.labels[found] in ignored:  # more than a value
            break
        ignored.add(watched.labels[found])
        watched = watch(field, frozenset(ignored))
    return watched.released()


def _check(graph: Graph, field: RowField, y: Tensor, t: Tensor, values: dict[str, Tensor]) -> bool:
    """Holds the field against its graph; returns whether that holds for single rows only."""
    if field.scalar_time:
        check(graph, field, y, t, values, alone=True)
        return False
    try:
        check(graph, field, y, t, values, alone=False)
    except TraceError:
        if len(y) > 1:
            raise
        check(graph, field, y, t, values, alone=True)
        return True
    return False


def _changes(label: str) -> TraceError:
    return TraceError(
        f"the field changes {label} when it is called: kernels would leave that out",
        operation=f"changing {label}",
    )


def check_setting(field: RowField) -> None:
    """Whether a solve is one that kernels are made for, whatever its field does.

    Raises:
        TraceError: where it is not.
    """
    device, dtype = field.structure.device, field.structure.dtype
    why = None
    if torch._C._functorch.peek_interpreter_stack() is not None:
        why = "inside torch.func", "runs inside a transform of torch.func"
    elif device.type != "cpu":
        why = str(device), f"is solved on {device}: kernels are made for CPUs"
    elif dtype not in (torch.float32, torch.float64):
        why = str(dtype), f"is solved in {dtype}: kernels take float32 and float64"
    elif field.integrals is not None:
        why = "integrals", "is integrated along the solution: leave integrals to the eager engine"
    elif field.autocast is not None:
        why = "autocast", "runs under autocast: kernels compute in the dtype of the state"
    elif field.joint and field.structure.batch_shape:
        why = "joint", 'is solved with coupling="joint": kernels solve rows independently'
    if why:
        raise TraceError(f"the field {why[1]}", operation=why[0])


def _uncompiled() -> AbstractContextManager[Any]:
    """What torch.compile has wrapped runs as it was written."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()  # nothing is wrapped, and importing it takes seconds
    return torch.compiler.set_stance("force_eager")


class _Recording:
    """One call of a field on one row.

    Attributes:
        read: shared and row inputs that were met, by name: the place among what the guard found,
            and the label.
    """

    def __init__(self, watched: Guard, field: RowField, y: Tensor, t: Tensor) -> None:
        self._y = y[:1].clone().requires_grad_()
        self._t = t[:1].clone().requires_grad_()
        self._dtype = y.dtype
        self._tensors = {id(x.tensor): (i, x) for i, x in reversed([*enumerate(watched.found)])}
        self._values = {id(x): x for x in watched.constants}
        self._inputs: dict[str, Node] = {}
        self.read: dict[str, tuple[int, str]] = {}
        self._cut: list[tuple[Tensor, Known]] = []
        self._field = RowField(
            field.field,
            field.structure,
            pytree.tree_map(self._one_row, field.args),
            joint=field.joint,
        )

    def graph(self) -> Graph:
        """What the field does."""
        b = Builder()
        time = Node("input", (), (), {"role": "time", "name": "time"})
        state = Node("input", (), (self._y.shape[1],), {"role": "state", "name": "state"})
        recorder = Recorder(self._dtype, self._find)
        recorder.define(self._t, b.reshape(time, (1, 1)), frozen=True)
        recorder.define(self._y, b.reshape(state, self._y.shape), frozen=True)
        for tensor, known in self._cut:
            recorder.define(tensor, known, frozen=True)
        flat = b.reshape(self._called(recorder), (self._y.shape[1],))
        return Graph((time, state, *self._inputs.values()), {"f": flat})

    def _called(self, recorder: Recorder) -> Node:
        try:
            with torch.enable_grad(), _uncompiled(), recorder, Watching(recorder):
                result = self._field(self._t, self._y)
            known = recorder.value(result)
        except TraceError:
            raise
        except Unsupported as error:
            raise refusal("the field", None, str(error)) from None
        except Exception as error:
            raise TraceError(
                f"the field failed when it was called on one row: {first_line(error)}",
                operation=type(error).__name__,
                source=source_of(error),
            ) from error
        if isinstance(known, Node):
            return known
        if known is not CONSTANT:
            raise refusal("the field", None, "returns what is not computed")
        return constant_of(Builder(), result.detach())

    def _one_row(self, leaf: Any) -> Any:
        """A leaf of args as one row sees it."""
        if not isinstance(leaf, PerRow):
            return leaf
        entry = leaf.tensor.detach()[:1].clone().requires_grad_(leaf.tensor.is_floating_point())
        if id(leaf.tensor) in self._tensors:
            self._cut.append((entry, self._known(leaf.tensor, "row", tuple(entry.shape[1:]))))
        return PerRow(entry)

    def _known(self, tensor: Tensor, role: str, shape: tuple[int, ...]) -> Known:
        """An input; where its dtype is another than the state's, what makes one of it."""
        place, found = self._tensors[id(tensor)]

        def node() -> Node:
            name = next((n for n, (i, _) in self.read.items() if i == place), None)
            if name is None:
                name = f"{role}{len(self._inputs)}"
                self._inputs[name] = Node("input", (), shape, {"role": role, "name": name})
                self.read[name] = (place, found.label)
            value = self._inputs[name]
            return Builder().reshape(value, (1, *shape)) if role == "row" else value

        if tensor.dtype is self._dtype:
            return node()
        return Foreign(found.label, tensor.dtype, node)

    def _find(self, tensor: Tensor) -> Known | None:
        """What a tensor is that the field did not make."""
        if id(tensor) in self._values:
            return CONSTANT
        if id(tensor) not in self._tensors:
            return None
        return self._known(tensor, "shared", tuple(tensor.shape))
