"""Rows on their way back, taking turns in the lanes that they had on their way forth."""

from llvmlite import ir

from odeum.compile.emit.blocks import Block
from odeum.compile.emit.code import I32, I64
from odeum.compile.emit.groups import GroupCode
from odeum.compile.emit.values import Value


class ReturnCode:
    """Writes it.

    What rows have gathered when they leave their lanes lies in the arrays of the results: the
    beginning of the solve, which is pulled back at last for all of them, adds to it.

    Args:
        group: the function.
    """

    def __init__(self, group: GroupCode) -> None:
        self._group = group
        self._code = group.code
        self._wanted = group.spec.program.wanted("row")

    def vacate(self) -> None:
        """No lane has a row."""
        group = self._group
        for register in group.registers:
            group.block.set("g_rows", group.whole(-1), register)

    def take(self, record: Block) -> None:
        """Gives lanes to rows of which a record has the last step, and writes down those before."""
        group, code = self._group, self._code
        with code.loop(group.layout.n_rows) as place:
            row = code.load(record.where("rows"), I32, place).to_int(I64)
            h = code.load(record.where("h"), group.spec.time, place)
            arrives = (h != 0.0) & (row != group.lane("g_rows", place))
            with code.when(arrives.value):
                self._leave(place)
                self._enter(row, place)

    def leave_all(self) -> None:
        """Writes down the rows that are still in lanes."""
        with self._code.loop(self._group.layout.n_rows) as place:
            self._leave(place)

    def _leave(self, place: ir.Value) -> None:
        group, code, spec = self._group, self._code, self._group.spec
        row = group.lane("g_rows", place)
        with code.when((row >= 0).value):
            for field, name in (("g_y", "g_y0"), ("g_k", "row_k")):
                with code.loop(spec.dim) as d:
                    g, at = group.lane(field, place, d), group.entry_of(row, spec.dim, d)
                    code.store(g, group.arguments.address(name), at)
            if spec.wants_times:
                g_t = group.lane("g_t", place)
                code.store(g_t, group.arguments.address("row_t"), row.value)
            done = 0
            for i, node in enumerate(self._wanted):
                table = group.arguments.entry("g_row", i)
                with code.loop(node.size) as e:
                    g = group.lane("g_row", place, code.add(e, done))
                    code.store(g, table, group.entry_of(row, node.size, e))
                done += node.size

    def _enter(self, row: Value, place: ir.Value) -> None:
        """Nothing is asked of the end of the row yet."""
        group, code, spec = self._group, self._code, self._group.spec
        last = code.value(group.n_times) - 1
        start, end = (group.output_time_of(index, row) for index in (last.constant(0), last))
        reached = code.load(group.arguments.address("n_reached"), I64, row.value)
        values = {
            "rows": row,
            "g_rows": row,
            "g_index": (reached - 1).to_int(I32),
            "direction": start.constant(1.0).copysign(end - start),
            "g_t": code.value(ir.Constant(spec.time, 0.0)),
        }
        for name, value in values.items():
            group.set_lane(name, place, value)
        zero = code.value(ir.Constant(group.layout.real, 0.0))
        sizes = {"g_y": spec.dim, "g_k": spec.dim, "g_row": sum(x.size for x in self._wanted)}
        for name, size in sizes.items():
            if size:
                with code.loop(size) as i:
                    group.set_lane(name, place, zero, i)
        group.load_row_inputs_of(row, place)
