"""What the elementary functions share: floating-point formats, clamps, powers of two, libm.

Nothing here depends on the rounding of a product and sum in one: results are right, to about the
same accuracy, on machines with and without a fused multiply-add.
"""

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from odeum.compile.emit.values import DOUBLE, FLOAT, Value, fma, where

INDEX = ir.IntType(32)


@dataclass(frozen=True)
class Format:
    """How an IEEE number is laid out.

    Attributes:
        integer: the LLVM integer of the same width.
        mantissa: stored bits of the significand.
        bias: the exponent stored for 1.

    Example:
        >>> FORMATS[DOUBLE].bits_of_power(0) == 0x3FF0000000000000
        True
    """

    integer: ir.IntType
    mantissa: int
    bias: int

    def bits_of_power(self, exponent: int) -> int:
        """The bits of ``2**exponent``, as an integer."""
        return (self.bias + exponent) << self.mantissa

    @property
    def rounder(self) -> float:
        """Added to a number below a quarter of it, leaves the nearest integer in the low bits."""
        return 1.5 * 2.0**self.mantissa

    @property
    def rounder_bits(self) -> int:
        """The bits of ``rounder``, as an integer."""
        return self.bits_of_power(self.mantissa) | 1 << (self.mantissa - 1)


FORMATS = {FLOAT: Format(ir.IntType(32), 23, 127), DOUBLE: Format(ir.IntType(64), 52, 1023)}


def format_of(x: Value) -> Format:
    """The format of a floating-point value."""
    return FORMATS[x.element]


def at_most(x: Value, limit: float) -> Value:
    """``min(x, limit)``; NaN stays."""
    return where(x > limit, limit, x)


def between(x: Value, lowest: float, highest: float) -> Value:
    """``max(lowest, min(x, highest))``; NaN stays."""
    x = at_most(x, highest)
    return where(x < lowest, lowest, x)


def nearest_integer(x: Value, scale: float = 1.0) -> tuple[Value, Value]:
    """The integer nearest to ``x * scale``, as a number and as an LLVM integer.

    The product must be below a quarter of ``Format.rounder``.
    """
    form = format_of(x)
    shifted = fma(x, scale, form.rounder) if scale != 1.0 else x + form.rounder
    return shifted - form.rounder, shifted.bitcast(form.integer) - form.rounder_bits


def power_of_two(exponent: Value, element: ir.Type) -> Value:
    """2 to the power of an integer between those of the least normal number and of infinity."""
    form = FORMATS[element]
    return ((exponent + form.bias) << form.mantissa).bitcast(element)


def times_power_of_two(x: Value, exponent: Value) -> Value:
    """``x * 2**exponent`` rounded once; ``x`` near 1, any exponent at which that is 0 or infinite.

    In two factors, each of which is a normal number.
    """
    form = format_of(x)
    biased = exponent + 2 * form.bias
    half = biased >> 1
    rest = biased - half
    first, second = ((part << form.mantissa).bitcast(x.element) for part in (half, rest))
    return x * first * second


def exponent_and_fraction(x: Value) -> tuple[Value, Value]:
    """``k`` and ``m`` with ``x = m * 2**k`` and m from sqrt(1/2) to sqrt(2), both as numbers.

    For positive finite ``x``; anything for others.
    """
    form, element = format_of(x), x.element
    lift = form.mantissa + 2
    subnormal = x < 2.0 ** (1 - form.bias)
    bits = where(subnormal, x * 2.0**lift, x).bitcast(form.integer)
    least = form.bits_of_power(-1) + (0x3504F3 if element == FLOAT else 0x6A09E667F3BCD)
    shifted = bits + (form.bits_of_power(0) - least)
    m = ((shifted & ((1 << form.mantissa) - 1)) + least).bitcast(element)
    biased = (shifted >> form.mantissa) + form.bits_of_power(form.mantissa)
    offset = 2.0**form.mantissa + form.bias
    k = biased.bitcast(element) - where(subnormal, x.constant(offset + lift), offset)
    return k, m


def by_lane(name: str, *operands: Value) -> Value:
    """What a function of the C library makes of each lane."""
    first = operands[0]
    builder, element = first.builder, first.element
    symbol = name + "f" if element == FLOAT else name
    function = builder.module.globals.get(symbol)
    if function is None:
        signature = ir.FunctionType(element, [element] * len(operands))
        function = ir.Function(builder.module, signature, symbol)
        function.attributes.add("nounwind")
    if first.lanes is None:
        return Value(builder, builder.call(function, [x.value for x in operands]))
    before = builder.block
    loop, after = builder.append_basic_block("lane"), builder.append_basic_block("lanes_done")
    builder.branch(loop)
    builder.position_at_end(loop)
    index = Value(builder, builder.phi(INDEX))
    results = Value(builder, builder.phi(first.type))
    arguments = [x.lane(index).value for x in operands]
    extended = results.with_lane(index, Value(builder, builder.call(function, arguments)))
    following = index + 1
    index.value.add_incoming(ir.Constant(INDEX, 0), before)
    index.value.add_incoming(following.value, loop)
    results.value.add_incoming(first.value, before)
    results.value.add_incoming(extended.value, loop)
    builder.cbranch((following < first.lanes).value, loop, after)
    builder.position_at_end(after)
    return extended


def unless(rare: Value, usual: Value, instead: Callable[[], Value]) -> Value:
    """``usual``, or what ``instead`` emits and computes when ``rare`` is true in any lane."""
    builder = rare.builder
    exceptional = builder.append_basic_block("rare")
    after = builder.append_basic_block("usual")
    builder.cbranch(rare.any().value, exceptional, after)
    before = builder.block
    builder.position_at_end(exceptional)
    replacement = instead()
    end = builder.block
    builder.branch(after)
    builder.position_at_end(after)
    result = builder.phi(usual.type)
    result.add_incoming(usual.value, before)
    result.add_incoming(replacement.value, end)
    return Value(builder, result)
