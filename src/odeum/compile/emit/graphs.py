"""A graph as instructions: chains of pointwise operations become loops, views cost nothing.

Arrays small enough are written out element by element; LLVM then keeps them in registers.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from math import prod

from llvmlite import ir

from odeum.compile.emit.code import Code, Index, wide
from odeum.compile.emit.functions import FUNCTIONS, emit_function
from odeum.compile.emit.places import Layout, Place
from odeum.compile.emit.products import emit_product
from odeum.compile.emit.solves import emit_solve
from odeum.compile.emit.values import BOOLEAN, Value, where
from odeum.compile.ir import POINTWISE, REDUCTIONS, VIEWS, Graph, Node, Shape

WRITTEN_OUT = 24
"""Vectors up to which loops over elements are written out."""


class GraphCode:
    """Writes a graph into a function.

    Args:
        code: the function.
        layout: how rows are laid over vectors.
        graph: the graph.
        inputs: where each input lies, by name; those that nothing reads may be missing.
        outputs: where each output goes, by name, in the order of its indices.
    """

    def __init__(
        self,
        code: Code,
        layout: Layout,
        graph: Graph,
        inputs: Mapping[str, Place],
        outputs: Mapping[str, Place],
    ) -> None:
        self._code = code
        self._layout = layout
        self._inputs = inputs
        nodes = graph.nodes()
        self._users: dict[Node, list[Node]] = {node: [] for node in nodes}
        for node in nodes:
            for x in node.inputs:
                self._users[x].append(node)
        self._is_output = set(graph.outputs.values())
        self._destinations: dict[Node, Place] = {}
        for name, node in graph.outputs.items():
            if node.op != "input":
                self._destinations.setdefault(node, outputs[name])
        self._places: dict[Node, Place] = {}
        for node in nodes:
            if not self._is_inline(node):
                self._places[node] = self._placed(node)
        for name, node in graph.outputs.items():
            if self._destinations.get(node) is not outputs[name]:
                self._fill(outputs[name], node)

    def _is_inline(self, node: Node) -> bool:
        """Whether a node is computed wherever it is read."""
        if node.op == "constant":
            return not isinstance(node.attributes["value"], tuple)
        if node in self._is_output:
            return False
        if node.boolean:
            return node.op in POINTWISE
        users = self._users[node]
        if node.op not in POINTWISE or len(users) != 1:
            return False
        user = users[0]
        if user.boolean and len(self._users[user]) > 1:
            return False
        # Where the reader is larger, each element would be computed several times over.
        return user.op in REDUCTIONS or (user.op in POINTWISE and user.size == node.size)

    def _placed(self, node: Node) -> Place:
        """Where a node's array lies, once what computes it is written."""
        if node.op == "input":
            return self._inputs[node.name]
        if node.op in VIEWS and node not in self._is_output:
            view = self._place_of(node.inputs[0]).viewed(node)
            if view is not None:
                return view
        place = self._destinations.get(node) or self._new_place(node.shape)
        self._fill(place, node)
        return place

    def _new_place(self, shape: Shape) -> Place:
        n = max(prod(shape), 1) * self._layout.registers
        # A little longer than the array: whole vectors of features are written.
        room = self._code.room(self._layout.lane, n + self._layout.features)
        return Place.contiguous(room, shape)

    def _fill(self, place: Place, node: Node) -> None:
        """Writes what computes a node into a place."""
        if node in self._places:  # computed already, for another reader
            self._copy(place, self._places[node])
        elif node.op == "cat":
            self._concatenate(place, node)
        elif node.op == "matmul":
            left, right = (self._place_of(x) for x in node.inputs)
            emit_product(self._code, self._layout, left, right, place)
        elif node.op == "solve":
            left, right = (self._place_of(x) for x in node.inputs)
            emit_solve(self._code, self._layout, left, right, place)
        elif node.op in REDUCTIONS:
            self._reduce(place, node)
        elif node.op in VIEWS:
            self._view_copied(place, node)
        else:
            self._pointwise(place, node)

    def _copy(self, place: Place, source: Place) -> None:
        def element(index: Sequence[Index], register: int) -> Value:
            return source.load(self._code, self._layout, index, register)

        self._each_element(place, element)

    def _view_copied(self, place: Place, node: Node) -> None:
        source = self._place_of(node.inputs[0])
        view = source.viewed(node)
        if view is not None:
            self._copy(place, view)
            return
        # The elements in their order, which is all that a reshape keeps.
        self._copy(Place.contiguous(place.pointer, source.shape), source)

    def _concatenate(self, place: Place, node: Node) -> None:
        dim, start = node.attributes["dim"], 0
        for x in node.inputs:
            part = Place(
                place.pointer, x.shape, place.strides, place.offset + start * place.strides[dim]
            )
            start += x.shape[dim]
            self._copy(part, self._place_of(x))

    def _place_of(self, node: Node) -> Place:
        """An array's place; what is computed where it is read is put somewhere first."""
        if node not in self._places:
            place = self._new_place(node.shape)
            self._pointwise(place, node)
            self._places[node] = place
        return self._places[node]

    # Pointwise

    def _pointwise(self, place: Place, node: Node) -> None:
        constants = node.op == "constant" and isinstance(node.attributes["value"], tuple)
        if constants:
            for index in product(*(range(n) for n in node.shape)):
                value = node.attributes["value"]
                for i in index:
                    value = value[i]
                for register in range(self._layout.registers):
                    number = wide(self._number(value), self._layout.width)
                    place.store(self._code, self._layout, number, index, register)
            return
        if self._runs_along_features(place, node):
            self._along_features(place, node)
            return

        def element(index: Sequence[Index], register: int) -> Value:
            return self._as_real(self._evaluated(node, node.shape, self._rows_at(index, register)))

        self._each_element(place, element)

    def _as_real(self, value: Value) -> Value:
        return value.to_float(self._layout.real) if value.element == BOOLEAN else value

    def _number(self, number: float) -> Value:
        return self._code.value(ir.Constant(self._layout.real, float(number)))

    def _rows_at(
        self, index: Sequence[Index], register: int
    ) -> Callable[[Node, Shape], Value | None]:
        """Reads arrays at an index, for the rows of one register."""

        def read(node: Node, shape: Shape) -> Value | None:
            place = self._places.get(node)
            if place is None:
                return None
            return place.broadcast(shape).load(self._code, self._layout, index, register)

        return read

    def _evaluated(
        self, node: Node, shape: Shape, read: Callable[[Node, Shape], Value | None]
    ) -> Value:
        """One element of a pointwise node, with all that is computed where it is read.

        Args:
            node: the node.
            shape: that of the loop.
            read: reads an element of an array that has a place.
        """
        value = None if node.op in POINTWISE and node not in self._places else read(node, shape)
        if value is not None:
            return value != 0.0 if node.boolean else value
        if node.op == "constant":
            number = node.attributes["value"]
            if node.boolean:
                return self._code.value(ir.Constant(BOOLEAN, bool(number)))
            return self._number(number)
        operands = [self._evaluated(x, shape, read) for x in node.inputs]
        if node.op == "to_float":
            return operands[0].to_float(self._layout.real)
        return apply(self._code, node.op, operands)

    def _each_element(self, place: Place, element: Callable[[Sequence[Index], int], Value]) -> None:
        """Fills a place, one element after another."""
        for index in self._indices(place.shape):
            for register in range(self._layout.registers):
                value = wide(element(index, register), self._layout.width)
                place.store(self._code, self._layout, value, index, register)

    def _indices(self, shape: Shape) -> Iterator[tuple[Index, ...]]:
        """The indices of an array: all, written out, where they are few; else those of loops."""
        if prod(shape) * self._layout.registers <= WRITTEN_OUT:
            yield from product(*(range(n) for n in shape))
            return
        yield from self._looped(shape, ())

    def _looped(self, shape: Shape, outer: tuple[Index, ...]) -> Iterator[tuple[Index, ...]]:
        if not shape:
            yield outer
            return
        n, rest = shape[0], shape[1:]
        if n == 1:
            yield from self._looped(rest, (*outer, 0))
        elif prod(shape) == n:  # the last axis of more than one element
            tail = (0,) * len(rest)
            unroll = next(u for u in (4, 3, 2, 1) if n % u == 0)
            with self._code.loop(n, step=unroll) as i:
                for k in range(unroll):
                    yield (*outer, self._code.add(i, k), *tail)
        else:
            with self._code.loop(n) as i:
                yield from self._looped(rest, (*outer, i))

    # Several features of one row at a time

    def _read_inside(self, node: Node) -> list[Node]:
        """The arrays with places that a node and what is computed inside it read."""
        if node in self._places:
            return [node]
        return [x for operand in node.inputs for x in self._read_inside(operand)]

    def _runs_along_features(self, place: Place, node: Node) -> bool:
        n = self._layout.features
        if n == 1 or not place.shape or place.shape[-1] < n:
            return False
        read = [self._places[x].broadcast(place.shape) for x in self._sources(node)]
        return all(x.strides[-1] in (0, 1) for x in (place, *read))

    def _sources(self, node: Node) -> list[Node]:
        found = [x for operand in node.inputs for x in self._read_inside(operand)]
        return list(dict.fromkeys(found))

    def _along_features(self, place: Place, node: Node) -> None:
        code, layout = self._code, self._layout
        *outer, last = place.shape

        def read_at(index: Sequence[Index]) -> Callable[[Node, Shape], Value | None]:
            def read(x: Node, shape: Shape) -> Value | None:
                source = self._places.get(x)
                if source is None:
                    return None
                return source.broadcast(shape).load_features(code, layout, index)

            return read

        whole = last - last % layout.features
        for index in self._looped(tuple(outer), ()):
            with code.loop(whole, step=layout.features) as i:
                at = (*index, i)
                value = self._evaluated(node, node.shape, read_at(at))
                place.store_features(code, layout, wide(self._as_real(value), layout.features), at)
            for i in range(whole, last):
                at = (*index, i)
                value = self._evaluated(node, node.shape, self._rows_at(at, 0))
                place.store(code, layout, self._as_real(value), at, 0)

    # Reductions

    def _reduce(self, place: Place, node: Node) -> None:
        (source,) = node.inputs
        dims = node.attributes["dims"]
        kept = [d for d in range(len(source.shape)) if d not in dims]
        reduced = tuple(source.shape[d] for d in dims)

        def element(outer: Sequence[Index], register: int) -> Value:
            def at(inner: Sequence[Index]) -> Value:
                index: list[Index] = [0] * len(source.shape)
                for d, i in zip(kept, outer, strict=True):
                    index[d] = i
                for d, i in zip(dims, inner, strict=True):
                    index[d] = i
                value = self._evaluated(source, source.shape, self._rows_at(index, register))
                return wide(value, self._layout.width)

            return self._reduced(node.op, reduced, at)

        self._each_element(place, element)

    def _reduced(self, op: str, shape: Shape, at: Callable[[Sequence[Index]], Value]) -> Value:
        combine = {"sum": "add", "amax": "maximum", "amin": "minimum"}[op]
        if prod(shape) <= WRITTEN_OUT:
            total: Value | None = None
            for index in product(*(range(n) for n in shape)):
                value = at(index)
                total = value if total is None else apply(self._code, combine, [total, value])
            assert total is not None
            return total
        with self._accumulator(at((0,) * len(shape)), op) as (get, put):
            for index in self._looped(shape, ()):
                put(apply(self._code, combine, [get(), at(index)]))
        return get()

    @contextmanager
    def _accumulator(
        self, first: Value, op: str
    ) -> Iterator[tuple[Callable[[], Value], Callable[[Value], None]]]:
        kind = first.value.type
        room = self._code.room(kind)
        self._code.store(first.constant(0.0) if op == "sum" else first, room)
        yield (
            lambda: self._code.load(room, kind),
            lambda value: self._code.store(value, room),
        )


def apply(code: Code, op: str, operands: list[Value]) -> Value:
    """One pointwise operation on values, of which some may be single numbers."""
    width = max(x.lanes or 1 for x in operands)
    x, *others = (wide(operand, width) for operand in operands)
    if op in _OPERATORS:
        return _OPERATORS[op](x, *others)
    match op:
        case "where":
            return where(x, *others)
        case "reciprocal":
            return 1.0 / x
        case "rsqrt":
            return 1.0 / x.intrinsic("sqrt")
        case "sign":
            # Torch's of NaN is zero.
            return (x > 0.0).to_float(x.element) - (x < 0.0).to_float(x.element)
    assert op in FUNCTIONS, op
    return code.value(emit_function(code.builder, op, *(v.value for v in (x, *others))))


_OPERATORS: dict[str, Callable[..., Value]] = {
    "neg": operator.neg,
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
    "and": operator.and_,
    "or": operator.or_,
    "not": operator.invert,
}
