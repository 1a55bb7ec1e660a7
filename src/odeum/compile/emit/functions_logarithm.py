"""log, log2, log1p and general powers.

log(x) = k log 2 + log(m) with x = m 2^k, m between sqrt(1/2) and sqrt(2). With f = m - 1 and
s = f / (2 + f), log(m) = 2 atanh(s) = f - (f^2/2 - s (f^2/2 + R(s^2))), in which the leading term
is exact. Coefficients: benchmarks/fit_functions.py.
"""

import math

from odeum.compile.emit.functions_exponential import CONSTANTS, LOG2_E, exp2, exp2_of_sum
from odeum.compile.emit.functions_parts import (
    between,
    exponent_and_fraction,
    nearest_integer,
    power_of_two,
)
from odeum.compile.emit.values import DOUBLE, FLOAT, Value, fma, polynomial, where

# (2 atanh(s) / s - 2) / s^2 in s^2
LOG_TAIL = {
    FLOAT: (0.6666677670574471, 0.39977497005446866, 0.29873035505823586),
    DOUBLE: (
        0.6666666666666735,
        0.39999999999411123,
        0.28571428743256205,
        0.22222198476635496,
        0.1818356970630667,
        0.15313904109771764,
        0.14797498928043315,
    ),
}

# 2 atanh(s) / (s log 2) = (first + its rounding) + (second + its rounding) s^2 + s^4 POW_TAIL(s^2)
POW_FIRST = (2.8853900817779268, 4.0710547481862066e-17)
POW_SECOND = (0.9617966939259756, 5.0577616648125907e-17)
POW_TAIL = (
    0.5770780163556182,
    0.4121985830918482,
    0.32059890229088045,
    0.26230769953415406,
    0.22198407432276593,
    0.19125330728313025,
    0.1904032471319454,
)


def log(x: Value) -> Value:
    """The natural logarithm."""
    k, m = exponent_and_fraction(x)
    return _with_ends(x, _log_of_parts(k, m - 1.0))


def log2(x: Value) -> Value:
    """The logarithm to base 2."""
    k, m = exponent_and_fraction(x)
    f = m - 1.0
    half_square, rest = _log_terms(f)
    return _with_ends(x, fma(f - (half_square - rest), LOG2_E, k))


def log1p(x: Value) -> Value:
    """log(1 + x), accurate also where x is small."""
    total = x + 1.0
    k, _ = exponent_and_fraction(total)
    _, exponent = nearest_integer(k)
    scale = power_of_two(2 - exponent, x.element)  # 4 / 2^k: never subnormal
    f = fma(x * scale, 0.25, fma(scale, 0.25, -1.0))  # (1 + x) / 2^k - 1
    return _with_ends(total, _log_of_parts(k, f)).copysign(x)


def power(x: Value, y: Value) -> Value:
    """Raise x to the power of y, as IEEE 754 defines pow.

    2^(y log2|x|), with the logarithm and its product in at least twice the precision of the result.
    """
    if x.element == FLOAT:
        x, y = x.to_float(DOUBLE), y.to_float(DOUBLE)
        return _power_of(x, y, exp2(y * log2(abs(x)))).to_float(FLOAT)
    high, low = _log2_twice(abs(x))
    high = _with_ends(abs(x), high)
    exponent = y * high
    small = y * low + _exact(y, high, -exponent)
    small = where(abs(exponent) < 1100.0, small, 0.0)  # where it may be NaN
    return _power_of(x, y, exp2_of_sum(between(exponent, -1100.0, 1100.0), small))


def _power_of(x: Value, y: Value, of_magnitude: Value) -> Value:
    """Raise x to the power of y, given that of |x|, right unless |x| or the result is 1."""
    integral = y == y.intrinsic("trunc")
    half = y * 0.5
    odd = integral & (half != half.intrinsic("trunc"))
    result = where(odd, of_magnitude.copysign(x), of_magnitude)
    negative = (x < 0.0) & (x > -math.inf)
    result = where(negative & ~integral, math.nan, result)
    of_one = (x == 1.0) | ((x == -1.0) & (abs(y) == math.inf))
    return where(of_one | (y == 0.0), 1.0, result)


def _log2_twice(x: Value) -> tuple[Value, Value]:
    """log2 of a positive finite double, as the sum of two; for exact products fma has to be one."""
    k, m = exponent_and_fraction(x)
    f = m - 1.0
    denominator = m + 1.0
    rounding = m - (denominator - 1.0)
    reciprocal = 1.0 / denominator
    s = f * reciprocal
    s_low = (_exact(-s, denominator, f) - s * rounding) * reciprocal
    z = s * s
    z_low = _exact(s, s, -z) + 2.0 * s * s_low
    # sum of the series over s: first + second z + z^2 (...)
    second = z * POW_SECOND[0]
    second_low = _exact(z, second.constant(POW_SECOND[0]), -second)
    second_low = second_low + z_low * POW_SECOND[0] + z * POW_SECOND[1]
    third = z * z * polynomial(z, POW_TAIL)
    tail, tail_low = _sum(second, third)
    series, series_low = _sum(x.constant(POW_FIRST[0]), tail)
    series_low = series_low + (tail_low + second_low + POW_FIRST[1])
    product = s * series
    product_low = _exact(s, series, -product) + (s * series_low + s_low * series)
    total, total_low = _sum(k, product)
    return _sum(total, total_low + product_low)


def _exact(a: Value, b: Value, c: Value) -> Value:
    """A b + c rounded once, on every machine."""
    return a.intrinsic("fma", b, c)


def _sum(large: Value, small: Value) -> tuple[Value, Value]:
    """The rounded sum and its rounding error; the first is 0 or the larger."""
    total = large + small
    return total, small - (total - large)


def _log_terms(f: Value) -> tuple[Value, Value]:
    """A and b with log(1 + f) = f - (a - b)."""
    s = f / (f + 2.0)
    z = s * s
    half_square = f * f * 0.5
    return half_square, s * fma(z, polynomial(z, LOG_TAIL[f.element]), half_square)


def _log_of_parts(k: Value, f: Value) -> Value:
    """log(2^k (1 + f))."""
    high, low = CONSTANTS[f.element].ln2
    half_square, rest = _log_terms(f)
    return fma(k, high, f - (half_square - fma(k, low, rest)))


def _with_ends(x: Value, logarithm: Value) -> Value:
    """The logarithm of x where x is positive and finite, its limits and NaN elsewhere."""
    positive = x > 0.0
    end = where(positive, x, where(x == 0.0, x.constant(-math.inf), math.nan))
    return where(positive & (x < math.inf), logarithm, end)
