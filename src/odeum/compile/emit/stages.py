"""The stages of a Runge-Kutta step on a group of rows, and the field they evaluate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llvmlite import ir

from odeum.compile.emit.code import POINTER, Code, Index
from odeum.compile.emit.kernel import Spec
from odeum.compile.emit.places import Place
from odeum.compile.emit.values import Value, fma

WRITTEN_OUT = 4
"""Vectors in a state up to which loops over them are written out."""


@dataclass(frozen=True)
class FieldCode:
    """The compiled field, as a function that other functions call.

    Attributes:
        spec: what is compiled.
        function: ``(shared, row, t, y, f)``: tables and arrays of registers.
    """

    spec: Spec
    function: ir.Function

    def call(
        self,
        code: Code,
        context: Sequence[ir.Value],
        t: Sequence[Value],
        y: ir.Value,
        f: ir.Value,
    ) -> None:
        """Evaluates it.

        Args:
            code: the calling function.
            context: the table of shared inputs, and the group's row inputs.
            t: times, one value a register, in the precision of times.
            y: states, [dim, registers].
            f: where the derivatives go, [dim, registers].
        """
        layout = self.spec.layout
        times = code.room(layout.lane, layout.registers)
        for register, value in enumerate(t):
            code.store(value.to_float(layout.real), times, register)
        code.call(self.function, *context, times, y, f)


class StageCode:
    """Writes the evaluation of a step's derivatives.

    Args:
        code: the function.
        spec: what is compiled.
        evaluate: evaluates the field at derivative ``j``: ``(j, times, y, f)``.

    Attributes:
        ks: the derivatives, [derivatives, dim, registers].
        y1: the states at the end, [dim, registers].
    """

    def __init__(self, code: Code, spec: Spec) -> None:
        self.code = code
        self.spec = spec
        layout = spec.layout
        self._derivatives = spec.derivatives
        self._per_array = spec.dim * layout.registers
        self.ks = code.room(layout.lane, self._derivatives.n * self._per_array)
        self.y1 = code.room(layout.lane, self._per_array)

    def k_at(self, j: int) -> ir.Value:
        """Where derivative ``j`` lies."""
        return self.code.at(self.ks, self.spec.layout.lane, j * self._per_array)

    def k(self, j: int, element: Index) -> Value:
        """One number of derivative ``j``; elements count registers within dimensions."""
        at = self.code.add(j * self._per_array, element)
        return self.code.load(self.ks, self.spec.layout.lane, at)

    def elements(self) -> Iterator[tuple[Index, int]]:
        """Every ``(element, register)`` of a state, loops written where they are many."""
        return each_element(self.code, self.spec)

    def weighed(self, weights: Sequence[float], element: Index) -> Value | None:
        """``sum_j w_j k_j``; None where all weights are zero."""
        total: Value | None = None
        for j, weight in enumerate(weights):
            if weight:
                k = self.k(j, element)
                total = k * weight if total is None else fma(k, k.constant(weight), total)
        return total

    def advance_to(
        self, y: ir.Value, h: Sequence[Value], weights: Sequence[float], result: ir.Value
    ) -> None:
        """``result = y + h sum_j w_j k_j``.

        Args:
            y: states at the start, [dim, registers].
            h: signed step sizes in the precision of states, one value a register.
            weights: of the derivatives.
            result: [dim, registers].
        """
        lane = self.spec.layout.lane
        for element, register in self.elements():
            state = self.code.load(y, lane, element)
            change = self.weighed(weights, element)
            if change is not None:
                state = fma(h[register], change, state)
            self.code.store(state, result, element)

    def times(self, t: Sequence[Value], h: Sequence[Value], j: int) -> list[Value]:
        """Times of derivative ``j``."""
        c = self._derivatives.nodes[j]
        return [start + size * c for start, size in zip(t, h, strict=True)]


def each_element(code: Code, spec: Spec) -> Iterator[tuple[Index, int]]:
    """Every ``(element, register)`` of a state, loops written where they are many."""
    n = spec.layout.registers
    if spec.dim * n <= WRITTEN_OUT:
        for element in range(spec.dim * n):
            yield element, element % n
    else:
        with code.loop(spec.dim) as d:
            for register in range(n):
                yield code.add(code.times(d, n), register), register


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
