"""Emitted functions against mpmath, and against torch where values are special."""

from functools import cache

import mpmath
import numpy as np
import pytest
import torch
from llvmlite import binding, ir

from odeum.compile.emit.functions import FUNCTIONS, emit_function
from odeum.compile.emit.values import DOUBLE, FLOAT

ON_X86 = binding.get_default_triple().startswith("x86_64")
TARGETS = ["host", "baseline"] if ON_X86 else ["host"]
DTYPES = {FLOAT: np.float32, DOUBLE: np.float64}
LANES = {FLOAT: 8, DOUBLE: 4}
BINARY = {"pow", "atan2", "minimum", "maximum"}
EXACT = {"abs", "floor", "ceil", "round", "trunc", "minimum", "maximum"}

# Worst error allowed, in units in the last place; of single and of double precision.
ALLOWED = {
    "exp": (1.1, 1.1),
    "exp2": (1.3, 1.3),
    "expm1": (1.8, 2.2),
    "log": (0.9, 0.9),
    "log2": (1.9, 1.9),
    "log1p": (1.5, 1.4),
    "tanh": (6.2, 2.6),
    "sigmoid": (2.5, 2.5),
    "erf": (2.8, 2.3),
    "sin": (2.1, 2.4),
    "cos": (2.1, 2.4),
    "sqrt": (0.501, 0.501),
    "pow": (0.501, 1.7),
    "tan": (2.5, 2.5),  # from here on the C library's
    "asin": (2.5, 2.5),
    "acos": (2.5, 2.5),
    "atan": (2.5, 2.5),
    "atan2": (2.5, 2.5),
    "sinh": (2.5, 2.5),
    "cosh": (2.5, 2.5),
}

elements = pytest.mark.parametrize("element", [FLOAT, DOUBLE], ids=["float", "double"])
targets = pytest.mark.parametrize("target", TARGETS)


@pytest.fixture
def compiled(pointwise):
    def compile_function(name, element, lanes, target="host"):
        def emit(builder, *operands):
            return emit_function(builder, name, *operands)

        n_operands = 2 if name in BINARY else 1
        return pointwise(emit, element, lanes, n_operands=n_operands, target=target)

    return compile_function


def arguments(name, dtype):
    """Samples of every magnitude and densely where functions bend, without special values."""
    rng = np.random.default_rng(5)
    info = np.finfo(dtype)
    exponents = rng.uniform(info.minexp, info.maxexp, 300)
    everywhere = np.exp2(exponents) * rng.choice([-1.0, 1.0], 300)
    dense = [rng.uniform(-span, span, 250) for span in (0.1, 0.5, 1.0, 3.0, 10.0, 90.0, 710.0, 1e4)]
    x = np.concatenate([everywhere, *dense, 1.0 + rng.uniform(-0.3, 0.45, 500)]).astype(dtype)
    if name in {"log", "log2", "sqrt", "pow"}:
        x = np.abs(x)
    if name == "log1p":
        x = np.where(x < -1, -1 / x, x)
    if name in {"asin", "acos"}:
        x = np.where(np.abs(x) > 1, 1 / x, x)
    if name == "pow":  # any base, to a power that leaves a number
        y = (rng.uniform(info.minexp, info.maxexp, len(x)) / np.log2(x.astype(float))).astype(dtype)
        return x, np.clip(y, -info.max, info.max)
    return (x, np.roll(x, 77)) if name == "atan2" else (x,)


TRUTH = {
    "exp2": lambda x: mpmath.power(2, x),
    "log2": lambda x: mpmath.log(x, 2),
    "pow": mpmath.power,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
}


@cache
def samples(name, dtype):
    """Arguments at which the result is a normal number, and that result as the sum of two."""
    operands = arguments(name, dtype)
    function, info = TRUTH.get(name) or getattr(mpmath, name), np.finfo(dtype)
    high, low = np.zeros((2, len(operands[0])))
    for i, x in enumerate(zip(*(a.tolist() for a in operands), strict=True)):
        turns = name in {"sin", "cos", "tan"} and abs(x[0]) > 1e5
        with mpmath.workprec(1400 if turns else 160):
            value = function(*map(mpmath.mpf, x))
            high[i] = float(value)
            low[i] = float(value - high[i]) if np.isfinite(high[i]) else 0.0
    normal = (np.abs(high) >= info.tiny) & (np.abs(high) <= info.max)
    return tuple(a[normal] for a in operands), high[normal], low[normal]


@pytest.mark.sweep(2)
@pytest.mark.parametrize("name", sorted(ALLOWED))
@elements
@targets
def test_accuracy(compiled, name, element, target):
    dtype = DTYPES[element]
    operands, high, low = samples(name, dtype)
    result = compiled(name, element, LANES[element], target)(*operands).astype(np.float64)
    unit = np.spacing(np.abs(high).astype(dtype)).astype(np.float64)
    errors = np.abs((result - high) - low) / unit
    worst = int(np.argmax(errors))
    at = ", ".join(repr(float(a[worst])) for a in operands)
    print(f"{name} {dtype.__name__} {target}: {errors[worst]:.2f} ulp at {at}, {len(high)} points")
    assert len(high) > 800
    assert errors[worst] <= ALLOWED[name][element == DOUBLE]


def special_values(dtype):
    info = np.finfo(dtype)
    positive = [0.0, 1.0, 0.5, 1.5, 2.0, 2.5, 3.0, np.pi, 20.0, 100.0, 1e4, 16777217.0, 1e30]
    positive += [info.smallest_subnormal, info.tiny / 3, info.tiny, info.max, np.inf, np.nan]
    return np.array([*positive, *np.negative(positive)], dtype)


def by_torch(name, *operands):
    tensors = [torch.from_numpy(operand) for operand in operands]
    function = torch.special.exp2 if name == "exp2" else getattr(torch, name)
    return function(*tensors).numpy()


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@elements
@targets
def test_special_values(compiled, name, element, target):
    dtype = DTYPES[element]
    operands = [special_values(dtype)]
    if name in BINARY:
        operands = [a.ravel() for a in np.meshgrid(*operands * 2)]
    result = compiled(name, element, LANES[element], target)(*operands)
    expected = by_torch(name, *operands)
    tiny = np.finfo(dtype).tiny
    rtol = 0.0 if name in EXACT else 8 * np.finfo(dtype).eps
    # Torch's own sigmoid and tanh are 0 or 1 where results are subnormal or within its rounding.
    np.testing.assert_allclose(result, expected, rtol=rtol, atol=tiny)
    if name not in {"minimum", "maximum"}:  # of zeros of both signs torch returns either
        zero = (expected == 0) & (result == 0)
        np.testing.assert_array_equal(np.signbit(result)[zero], np.signbit(expected)[zero])


@pytest.mark.sweep(2)
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@elements
def test_any_number_of_lanes_gives_the_same(compiled, name, element):
    rng = np.random.default_rng(3)
    dtype = DTYPES[element]
    operands = [rng.uniform(0.05, 0.95, 48).astype(dtype) for _ in range(1 + (name in BINARY))]
    scalar = compiled(name, element, 1)(*operands)
    for lanes in (2, 3, 16):
        np.testing.assert_array_equal(compiled(name, element, lanes)(*operands), scalar)


@pytest.mark.parametrize("name", ["sin", "cos"])
@elements
@targets
def test_a_huge_angle_leaves_other_lanes_alone(compiled, name, element, target):
    dtype = DTYPES[element]
    run = compiled(name, element, 4, target)
    small = np.array([0.3, -2.0, 700.0, 5.0], dtype)
    mixed = small.copy()
    mixed[2] = 1e22
    expected = getattr(np, name)(mixed.astype(np.float64))
    np.testing.assert_allclose(run(mixed), expected, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(run(small)[[0, 1, 3]], expected[[0, 1, 3]], rtol=1e-6)


@targets
def test_angles_next_to_multiples_of_pi(compiled, target):
    # There x - h pi / 2 cancels; Kahan's hardest double below 1e6 pi, and float neighbours of pi.
    for element in (FLOAT, DOUBLE):
        dtype = DTYPES[element]
        multiples = (np.arange(1, 4000) * np.pi).astype(dtype)
        result = compiled("sin", element, LANES[element], target)(multiples)
        with mpmath.workprec(200):
            expected = np.array([float(mpmath.sin(x)) for x in multiples.tolist()])
        np.testing.assert_allclose(result, expected, rtol=2 * np.finfo(dtype).eps)


@targets
def test_single_precision_tanh_is_bounded_odd_and_tight(compiled, target):
    run = compiled("tanh", FLOAT, 8, target)
    first, last = (np.float32(x).view(np.int32) for x in (2.0**-10, 9.5))
    x = np.arange(first, last, 101, dtype=np.int32).view(np.float32)
    y = run(x)
    assert y.max() == 1.0
    np.testing.assert_array_equal(run(-x), -y)
    assert np.max(np.abs(y / np.tanh(x.astype(np.float64)) - 1)) < 3.0 * 2.0**-23


@elements
@targets
def test_subnormal_numbers_are_not_lost(compiled, element, target):
    dtype = DTYPES[element]
    info = np.finfo(dtype)
    x = info.tiny * np.array([1 / 3, 1 / 5, 2.0**-10, -1 / 7], dtype)
    for name in ("sin", "tanh", "expm1", "log1p", "erf"):
        slope = 2 / np.sqrt(np.pi) if name == "erf" else 1.0
        result = compiled(name, element, LANES[element], target)(x)
        np.testing.assert_allclose(result, slope * x, rtol=0, atol=3 * info.smallest_subnormal)
    logarithm = compiled("log2", element, LANES[element], target)(np.abs(x))
    np.testing.assert_allclose(logarithm, np.log2(np.abs(x)), rtol=2 * info.eps)
    for name, scale in (("exp", np.log(2)), ("exp2", 1.0)):
        exponents = (info.minexp - np.array([0.5, 3.25, 10.75, 15.5])) * scale
        result = compiled(name, element, LANES[element], target)(exponents.astype(dtype))
        expected = getattr(np, name)(exponents.astype(dtype).astype(np.longdouble)).astype(dtype)
        np.testing.assert_allclose(result, expected, rtol=0, atol=info.smallest_subnormal)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_code_for_another_processor(name):
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    vector = ir.VectorType(DOUBLE, 4)
    module = ir.Module()
    n_operands = 2 if name in BINARY else 1
    function = ir.Function(module, ir.FunctionType(vector, [vector] * n_operands), "f")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(emit_function(builder, name, *function.args))
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    machine = binding.Target.from_triple("aarch64-linux-gnu").create_target_machine(opt=2)
    assert "ret" in machine.emit_assembly(parsed)
