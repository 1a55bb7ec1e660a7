"""sin and cos.

x = h pi/2 + r with |r| <= pi/2 and h the nearest even number for the sine, the nearest odd one for
the cosine, so that one polynomial, of sin(r), serves both. pi/2 is cut into parts with so few bits
that their products with h are exact, which bounds how large x may be; beyond, the C library is
asked. Coefficients: benchmarks/fit_functions.py.
"""

from dataclasses import dataclass

from odeum.compile.emit.functions_parts import by_lane, format_of, nearest_integer, unless
from odeum.compile.emit.values import DOUBLE, FLOAT, Value, fma, polynomial, where

ONE_OVER_PI = 0.3183098861837907


@dataclass(frozen=True)
class Sine:
    """Constants for one format.

    Attributes:
        half_pi: its parts, which add up to more digits than any r needs.
        large: above it the products of the parts are not exact.
        tail: (sin(r) / r - 1) / r^2 in r^2.
    """

    half_pi: tuple[float, ...]
    large: float
    tail: tuple[float, ...]


# fmt: off
CONSTANTS = {
    FLOAT: Sine(
        half_pi=(1.5703125, 0.0004837512969970703, 7.549533620476723e-08, 2.5633441515945189e-12),
        large=2.0**13,
        tail=(
            -0.16666659545131068, 0.008333066096831163, -0.000198095911480283,
            2.6057530390491077e-06,
        ),
    ),
    DOUBLE: Sine(
        half_pi=(
            1.5707963267341256, 6.077100506303966e-11, 2.0222662487111665e-21,
            8.4784276603689e-32,
        ),
        large=2.0**20,
        tail=(
            -0.16666666666666666, 0.008333333333333194, -0.00019841269841209148,
            2.7557319211124476e-06, -2.5052106871598358e-08, 1.6058939643861482e-10,
            -7.642989837280411e-13, 2.7211571891225602e-15,
        ),
    ),
}
# fmt: on


def sin(x: Value) -> Value:
    """The sine."""
    k, k_integer = nearest_integer(x, ONE_OVER_PI)
    result = _alternating_sine(x, k * 2.0, k_integer)
    result = where(x == 0.0, x, result)  # keeps -0
    return unless(abs(x) > CONSTANTS[x.element].large, result, lambda: by_lane("sin", x))


def cos(x: Value) -> Value:
    """The cosine, as the sine of x + pi/2, the sum not rounded."""
    k, k_integer = nearest_integer(fma(x, ONE_OVER_PI, -0.5))
    result = _alternating_sine(x, fma(k, 2.0, 1.0), k_integer + 1)
    return unless(abs(x) > CONSTANTS[x.element].large, result, lambda: by_lane("cos", x))


def _alternating_sine(x: Value, h: Value, k: Value) -> Value:
    """sin(x - h pi/2), with the opposite sign where k is odd."""
    form, constants = format_of(x), CONSTANTS[x.element]
    r = x
    for part in constants.half_pi:
        r = fma(h, -part, r)
    z = r * r
    sine = fma(r * z, polynomial(z, constants.tail), r)
    sign = k << (form.integer.width - 1)
    return (sine.bitcast(form.integer) ^ sign).bitcast(x.element)
