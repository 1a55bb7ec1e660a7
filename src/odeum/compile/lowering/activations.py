"""Activations, and their derivatives where a field differentiates inside.

Branches that are not taken are kept from overflowing: what multiplies them in a derivative is
zero, and zero times infinity is not.
"""

import math

from odeum.compile.build import Builder, Operand
from odeum.compile.ir import Node
from odeum.compile.lowering.table import lowers

SQRT_HALF = math.sqrt(0.5)
SIXTH = 0.1666666716337204
"""In single precision: so torch has it in the derivative of hardsigmoid, whatever the dtype."""


@lowers("relu")
def relu(b: Builder, x: Node) -> Node:
    """Positive part."""
    return b.where(b("le", x, 0), 0, x)


@lowers("threshold")
def _threshold(b: Builder, x: Node, threshold: float, value: float) -> Node:
    return b.where(b("le", x, threshold), value, x)


@lowers("threshold_backward")
def _threshold_backward(b: Builder, g: Node, x: Node, threshold: float) -> Node:
    return b.where(b("le", x, threshold), 0, g)


@lowers("leaky_relu")
def _leaky_relu(b: Builder, x: Node, slope: float = 0.01) -> Node:
    return b.where(b("gt", x, 0), x, b.mul(x, slope))


@lowers("leaky_relu_backward")
def _leaky_relu_backward(b: Builder, g: Node, x: Node, slope: float, is_result: bool) -> Node:
    return b.where(b("gt", x, 0), g, b.mul(g, slope))


@lowers("prelu", "_prelu_kernel")
def _prelu(b: Builder, x: Node, weight: Node) -> Node:
    return b.where(b("gt", x, 0), x, b.mul(weight, x))


@lowers("_prelu_kernel_backward")
def _prelu_backward(b: Builder, g: Node, x: Node, weight: Node) -> tuple[Node, Node]:
    positive = b("gt", x, 0)
    return b.where(positive, g, b.mul(weight, g)), b.where(positive, 0, b.mul(x, g))


def _below(b: Builder, x: Node, bound: float) -> Node:
    """What is above a bound counts as the bound."""
    return b.where(b("gt", x, bound), bound, x)


@lowers("elu")
def _elu(b: Builder, x: Node, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Node:
    low = _below(b, x, 0)
    bent = b("expm1", low if input_scale == 1 else b.mul(low, input_scale))
    negative = bent if alpha * scale == 1 else b.mul(bent, alpha * scale)
    return b.where(b("gt", x, 0), x if scale == 1 else b.mul(x, scale), negative)


@lowers("elu_backward")
def _elu_backward(
    b: Builder, g: Node, alpha: float, scale: float, input_scale: float, is_result: bool, x: Node
) -> Node:
    if is_result:
        slope = b.mul(input_scale, b.add(x, alpha * scale))
    else:
        slope = b.mul(input_scale * alpha * scale, b("exp", b.mul(_below(b, x, 0), input_scale)))
    return b.where(b("gt", x, 0), b.mul(g, scale), b.mul(g, slope))


@lowers("celu")
def _celu(b: Builder, x: Node, alpha: float = 1) -> Node:
    return _elu(b, x, alpha, 1, 1 / alpha)


@lowers("selu")
def _selu(b: Builder, x: Node) -> Node:
    return _elu(b, x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


@lowers("silu")
def _silu(b: Builder, x: Node) -> Node:
    return b.mul(x, b("sigmoid", x))


@lowers("silu_backward")
def _silu_backward(b: Builder, g: Node, x: Node) -> Node:
    s = b("sigmoid", x)
    return b.mul(g, b.mul(s, b.add(1, b.mul(x, b.sub(1, s)))))


@lowers("gelu")
def _gelu(b: Builder, x: Node, *, approximate: str = "none") -> Node:
    return b.mul(b.mul(0.5, x), b.add(1, _gelu_inner(b, x, approximate)))


def _gelu_inner(b: Builder, x: Node, approximate: str) -> Node:
    if approximate == "none":
        return b("erf", b.mul(x, SQRT_HALF))
    cubed = b.mul(b.mul(x, x), x)
    return b("tanh", b.mul(math.sqrt(2 / math.pi), b.add(x, b.mul(0.044715, cubed))))


@lowers("gelu_backward")
def _gelu_backward(b: Builder, g: Node, x: Node, *, approximate: str = "none") -> Node:
    inner, square = _gelu_inner(b, x, approximate), b.mul(x, x)
    if approximate == "none":
        density = b.mul(b("exp", b.mul(-0.5, square)), 1 / math.sqrt(2 * math.pi))
        slope = b.mul(x, density)
    else:
        rate = b.mul(math.sqrt(2 / math.pi), b.add(1, b.mul(3 * 0.044715, square)))
        slope = b.mul(b.mul(0.5, x), b.mul(b.sub(1, b.mul(inner, inner)), rate))
    return b.mul(g, b.add(b.mul(0.5, b.add(1, inner)), slope))


@lowers("softplus")
def softplus(b: Builder, x: Node, beta: float = 1, threshold: float = 20) -> Node:
    """``log(1 + exp(beta x)) / beta``, the identity above a threshold."""
    scaled = x if beta == 1 else b.mul(x, beta)
    value = b("log1p", b("exp", _below(b, scaled, threshold)))
    return b.where(b("gt", scaled, threshold), x, value if beta == 1 else b.div(value, beta))


@lowers("softplus_backward")
def _softplus_backward(b: Builder, g: Node, x: Node, beta: float, threshold: float) -> Node:
    scaled = x if beta == 1 else b.mul(x, beta)
    return b.where(b("gt", scaled, threshold), g, b.mul(g, b("sigmoid", scaled)))


@lowers("mish")
def _mish(b: Builder, x: Node) -> Node:
    return b.mul(x, b("tanh", softplus(b, x)))


@lowers("mish_backward")
def _mish_backward(b: Builder, g: Node, x: Node) -> Node:
    t, s = b("tanh", softplus(b, x)), b("sigmoid", x)
    return b.mul(g, b.add(t, b.mul(b.mul(x, s), b.sub(1, b.mul(t, t)))))


@lowers("log_sigmoid_forward")
def _log_sigmoid(b: Builder, x: Node) -> tuple[Node, None]:
    negative = b("lt", x, 0)
    size = b.where(negative, x, b.neg(x))
    return b.sub(b.where(negative, x, 0), b("log1p", b("exp", size))), None


@lowers("log_sigmoid_backward")
def _log_sigmoid_backward(b: Builder, g: Node, x: Node, buffer: object) -> Node:
    return b.mul(g, b("sigmoid", b.neg(x)))


@lowers("hardtanh")
def _hardtanh(b: Builder, x: Node, low: float = -1, high: float = 1) -> Node:
    # Unlike that of a clamp, its derivative is 0 on the bounds.
    return b.where(b("le", x, low), low, b.where(b("ge", x, high), high, x))


@lowers("hardtanh_backward")
def _hardtanh_backward(b: Builder, g: Node, x: Node, low: float, high: float) -> Node:
    return b.where(b("or", b("le", x, low), b("ge", x, high)), 0, g)


@lowers("hardsigmoid")
def _hardsigmoid(b: Builder, x: Node) -> Node:
    return _hardtanh(b, b.div(b.add(x, 3), 6), 0, 1)


@lowers("hardsigmoid_backward")
def _hardsigmoid_backward(b: Builder, g: Node, x: Node) -> Node:
    inside = b("and", b("gt", x, -3), b("lt", x, 3))
    return b.where(inside, b.mul(g, SIXTH), 0)


@lowers("hardswish")
def _hardswish(b: Builder, x: Node) -> Node:
    ramp = b.div(b.mul(x, b.add(x, 3)), 6)
    return b.where(b("le", x, -3), 0, b.where(b("ge", x, 3), x, ramp))


@lowers("hardswish_backward")
def _hardswish_backward(b: Builder, g: Node, x: Node) -> Node:
    ramp = b.mul(g, b.add(b.div(x, 3), 0.5))
    return b.where(b("le", x, -3), 0, b.where(b("ge", x, 3), g, ramp))


@lowers("softshrink")
def _softshrink(b: Builder, x: Node, bound: float = 0.5) -> Node:
    above, below = b("gt", x, bound), b("lt", x, -bound)
    small = b.mul(x, 0)  # keeps NaN
    return b.where(above, b.sub(x, bound), b.where(below, b.add(x, bound), small))


@lowers("hardshrink")
def _hardshrink(b: Builder, x: Node, bound: float = 0.5) -> Node:
    small = b("le", b("abs", x), bound)
    return b.where(small, 0, x)


@lowers("softshrink_backward", "hardshrink_backward")
def _shrink_backward(b: Builder, g: Node, x: Node, bound: float) -> Node:
    return b.where(b("le", b("abs", x), bound), 0, g)


@lowers("tanh_backward")
def _tanh_backward(b: Builder, g: Node, y: Node) -> Node:
    return b.mul(g, b.sub(1, b.mul(y, y)))


@lowers("sigmoid_backward")
def _sigmoid_backward(b: Builder, g: Node, y: Node) -> Node:
    return b.mul(g, b.mul(y, b.sub(1, y)))


@lowers("glu")
def _glu(b: Builder, x: Node, dim: int = -1) -> Node:
    dim %= len(x.shape)
    half = x.shape[dim] // 2
    a, gate = b.slice(x, dim, 0, half), b.slice(x, dim, half, 2 * half)
    return b.mul(a, b("sigmoid", gate))


@lowers("glu_backward")
def _glu_backward(b: Builder, g: Node, x: Node, dim: int) -> Node:
    dim %= len(x.shape)
    half = x.shape[dim] // 2
    a, gate = b.slice(x, dim, 0, half), b("sigmoid", b.slice(x, dim, half, 2 * half))
    return b.cat((b.mul(g, gate), b.mul(b.mul(g, a), b.mul(gate, b.sub(1, gate)))), dim)


@lowers("logit")
def _logit(b: Builder, x: Operand, eps: float | None = None) -> Node:
    if eps is not None:
        x = b.where(b("lt", x, eps), eps, b.where(b("gt", x, 1 - eps), 1 - eps, x))
    return b("log", b.div(x, b.sub(1, x)))
