"""Operators on values against NumPy's."""

import numpy as np
import pytest
from llvmlite import binding, ir

from odeum.compile.emit.values import (
    DOUBLE,
    FLOAT,
    Value,
    constant,
    fma,
    polynomial,
    splat,
    where,
)

I32, I64 = ir.IntType(32), ir.IntType(64)

CASES = {
    "arithmetic": (lambda x, y: (2.0 * x + y) / (x - 3.5) - 1.0 / y,) * 2,
    "reversed": (lambda x, y: 1.5 - (-x) * y,) * 2,
    "abs": (lambda x, y: abs(x) + abs(y),) * 2,
    "fma": (lambda x, y: fma(x, y, 0.25), lambda x, y: x * y + 0.25),
    "polynomial": (
        lambda x, y: polynomial(x, (3.0, -1.0, 0.5)),
        lambda x, y: 3.0 - x + 0.5 * x**2,
    ),
    "long polynomial": (
        lambda x, y: polynomial(y, [1.0 / (n + 1) for n in range(19)]),
        lambda x, y: sum(y**n / (n + 1) for n in range(19)),
    ),
    "where": (
        lambda x, y: where((x < y) & ~(x == 0.5), x, 7.0),
        lambda x, y: np.where((x < y) & (x != 0.5), x, 7.0),
    ),
    "either": (
        lambda x, y: where((x > 1.0) | (y >= 0.5), 0.0, y),
        lambda x, y: np.where((x > 1.0) | (y >= 0.5), 0.0, y),
    ),
    "nan": (
        lambda x, y: where(x != x, 1.0, where(x <= y, x.constant(2.0), 3.0)),
        lambda x, y: np.where(np.isnan(x), 1.0, np.where(x <= y, 2.0, 3.0)),
    ),
    "copysign": (lambda x, y: y.copysign(x), lambda x, y: np.copysign(y, x)),
    "truth as number": (
        lambda x, y: (x < y).to_float(x.element),
        lambda x, y: (x < y).astype(float),
    ),
    "integers": (
        lambda x, y: abs((y * 100.0).to_int(I32) * 3 - 40).to_float(x.element),
        lambda x, y: np.abs(np.trunc(y * 100.0) * 3 - 40),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("element", [FLOAT, DOUBLE], ids=["float", "double"])
def test_operators(pointwise, case, lanes, element):
    emitted, expected = CASES[case]
    dtype = np.float32 if element == FLOAT else np.float64
    x = np.array([0.5, -2.0, 3.0, 1e-3, -0.0, 8.0, 0.125, np.nan], dtype)
    y = np.array([0.75, 0.5, 0.25, -0.5, 0.875, -0.125, 0.5, 0.5], dtype)

    def emit(builder, *operands):
        return emitted(*(Value(builder, operand) for operand in operands)).value

    result = pointwise(emit, element, lanes, n_operands=2)(x, y)
    wide = expected(x.astype(np.float64), y.astype(np.float64))
    np.testing.assert_allclose(result, wide, rtol=8 * np.finfo(dtype).eps)


def test_bits_of_integers(pointwise):
    def emit(builder, x):
        bits = Value(builder, x).bitcast(I64)  # the exponent of a double, and its last bits
        exponent = ((bits << 1) >> 53) - 1023
        return (exponent.to_float(DOUBLE) + ((bits & 3) ^ 1 | 4).to_float(DOUBLE) / 8.0).value

    x = np.array([1.0, -8.0, 0.25, np.nextafter(4.0, 5.0)])
    np.testing.assert_array_equal(pointwise(emit, DOUBLE, 2)(x), [0.625, 3.625, -1.375, 2.5])


def test_lanes(pointwise):
    def emit(builder, x):
        vector = Value(builder, x)
        swapped = vector.with_lane(0, vector.lane(1)).with_lane(1, vector.lane(0))
        some = splat((vector > 10.0).any().to_float(DOUBLE), 2)
        return (swapped + some * 100.0).value

    x = np.array([1.0, 2.0, 3.0, 40.0])
    np.testing.assert_array_equal(pointwise(emit, DOUBLE, 2)(x), [2.0, 1.0, 140.0, 103.0])


def test_widths_of_numbers(pointwise):
    def emit(builder, x):
        single = Value(builder, x).to_float(FLOAT)
        return (single.to_float(DOUBLE) + single.to_int(I32).to_int(I64).to_float(DOUBLE)).value

    x = np.array([1.1, -2.7])
    expected = x.astype(np.float32).astype(np.float64) + np.trunc(x)
    np.testing.assert_array_equal(pointwise(emit, DOUBLE, 2)(x), expected)


@pytest.mark.parametrize("number", [0.1, -0.0, 1e-45, 3e38, float("inf"), float("nan")])
def test_constants_are_rounded_to_their_type(pointwise, number):
    def emit(builder, x):
        return constant(x.type, number)

    for lanes in (1, 8):
        result = pointwise(emit, FLOAT, lanes)(np.zeros(3, np.float32))
        np.testing.assert_array_equal(
            result.view(np.int32), np.float32([number] * 3).view(np.int32)
        )


def test_a_repeated_intrinsic_is_declared_once():
    module = ir.Module()
    vector = ir.VectorType(FLOAT, 8)
    function = ir.Function(module, ir.FunctionType(vector, [vector]), "f")
    x = Value(ir.IRBuilder(function.append_basic_block()), function.args[0])
    x.builder.ret((fma(x, x, 1.0) + fma(x, 2.0, x)).value)
    binding.parse_assembly(str(module)).verify()
    assert str(module).count("declare") == 1
