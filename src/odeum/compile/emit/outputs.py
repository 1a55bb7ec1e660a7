"""States at the output times that steps reach."""

import math
from collections.abc import Sequence

from llvmlite import ir

from odeum.compile.emit.code import I32, I64
from odeum.compile.emit.groups import GroupCode
from odeum.compile.emit.interpolation import weights
from odeum.compile.emit.lanes import scatter
from odeum.compile.emit.stages import StageCode
from odeum.compile.emit.values import Value, fma, where


class OutputCode:
    """Writes them.

    Args:
        group: the function.
        stages: the derivatives of the step at hand.
    """

    def __init__(self, group: GroupCode, stages: StageCode) -> None:
        self._group = group
        self._stages = stages

    def reach(
        self,
        t: Sequence[Value],
        h: Sequence[Value],
        y: ir.Value,
        t1: Sequence[Value],
        accept: Sequence[Value],
    ) -> None:
        """Writes the states at the output times that the steps reach."""
        group = self._group
        for register in group.registers:
            with group.code.forever() as leave:
                output = group.block.get("next", register)
                direction = group.block.get("direction", register)
                hit = accept[register] & (output * direction <= t1[register] * direction)
                leave.unless(group.code.any(hit))
                theta = (output - t[register]) / h[register]
                inside = hit & (output * direction < t1[register] * direction)
                hy = h[register].to_float(group.layout.real)
                self._interpolate(theta, hy, y, hit, inside, register)
                self._next_output(hit, register)

    def _interpolate(
        self, theta: Value, h: Value, y: ir.Value, hit: Value, inside: Value, register: int
    ) -> None:
        group = self._group
        code, layout, n = group.code, group.layout, group.layout.registers
        ys = group.arguments.address("ys")
        index = group.block.get("index", register).to_int(I64)
        places = group.state_places(index, group.rows(register))
        scaled = [None if w is None else w * h for w in weights(group.spec, theta)]
        for d in code.each(group.spec.dim, 4):
            element = code.add(code.times(d, n), register)
            state = code.load(y, layout.lane, element)
            for j, weight in enumerate(scaled):
                if weight is None:
                    continue
                k = self._stages.k(j, element)
                if group.spec.derivatives.is_optional(j):
                    # Where no output lies inside, it was not evaluated: zero times that may be NaN.
                    k = where(inside, k, k.constant(0.0))
                state = fma(weight, k, state)
            scatter(code, state, ys, places + group.whole(d), hit)

    def _next_output(self, hit: Value, register: int) -> None:
        group = self._group
        code = group.code
        index = group.block.get("index", register) + hit.to_int(I32)
        group.block.set("index", index, register)
        last = group.wide(code.value(group.n_times).to_int(I32)) - 1
        inside = where(index < last, index, last).to_int(I64)
        following = group.output_times(inside, group.rows(register))
        beyond = group.block.get("direction", register) * math.inf
        group.block.set("next", where(index > last, beyond, following), register)
