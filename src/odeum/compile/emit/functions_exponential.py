"""exp, exp2, expm1 and what is made of them: tanh, sigmoid, erf.

exp(x) = 2^k e^r with k the integer nearest to x / ln 2, so that |r| <= ln(2) / 2, and a minimax
polynomial for e^r. Coefficients: benchmarks/fit_functions.py.
"""

from dataclasses import dataclass

from odeum.compile.emit.functions_parts import (
    at_most,
    between,
    format_of,
    nearest_integer,
    power_of_two,
    times_power_of_two,
)
from odeum.compile.emit.values import DOUBLE, FLOAT, Value, fma, polynomial

LN2 = 0.6931471805599453
LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class Exponential:
    """Constants for one format.

    Attributes:
        ln2: its logarithm in two parts; the first has so few bits that its product with any
            exponent is exact.
        exp_tail: (e^r - 1 - r) / r^2.
        exp2_tail: (2^r - 1) / r.
        erf_exponent: -log(1 - erf(x)) / x for x between 0 and ``erf_one``.
        erf_one: where erf is 1 to rounding.
    """

    ln2: tuple[float, float]
    exp_tail: tuple[float, ...]
    exp2_tail: tuple[float, ...]
    erf_exponent: tuple[float, ...]
    erf_one: float


# fmt: off
CONSTANTS = {
    FLOAT: Exponential(
        ln2=(0.693145751953125, 1.4286068203094173e-06),
        exp_tail=(
            0.49999998144260693, 0.16666543183797256, 0.041667201806387826,
            0.008366579600196267, 0.001388250134005282,
        ),
        exp2_tail=(
            0.6931472028805661, 0.24022647909999578, 0.05550332410615794,
            0.009618437638085968, 0.0013398899715091291, 0.0001535333023994846,
        ),
        erf_exponent=(
            1.1283791716121858, 0.6366193819509239, 0.10277783075433296,
            -0.019153065120774804, -0.00016039339963352088, 0.0016670243915715428,
            -0.0006328349204663099, 0.0001176406462181217, -9.256184962175639e-06,
        ),
        erf_one=3.95,
    ),
    DOUBLE: Exponential(
        ln2=(0.6931471803691238, 1.9082149292705877e-10),
        exp_tail=(
            0.5, 0.16666666666666677, 0.041666666666666505, 0.008333333333321608,
            0.0013888888888962884, 0.0001984126988620669, 2.4801587171869474e-05,
            2.755724410539593e-06, 2.7557402921289085e-07, 2.510908098680896e-08,
            2.0875333382554183e-09,
        ),
        exp2_tail=(
            0.6931471805599453, 0.2402265069591013, 0.05550410866482008,
            0.009618129107594067, 0.0013333558146775178, 0.00015403530457185584,
            1.5252733492733979e-05, 1.3215435242597084e-06, 1.0178199676354237e-07,
            7.073790543133291e-09, 4.4347643330545366e-10,
        ),
        erf_exponent=(
            1.1283791670955126, 0.6366197723675909, 0.10277260330131548,
            -0.01912844699309523, -0.00020919485391842347, 0.0016962076698350326,
            -0.0005901324299578024, 2.5904498814980577e-05, 6.442047531063612e-05,
            -2.9575675531681257e-05, 3.169685150096453e-06, 3.132945804824748e-06,
            -2.0371733097409326e-06, 5.70621512882665e-07, -1.1701897459208524e-08,
            -6.573647238365899e-08, 3.4585935020455884e-08, -1.077366734842058e-08,
            2.3605864671393416e-09, -3.760834028624805e-10, 4.3019386039292486e-11,
            -3.364480567301431e-12, 1.614939688979106e-13, -3.592361885570388e-15,
        ),
        erf_one=5.95,
    ),
}

# tanh(x) / x in x^2, in single precision
TANH_NUMERATOR = (
    0.9999999794242513, 0.1337972241479231, 0.0034940383050972687, 2.0583494185149012e-05,
    1.331901560548819e-08,
)
TANH_DENOMINATOR = (
    1.0, 0.4671303779736863, 0.025871091270229084, 0.00032830967239333913, 7.762011318395962e-07,
)
TANH_ONE = 9.02
# fmt: on


def exp(x: Value) -> Value:
    """The exponential, e to the power of x."""
    form = format_of(x)
    k, less_one = _reduced(_between_powers(x, -form.bias - form.mantissa - 2.0, form.bias + 1.4))
    return times_power_of_two(less_one + 1.0, k)


def exp2(x: Value) -> Value:
    """2 to the power of x."""
    form = format_of(x)
    return exp2_of_sum(between(x, -form.bias - form.mantissa - 2.0, form.bias + 2.0))


def exp2_of_sum(x: Value, small: Value | None = None) -> Value:
    """2 to the power of x and a small number, whose sum is not rounded; x of a result's order."""
    nearest, k = nearest_integer(x)
    r = x - nearest
    if small is not None:
        r = r + small
    p = fma(r, polynomial(r, CONSTANTS[x.element].exp2_tail), 1.0)
    return times_power_of_two(p, k)


def expm1(x: Value) -> Value:
    """The exponential, e to the power of x, less 1."""
    form = format_of(x)
    half = _half_expm1(_between_powers(x, -form.mantissa - 5.0, form.bias + 1.4))
    return (half * 2.0).copysign(x)


def tanh(x: Value) -> Value:
    """The hyperbolic tangent.

    In double precision u / (u + 1) with u = (e^(2|x|) - 1) / 2; in single precision a rational
    function, which takes two thirds of the time. Its error is at most 3 times 2^-23 of the
    result, rarely above half of that; just below 1 this makes 6 units in the last place.
    """
    if x.element == FLOAT:
        x = between(x, -TANH_ONE, TANH_ONE)
        z = x * x
        ratio = polynomial(z, TANH_NUMERATOR) / polynomial(z, TANH_DENOMINATOR)
        return between(x * ratio, -1.0, 1.0)
    u = _half_expm1(at_most(abs(x) * 2.0, (format_of(x).mantissa + 5) * LN2))
    return (u / (u + 1.0)).copysign(x)


def sigmoid(x: Value) -> Value:
    """1 / (1 + e^-x), as (1/2) / (1/2 + e^-x / 2)."""
    form = format_of(x)
    k, less_one = _reduced(_between_powers(-x, 2.0 - form.bias, form.bias + 1.75))
    half_power = power_of_two(k - 1, x.element)  # infinite at the upper limit
    return 0.5 / fma(less_one + 1.0, half_power, 0.5)


def erf(x: Value) -> Value:
    """The error function, as 1 - e^-q with a polynomial q = -log(1 - erf|x|)."""
    constants = CONSTANTS[x.element]
    magnitude = at_most(abs(x), constants.erf_one)
    slope, *bend = constants.erf_exponent
    q = fma(magnitude, slope, magnitude * magnitude * polynomial(magnitude, bend))
    return (_half_expm1(-q) * -2.0).copysign(x)


def _half_expm1(x: Value) -> Value:
    """(e^x - 1) / 2 unless that overflows or e^x is subnormal."""
    k, less_one = _reduced(x)
    half_power = power_of_two(k - 1, x.element)
    return fma(half_power, less_one, half_power - 0.5)


def _between_powers(x: Value, lowest: float, highest: float) -> Value:
    """Limit x so that e^x lies between two powers of 2, given by their exponents."""
    return between(x, lowest * LN2, highest * LN2)


def _reduced(x: Value) -> tuple[Value, Value]:
    """An integer k and e^r - 1 with x = k ln 2 + r."""
    constants = CONSTANTS[x.element]
    high, low = constants.ln2
    nearest, k = nearest_integer(x, LOG2_E)
    r = fma(nearest, -low, fma(nearest, -high, x))
    return k, fma(r * r, polynomial(r, constants.exp_tail), r)
