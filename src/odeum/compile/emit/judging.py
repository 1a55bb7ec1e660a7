"""Judging a tried step, and the choice of the first one; the formulas are those of odeum.control.

Mirrors the eager engine operation by operation, so that both take the same steps.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llvmlite import ir

from odeum.compile.emit.code import Code, Variable
from odeum.compile.emit.functions import emit_function
from odeum.compile.emit.kernel import Arguments, Spec
from odeum.compile.emit.stages import StageCode, each_element
from odeum.compile.emit.values import DOUBLE, Value, fma, splat, where
from odeum.control import FACTOR_DECIMALS


@dataclass(frozen=True)
class Verdict:
    """What is to be done with a tried step, for one register of rows.

    Attributes:
        accept: whether it stands.
        factor: by how much the next step differs; None where steps are fixed.
        ratio: the scaled error; None likewise.
    """

    accept: Value
    factor: Value | None = None
    ratio: Value | None = None


class Judge:
    """Writes what decides over steps.

    Args:
        code: the function.
        spec: what is compiled.
        arguments: those of the kernel.
    """

    def __init__(self, code: Code, spec: Spec, arguments: Arguments) -> None:
        self._code = code
        self._spec = spec
        self._rtol, self._atol = arguments.address("rtol"), arguments.address("atol")
        self._arguments = arguments

    def _sums(self) -> list[Variable]:
        layout = self._spec.layout
        sums = [Variable(self._code, layout.lane) for _ in range(layout.registers)]
        for total in sums:
            total.set(self._zero())
        return sums

    def _zero(self) -> Value:
        return self._code.value(ir.Constant(self._spec.layout.lane, None))

    def _scale(self, element: ir.Value | int, magnitude: Value) -> Value:
        """The error allowed at a state of that magnitude."""
        layout, code = self._spec.layout, self._code
        if isinstance(element, int):
            d: ir.Value | int = element // layout.registers
        else:
            d = code.builder.udiv(element, code.integer(layout.registers))
        rtol, atol = (code.load(x, layout.real, d) for x in (self._rtol, self._atol))
        if layout.width > 1:
            rtol, atol = (splat(x, layout.width) for x in (rtol, atol))
        return magnitude * rtol + atol

    def _norm(self, total: Value) -> Value:
        return total.intrinsic("sqrt") / math.sqrt(self._spec.dim)

    def finite(self, y: ir.Value) -> list[Value]:
        """Whether states, [dim, registers], are finite, one mask a register."""
        sums = self._sums()
        for element, register in each_element(self._code, self._spec):
            x = self._code.load(y, self._spec.layout.lane, element)
            sums[register].set(sums[register].get() + x * 0.0)
        return [total.get() == 0.0 for total in sums]

    def verdicts(
        self,
        stages: StageCode,
        y: ir.Value,
        h: Sequence[Value],
        memory: Sequence[tuple[Value, Value]],
    ) -> list[Verdict]:
        """What is to be done with a step from states ``y``, one verdict a register.

        Args:
            stages: its derivatives and its end.
            y: [dim, registers].
            h: its signed size in the precision of states.
            memory: scaled errors of the steps before, the newest first.
        """
        controller = self._spec.controller
        if controller is None:
            return [Verdict(accept) for accept in self.finite(stages.y1)]
        code, lane = self._code, self._spec.layout.lane
        estimates = self._spec.tableau.b_error
        assert estimates is not None
        squares = [self._sums() for _ in estimates]
        poison = self._sums()
        for element, register in each_element(code, self._spec):
            y0, y1 = (code.load(x, lane, element) for x in (y, stages.y1))
            magnitude = maximum(abs(y0), abs(y1))
            scale = self._scale(element, magnitude)
            poison[register].set(fma(magnitude, magnitude.constant(0.0), poison[register].get()))
            for weights, totals in zip(estimates, squares, strict=True):
                change = stages.weighed([float(w) for w in weights], element)
                assert change is not None
                error = change * h[register] / scale
                totals[register].set(fma(error, error, totals[register].get()))
        verdicts = []
        for register, before in enumerate(memory):
            errors = [self._norm(totals[register].get()) for totals in squares]
            ratio = _combined(errors) + poison[register].get()
            accept = ratio <= 1.0
            ratio = where(ratio == ratio, ratio, ratio.constant(math.inf))
            factor = self._factor([ratio, *before])
            if controller.has_memory:
                factor = where(accept, factor, smaller(factor, factor.constant(1.0)))
            verdicts.append(Verdict(accept, factor, ratio))
        return verdicts

    def _factor(self, ratios: Sequence[Value]) -> Value:
        controller = self._spec.controller
        assert controller is not None
        exponents = controller.exponents(self._spec.tableau.error_order)
        factor = power(ratios[0], exponents[0])
        if controller.has_memory:
            for ratio, exponent in zip(ratios[1:], exponents[1:], strict=True):
                factor = factor * power(larger(ratio, ratio.constant(1e-10)), exponent)
        factor = rounded(factor * controller.safety)
        factor = larger(factor, factor.constant(controller.factor_min))
        return smaller(factor, factor.constant(controller.factor_max))

    def first_steps(
        self, y: ir.Value, k: ir.Value, span: Sequence[Value], euler: "EulerStep"
    ) -> list[Value]:
        """The first steps from states ``y`` with derivatives ``k``, by Hairer's rule.

        Args:
            y: [dim, registers].
            k: likewise.
            span: signed times to the end, one value a register.
            euler: evaluates the field after steps of given sizes.

        Source:
            Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I (1993), II.4.
        """
        code, lane, time = self._code, self._spec.layout.lane, self._spec.time
        sums_y, sums_k, sums_change = self._sums(), self._sums(), self._sums()
        for element, register in each_element(code, self._spec):
            state, slope = (code.load(x, lane, element) for x in (y, k))
            scale = self._scale(element, abs(state))
            for x, sums in ((state, sums_y), (slope, sums_k)):
                sums[register].set(fma(x / scale, x / scale, sums[register].get()))
        d0 = [self._norm(total.get()) for total in sums_y]
        d1 = [self._norm(total.get()) for total in sums_k]
        h0 = []
        for register, length in enumerate(span):
            a, b = d0[register], d1[register]
            tiny = (a < 1e-5) | (b < 1e-5)
            guess = where(tiny, a.constant(1e-6), 0.01 * a / b).to_float(time)
            h0.append(smaller(guess, abs(length)))
        k1 = euler([size.copysign(length) for size, length in zip(h0, span, strict=True)])
        for element, register in each_element(code, self._spec):
            state, slope, after = (code.load(x, lane, element) for x in (y, k, k1))
            change = (after - slope) / self._scale(element, abs(state))
            sums_change[register].set(fma(change, change, sums_change[register].get()))
        steps = []
        for register, length in enumerate(span):
            d2 = self._norm(sums_change[register].get()).to_float(time) / h0[register]
            steepest = maximum(d1[register].to_float(time), d2)
            h1 = power(0.01 / steepest, 1 / (self._spec.tableau.order + 1))
            least = larger(h0[register] * 1e-3, h1.constant(1e-6))
            h1 = where(steepest <= 1e-15, least, h1)
            h = minimum(minimum(100.0 * h0[register], h1), abs(length))
            h = where((h < math.inf) & (h > 0.0), h, h0[register])
            steps.append(_rounded_mantissa(h).copysign(length))
        return [self.bound(step) for step in steps]

    def bound(self, h: Value) -> Value:
        """At most the largest step allowed."""
        longest = self._arguments.size("max").to_float(h.element)
        longest = longest if h.lanes is None else splat(longest, h.lanes)
        return smaller(abs(h), longest).copysign(h)


EulerStep = Callable[[list[Value]], ir.Value]
"""Evaluates the field after Euler steps of given signed sizes, one a register: [dim, registers]."""


def _combined(errors: Sequence[Value]) -> Value:
    """One scaled error of one or two estimates (Hairer, Norsett & Wanner I, II.10)."""
    if len(errors) == 1:
        return errors[0]
    fine, coarse = errors
    squares = fine * fine + 0.01 * (coarse * coarse)
    return where(squares > 0.0, fine * fine / squares.intrinsic("sqrt"), fine)


def power(x: Value, exponent: float) -> Value:
    """``x^exponent`` for a number known when compiling."""
    return Value(x.builder, emit_function(x.builder, "pow", x.value, x.constant(exponent).value))


def maximum(x: Value, y: Value) -> Value:
    """The larger one; NaN where either is."""
    return Value(x.builder, emit_function(x.builder, "maximum", x.value, y.value))


def minimum(x: Value, y: Value) -> Value:
    """The smaller one; NaN where either is."""
    return Value(x.builder, emit_function(x.builder, "minimum", x.value, y.value))


def larger(x: Value, bound: Value | float) -> Value:
    """``x`` where it exceeds a bound, else the bound; NaN stays NaN."""
    return where(x < bound, bound, x)


def smaller(x: Value, bound: Value | float) -> Value:
    """``x`` where it is below a bound, else the bound; NaN stays NaN."""
    return where(x > bound, bound, x)


def rounded(x: Value) -> Value:
    """Rounded to the decimals that step factors have."""
    scale = 10.0**FACTOR_DECIMALS
    return (x * scale).intrinsic("rint") / scale


def _rounded_mantissa(h: Value) -> Value:
    """A positive number with three significant decimals in its mantissa, which is in [1/2, 1)."""
    wide = h.element == DOUBLE
    integer = ir.IntType(64 if wide else 32)
    n_bits, half = (52, 0x3FE) if wide else (23, 0x7E)
    bits = h.bitcast(integer)
    fraction_mask = (1 << n_bits) - 1
    mantissa = ((bits & fraction_mask) | (half << n_bits)).bitcast(h.element)
    # The power of two that was taken out, as a number.
    exponent = (bits >> n_bits) - half
    two_to = ((exponent + (half + 1)) << n_bits).bitcast(h.element)
    return rounded(mantissa) * two_to
