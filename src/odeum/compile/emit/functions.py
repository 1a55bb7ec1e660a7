"""The elementary functions, emitted where they are used, for scalars and vectors of any length.

Owns which names there are and the functions that are one instruction. Results follow torch for NaN,
infinities, signed zeros and overflow.
"""

from collections.abc import Callable, Mapping
from functools import partial

from llvmlite import ir

from odeum.compile.emit.functions_exponential import erf, exp, exp2, expm1, sigmoid, tanh
from odeum.compile.emit.functions_logarithm import log, log1p, log2, power
from odeum.compile.emit.functions_parts import by_lane
from odeum.compile.emit.functions_trigonometric import cos, sin
from odeum.compile.emit.values import Value, where


def emit_function(builder: ir.IRBuilder, name: str, *operands: ir.Value) -> ir.Value:
    """Append the instructions that compute a function of each lane.

    Args:
        builder: where they go. It may stand in another block afterwards: ``sin`` and ``cos`` branch
            for huge arguments, and some functions loop over lanes.
        name: one of ``FUNCTIONS``.
        *operands: one, or two of the same type for "pow", "atan2", "minimum" and "maximum": float,
            double or a vector of them.

    Returns:
        The result, of the operands' type. To about 2 units in the last place, 3 for "pow" and a
        float's "tanh".

    Example:
        >>> from odeum.compile.emit.values import DOUBLE
        >>> vector = ir.VectorType(DOUBLE, 4)
        >>> function = ir.Function(ir.Module(), ir.FunctionType(vector, [vector]), "f")
        >>> builder = ir.IRBuilder(function.append_basic_block())
        >>> builder.ret(emit_function(builder, "tanh", *function.args)).opname
        'ret'
    """
    return _EMITTERS[name](*(Value(builder, operand) for operand in operands)).value


def minimum(a: Value, b: Value) -> Value:
    """The smaller of two, NaN where one of them is."""
    return where(a != a, a, where(a < b, a, b))


def maximum(a: Value, b: Value) -> Value:
    """The larger of two, NaN where one of them is."""
    return where(a != a, a, where(a > b, a, b))


def _intrinsic(name: str, x: Value) -> Value:
    return x.intrinsic(name)


_OF_LIBM = ("tan", "asin", "acos", "atan", "atan2", "sinh", "cosh")

_EMITTERS: Mapping[str, Callable[..., Value]] = {
    "exp": exp,
    "exp2": exp2,
    "expm1": expm1,
    "log": log,
    "log2": log2,
    "log1p": log1p,
    "pow": power,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "erf": erf,
    "sin": sin,
    "cos": cos,
    "abs": abs,
    "minimum": minimum,
    "maximum": maximum,
    "round": partial(_intrinsic, "rint"),  # half to even
    **{name: partial(_intrinsic, name) for name in ("sqrt", "floor", "ceil", "trunc")},
    **{
        name: partial(by_lane, name)
        for name in ["tan", "asin", "acos", "atan", "atan2", "sinh", "cosh"]
    },
}

FUNCTIONS = frozenset(_EMITTERS)
"""The names that ``emit_function`` takes."""
