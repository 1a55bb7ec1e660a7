"""Arithmetic on LLVM values, written as arithmetic: ``a * x + b`` appends instructions.

A value is a scalar or a vector of lanes, of floating-point numbers, integers or booleans. Nothing
here knows graphs, solvers or which function is being emitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

FLOAT = ir.FloatType()
DOUBLE = ir.DoubleType()
BOOLEAN = ir.IntType(1)


@dataclass(frozen=True, eq=False)
class Value:
    """A scalar or a vector of lanes in the function that a builder is writing.

    ``+ - *`` and unary ``-`` take floating-point numbers and integers, ``/`` floating-point ones.
    ``< <= > >= == !=`` give booleans; a NaN compares false, but true under ``!=``. ``& | ^ ~`` work
    on booleans and on the bits of integers; ``<<`` shifts integers, ``>>`` shifts in zeros from the
    left. Integers are signed elsewhere and wrap around. A Python number beside a value stands for a
    constant of its type, in every lane.

    Attributes:
        builder: where instructions are appended.
        value: what LLVM knows it as.

    Example:
        >>> function = ir.Function(ir.Module(), ir.FunctionType(DOUBLE, [DOUBLE]), "f")
        >>> builder = ir.IRBuilder(function.append_basic_block())
        >>> x = Value(builder, function.args[0])
        >>> builder.ret((2.0 * x + 1.0).value).opname
        'ret'
    """

    builder: ir.IRBuilder
    value: ir.Value

    @property
    def type(self) -> ir.Type:
        """The LLVM type."""
        return self.value.type

    @property
    def element(self) -> ir.Type:
        """The LLVM type of one lane."""
        return element_of(self.type)

    @property
    def lanes(self) -> int | None:
        """Number of lanes of a vector, None for a scalar."""
        return lanes_of(self.type)

    def constant(self, number: float) -> "Value":
        """A Python number in this value's type, rounded to it, in every lane."""
        return Value(self.builder, constant(self.type, number))

    def __add__(self, other: "Value | float") -> "Value":
        return self._arithmetic("add", other)

    def __sub__(self, other: "Value | float") -> "Value":
        return self._arithmetic("sub", other)

    def __mul__(self, other: "Value | float") -> "Value":
        return self._arithmetic("mul", other)

    def __floordiv__(self, other: "Value") -> "Value":
        """Of whole numbers that are not negative."""
        return self._of(self.builder.udiv(self.value, self._same(other)))

    def __mod__(self, other: "Value") -> "Value":
        """Likewise."""
        return self._of(self.builder.urem(self.value, self._same(other)))

    def __truediv__(self, other: "Value | float") -> "Value":
        return self._of(self.builder.fdiv(self.value, self._same(other)))

    def __radd__(self, other: float) -> "Value":
        return self.constant(other) + self

    def __rsub__(self, other: float) -> "Value":
        return self.constant(other) - self

    def __rmul__(self, other: float) -> "Value":
        return self.constant(other) * self

    def __rtruediv__(self, other: float) -> "Value":
        return self.constant(other) / self

    def __neg__(self) -> "Value":
        negate = self.builder.fneg if self._is_floating else self.builder.neg
        return self._of(negate(self.value))

    def __abs__(self) -> "Value":
        if self._is_floating:
            return self.intrinsic("fabs")
        return where(self < 0, -self, self)

    def __lt__(self, other: "Value | float") -> "Value":
        return self._compared("<", other)

    def __le__(self, other: "Value | float") -> "Value":
        return self._compared("<=", other)

    def __gt__(self, other: "Value | float") -> "Value":
        return self._compared(">", other)

    def __ge__(self, other: "Value | float") -> "Value":
        return self._compared(">=", other)

    def __eq__(self, other: Any) -> Any:
        return self._compared("==", other)

    def __ne__(self, other: Any) -> Any:
        return self._compared("!=", other)

    def __and__(self, other: "Value | int") -> "Value":
        return self._of(self.builder.and_(self.value, self._same(other)))

    def __or__(self, other: "Value | int") -> "Value":
        return self._of(self.builder.or_(self.value, self._same(other)))

    def __xor__(self, other: "Value | int") -> "Value":
        return self._of(self.builder.xor(self.value, self._same(other)))

    def __invert__(self) -> "Value":
        return self ^ (1 if self.element == BOOLEAN else -1)

    def __lshift__(self, other: "Value | int") -> "Value":
        return self._of(self.builder.shl(self.value, self._same(other)))

    def __rshift__(self, other: "Value | int") -> "Value":
        return self._of(self.builder.lshr(self.value, self._same(other)))

    def intrinsic(self, name: str, *others: "Value | float") -> "Value":
        """What an LLVM intrinsic such as "sqrt" makes of this and others of the same type."""
        operands = [self.value, *(self._same(other) for other in others)]
        return self._of(call_intrinsic(self.builder, name, *operands))

    def bitcast(self, element: ir.Type) -> "Value":
        """The same bits in each lane, read as another type of the same width."""
        return self._of(self.builder.bitcast(self.value, self._lanes_like(element)))

    def to_float(self, element: ir.Type) -> "Value":
        """Each lane as the nearest floating-point number of a type; true is 1."""
        target = self._lanes_like(element)
        if self.type == target:
            return self
        if not self._is_floating:
            unsigned = self.element == BOOLEAN
            convert = self.builder.uitofp if unsigned else self.builder.sitofp
        else:
            convert = self.builder.fpext if element == DOUBLE else self.builder.fptrunc
        return self._of(convert(self.value, target))

    def to_int(self, element: ir.Type) -> "Value":
        """Each lane as an integer of a type; fractions are cut off, true is 1.

        NaN and numbers beyond the integers' range give anything.
        """
        target = self._lanes_like(element)
        if self.type == target:
            return self
        if self._is_floating:
            return self._of(self.builder.fptosi(self.value, target))
        if self.element == BOOLEAN:
            return self._of(self.builder.zext(self.value, target))
        wider = element.width > self.element.width
        return self._of((self.builder.sext if wider else self.builder.trunc)(self.value, target))

    def copysign(self, other: "Value | float") -> "Value":
        """The magnitude of this with the sign of another."""
        return self.intrinsic("copysign", other)

    def any(self) -> "Value":
        """Whether a lane of booleans is true."""
        if self.lanes is None:
            return self
        return self._of(call_intrinsic(self.builder, "vector.reduce.or", self.value))

    def lane(self, index: "Value | int") -> "Value":
        """One lane of a vector, as a scalar."""
        return self._of(self.builder.extract_element(self.value, self._index(index)))

    def with_lane(self, index: "Value | int", scalar: "Value") -> "Value":
        """The vector with one lane replaced."""
        index_value = self._index(index)
        return self._of(self.builder.insert_element(self.value, scalar.value, index_value))

    @property
    def _is_floating(self) -> bool:
        return isinstance(self.element, ir.FloatType | ir.DoubleType)

    def _of(self, value: ir.Value) -> "Value":
        return Value(self.builder, value)

    def _same(self, other: "Value | float") -> ir.Value:
        return other.value if isinstance(other, Value) else constant(self.type, other)

    def _lanes_like(self, element: ir.Type) -> ir.Type:
        return element if self.lanes is None else ir.VectorType(element, self.lanes)

    def _index(self, index: "Value | int") -> ir.Value:
        return index.value if isinstance(index, Value) else ir.Constant(ir.IntType(32), index)

    def _arithmetic(self, name: str, other: "Value | float") -> "Value":
        method = getattr(self.builder, f"f{name}" if self._is_floating else name)
        return self._of(method(self.value, self._same(other)))

    def _compared(self, how: str, other: "Value | float") -> "Value":
        if not self._is_floating:
            compare = self.builder.icmp_signed
        else:  # a NaN differs from everything
            compare = self.builder.fcmp_unordered if how == "!=" else self.builder.fcmp_ordered
        return self._of(compare(how, self.value, self._same(other)))


def where(condition: Value, a: "Value | float", b: "Value | float") -> Value:
    """``a`` in the lanes where a condition is true, ``b`` elsewhere; one of them is a Value."""
    like = a if isinstance(a, Value) else b
    assert isinstance(like, Value)
    builder = condition.builder
    return Value(builder, builder.select(condition.value, like._same(a), like._same(b)))


def fma(a: Value, b: Value | float, c: Value | float) -> Value:
    """``a * b + c``, rounded once where the machine can, and twice elsewhere."""
    return a.intrinsic("fmuladd", b, c)


def polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """A polynomial with the constant term first.

    By Horner's rule, long ones by parts, even and odd, that the machine can work on side by side.
    """
    if len(coefficients) >= 8:
        even, odd = (polynomial(x * x, coefficients[start::2]) for start in (0, 1))
        return fma(odd, x, even)
    result = x.constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = fma(result, x, coefficient)
    return result


def splat(scalar: Value, lanes: int) -> Value:
    """A vector with the same number in every lane."""
    builder, vector = scalar.builder, ir.VectorType(scalar.element, lanes)
    first = builder.insert_element(
        ir.Constant(vector, ir.Undefined), scalar.value, ir.Constant(ir.IntType(32), 0)
    )
    mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    undefined = ir.Constant(vector, ir.Undefined)
    return Value(builder, builder.shuffle_vector(first, undefined, mask))


def constant(type: ir.Type, number: float) -> ir.Constant:
    """A number rounded to a type; the same in every lane of a vector.

    Example:
        >>> constant(ir.VectorType(FLOAT, 8), 0.1).get_reference()
        'splat (float 0x3fb99999a0000000)'
    """
    element = element_of(type)
    floating = isinstance(element, ir.FloatType | ir.DoubleType)
    scalar = ir.Constant(element, float(number) if floating else int(number))
    if lanes_of(type) is None:
        return scalar
    text = f"splat ({element} {scalar.get_reference()})"  # many lanes written out parse slowly
    vector = ir.FormattedConstant(type, text)
    vector.constant = text  # llvmlite had repeated it in each lane
    return vector


def element_of(type: ir.Type) -> ir.Type:
    """The type of one lane of a vector; a scalar's own type."""
    return type.element if isinstance(type, ir.VectorType) else type


def lanes_of(type: ir.Type) -> int | None:
    """Number of lanes of a vector type, None for a scalar's."""
    return type.count if isinstance(type, ir.VectorType) else None


def call_intrinsic(builder: ir.IRBuilder, name: str, *operands: ir.Value) -> ir.Value:
    """Call the intrinsic ``llvm.NAME`` in its version for the first operand's type.

    It returns that type; a reduction of a vector returns one lane.
    """
    type = operands[0].type
    element, lanes = element_of(type), lanes_of(type)
    scalar = {FLOAT: "f32", DOUBLE: "f64"}.get(element) or f"i{element.width}"
    suffix = scalar if lanes is None else f"v{lanes}{scalar}"
    result = element if name.startswith("vector.reduce.") else type
    full_name = f"llvm.{name}.{suffix}"
    function = builder.module.globals.get(full_name)
    if function is None:
        signature = ir.FunctionType(result, [operand.type for operand in operands])
        function = ir.Function(builder.module, signature, full_name)
    return builder.call(function, operands)
