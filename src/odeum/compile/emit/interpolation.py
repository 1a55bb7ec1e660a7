"""Dense output: the polynomials in the fraction of a step that weigh its derivatives."""

from collections.abc import Sequence

from odeum.compile.emit.kernel import Spec
from odeum.compile.emit.values import DOUBLE, Value, fma, where


def weights(spec: Spec, theta: Value) -> list[Value | None]:
    """``b_j(theta)`` per derivative, in the precision of states; None where it is always zero.

    At exactly 1 they are the method's own weights, so that the end of a step is ``y1``.

    Args:
        spec: what is compiled.
        theta: fractions of steps; the terms of a high-order interpolant cancel, so it is taken
            in double precision.
    """
    tableau, real = spec.tableau, spec.layout.real
    theta = theta.to_float(DOUBLE)
    at_end = theta == 1.0
    found: list[Value | None] = []
    for polynomial, end in zip(tableau.interpolant.weights, tableau.end_weights, strict=True):
        coefficients = [float(c) for c in polynomial]
        if not any(coefficients) and not end:
            found.append(None)
            continue
        inside = (horner(coefficients, theta) * theta).to_float(real)
        found.append(where(at_end, inside.constant(float(end)), inside))
    return found


def slopes(spec: Spec, theta: Value) -> list[Value | None]:
    """``db_j/dtheta`` per derivative; zero at exactly 1, where the step's end is fixed."""
    real = spec.layout.real
    theta = theta.to_float(DOUBLE)
    at_end = theta == 1.0
    found: list[Value | None] = []
    for polynomial in spec.tableau.interpolant.weights:
        coefficients = [float(c) * (power + 1) for power, c in enumerate(polynomial)]
        if not any(coefficients):
            found.append(None)
            continue
        slope = horner(coefficients, theta).to_float(real)
        found.append(where(at_end, slope.constant(0.0), slope))
    return found


def horner(coefficients: Sequence[float], x: Value) -> Value:
    """A polynomial with the constant term first."""
    while len(coefficients) > 1 and not coefficients[-1]:
        coefficients = coefficients[:-1]
    total = x.constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = fma(total, x, x.constant(coefficient))
    return total
