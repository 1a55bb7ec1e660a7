"""Emitted code in memory, run on torch tensors laid out as kernels lay them out."""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from llvmlite import ir

from odeum.compile.emit.code import POINTER, Code
from odeum.compile.emit.graphs import GraphCode
from odeum.compile.emit.places import Layout, Place
from odeum.compile.emit.values import DOUBLE, FLOAT
from odeum.compile.ir import Graph
from odeum.compile.runtime.machine import Library, compiled, data_layout, machine

LAYOUTS = {
    "rows": Layout(DOUBLE, machine().width(8)),
    "two registers of rows": Layout(DOUBLE, machine().width(8), 2),
    "features": Layout(DOUBLE, 1, 1, machine().width(8)),
    "rows in single precision": Layout(FLOAT, machine().width(4)),
}

Write = Callable[..., None]


def dtype_of(layout: Layout) -> torch.dtype:
    return torch.float64 if layout.real == DOUBLE else torch.float32


class Natives:
    """Functions written one after the other, compiled together: that takes least time."""

    def __init__(self) -> None:
        self._module = ir.Module(name="tests")
        self._module.triple = machine().triple
        self._module.data_layout = data_layout(machine())
        self._names: list[str] = []
        self._library: Library | None = None

    def add(self, write: Write, n_pointers: int) -> Callable[..., None]:
        """Adds a function of pointers; what comes back calls it with tensors.

        Args:
            write: given a :class:`Code` and the pointers, writes what the function does.
            n_pointers: how many.
        """
        name = f"native{len(self._names)}"
        kind = ir.FunctionType(ir.VoidType(), [POINTER] * n_pointers)
        code = Code(ir.Function(self._module, kind, name))
        write(code, *code.arguments)
        code.finish()
        self._names.append(name)
        assert self._library is None

        def call(*tensors: torch.Tensor) -> None:
            if self._library is None:
                self._library = Library(
                    compiled(str(self._module), machine()), tuple(self._names), machine()
                )
            prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_pointers)
            prototype(self._library.addresses[name])(*(x.data_ptr() for x in tensors))

        return call


def packed(x: torch.Tensor, layout: Layout, *, rows: bool = True) -> torch.Tensor:
    """An array as kernels read it: [element, register, lane], with room to read beyond it.

    Args:
        x: [rows of the layout, *shape], or [*shape] where all rows share it.
        layout: how rows are laid over vectors.
        rows: whether each row has its own.
    """
    x = x.to(dtype_of(layout))
    flat = x.reshape(layout.n_rows, -1).T if rows else x
    return torch.cat([flat.reshape(-1), x.new_full((64,), 777.0)])


def unpacked(memory: torch.Tensor, shape: Sequence[int], layout: Layout) -> torch.Tensor:
    """[rows of the layout, *shape], from what :func:`packed` makes."""
    size = 1
    for length in shape:
        size *= length
    rows = memory[: size * layout.n_rows].reshape(size, layout.n_rows)
    return rows.T.reshape(layout.n_rows, *shape)


@dataclass(frozen=True)
class NativeGraph:
    """A graph as a function of the values of its inputs, by name, like ``interpret``."""

    graph: Graph
    layout: Layout
    call: Callable[..., None]

    def __call__(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        given = [
            packed(values[node.name], self.layout, rows=node.role != "shared")
            for node in self.graph.inputs
        ]
        wanted = self.graph.outputs
        room = {
            name: torch.full(
                (max(node.size, 1) * self.layout.n_rows + 64,),
                555.0,
                dtype=dtype_of(self.layout),
            )
            for name, node in wanted.items()
        }
        self.call(*given, *room.values())
        return {
            name: unpacked(room[name], node.shape, self.layout) for name, node in wanted.items()
        }


def add_graph(natives: Natives, graph: Graph, layout: Layout) -> NativeGraph:
    """Adds a graph to functions that are compiled together."""

    def write(code: Code, *pointers: Any) -> None:
        n = len(graph.inputs)
        inputs = {
            node.name: Place.contiguous(pointer, node.shape, rows=node.role != "shared")
            for node, pointer in zip(graph.inputs, pointers[:n], strict=True)
        }
        outputs = {
            name: Place.contiguous(pointer, node.shape)
            for (name, node), pointer in zip(graph.outputs.items(), pointers[n:], strict=True)
        }
        GraphCode(code, layout, graph, inputs, outputs)

    n_pointers = len(graph.inputs) + len(graph.outputs)
    return NativeGraph(graph, layout, natives.add(write, n_pointers))
