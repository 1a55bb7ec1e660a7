"""Fully implicit collocation methods: Gauss and Radau IIA.

A collocation method is its nodes: the polynomial of degree ``n`` through ``y`` whose slope agrees
with the field at all ``n`` nodes ends at ``y1``, gives ``a`` at the nodes, and is the dense output
(Hairer, Norsett & Wanner I, II.7).
"""

from fractions import Fraction

from odeum.tableaus.record import DenseOutput, RKTableau, Row, root, row


def collocation(
    name: str, order: int, c: Row, source: str, filter_gamma: Fraction | None = None
) -> RKTableau:
    """The collocation method with these nodes.

    Its error estimate, where there is one, compares it with the solution of order ``len(c)`` that
    weighs ``f(t, y)`` by ``filter_gamma`` (Hairer & Wanner II, IV.8).

    Its dense output weighs the stages by the integrals of their Lagrange polynomials and is of
    order ``len(c)``, lower than the method's own.

    Args:
        name: how ``method=`` names it.
        order: order of the solution at the end of a step.
        c: distinct nodes.
        source: where the method is published.
        filter_gamma: weight of ``f(t, y)`` in the embedded solution, and the ``gamma`` of the
            filter that takes the stiff components out of the estimate; None for fixed steps.

    Example:
        >>> midpoint = collocation("midpoint", 2, row("1/2"), "Hammer & Hollingsworth 1955")
        >>> midpoint.a, midpoint.b, midpoint.interpolant.order
        (((Fraction(1, 2),),), (Fraction(1, 1),), 1)
    """
    polynomials = tuple(_integral(_lagrange(c, j)) for j in range(len(c)))
    b = tuple(_value(p, Fraction(1)) for p in polynomials)
    b_error = None
    if filter_gamma is not None:
        # The embedded solution integrates 1, x, ... exactly, the value at 0 weighed as given.
        at_start = tuple(_lagrange(c, j)[0] for j in range(len(c)))
        b_error = ((-filter_gamma, *(filter_gamma * value for value in at_start)),)
    return RKTableau(
        name=name,
        order=order,
        embedded_order=None if b_error is None else len(c),
        a=tuple(tuple(_value(p, node) for p in polynomials) for node in c),
        b=b,
        b_error=b_error,
        c=c,
        dense=DenseOutput(order=len(c), weights=polynomials),
        source=source,
    )


def _lagrange(c: Row, j: int) -> Row:
    """Coefficients of 1, x, ... in the polynomial that is 1 at ``c_j`` and 0 at other nodes."""
    polynomial = row(1)
    for m, node in enumerate(c):
        if m != j:
            shifted, scaled = row(0) + polynomial, (*polynomial, Fraction(0))
            polynomial = tuple(
                (x - node * y) / (c[j] - node) for x, y in zip(shifted, scaled, strict=True)
            )
    return polynomial


def _integral(polynomial: Row) -> Row:
    """Coefficients of x, x^2, ... in the integral from 0."""
    return tuple(x / (power + 1) for power, x in enumerate(polynomial))


def _value(integral: Row, x: Fraction) -> Fraction:
    """The value at ``x`` of a polynomial without constant term."""
    return sum((p * x ** (power + 1) for power, p in enumerate(integral)), Fraction(0))


_HALF = Fraction(1, 2)
_GAUSS = "Butcher, Math. Comp. 18 (1964) 50-64; Hairer & Wanner II (1996), IV.5"
_RADAU = "Ehle, SIAM J. Math. Anal. 4 (1973) 671-680; Hairer & Wanner II (1996), IV.5"

IMPLICIT_MIDPOINT = collocation("implicit_midpoint", 2, row("1/2"), _GAUSS)
GAUSS4 = collocation("gauss4", 4, (_HALF - root(3) / 6, _HALF + root(3) / 6), _GAUSS)
GAUSS6 = collocation("gauss6", 6, (_HALF - root(15) / 10, _HALF, _HALF + root(15) / 10), _GAUSS)
RADAU3 = collocation("radau3", 3, row("1/3", 1), _RADAU)
_CUBE_ROOT_3 = Fraction("1.442249570307408382321638310780109588391869253")
RADAU5 = collocation(
    "radau5",
    5,
    ((4 - root(6)) / 10, (4 + root(6)) / 10, *row(1)),
    _RADAU,
    # The inverse of the real eigenvalue of the inverse of ``a``.
    filter_gamma=1 / (3 + _CUBE_ROOT_3**2 - _CUBE_ROOT_3),
)
