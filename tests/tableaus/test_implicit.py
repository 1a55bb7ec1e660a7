"""Stiff methods damp what they must, and collocation methods are what theory says of them."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from scipy.special import roots_legendre

from odeum.tableaus import IMPLICIT

UNDAMPED = {"trapezoid", "implicit_midpoint", "gauss4", "gauss6"}


def stability(tableau, z):
    """``R(z) = 1 + z b (I - z A)^-1 1``: one step of ``y' = z y`` by h = 1."""

    def to(x):
        return mpmath.mpf(x.numerator) / x.denominator

    n = tableau.n_stages
    a = mpmath.matrix([[to(x) for x in coefficients] for coefficients in tableau.matrix])
    k = mpmath.lu_solve(mpmath.eye(n) - z * a, mpmath.matrix([1] * n))
    return 1 + z * mpmath.fsum(to(tableau.b[i]) * k[i] for i in range(n))


@pytest.fixture(params=IMPLICIT.values(), ids=IMPLICIT.keys())
def tableau(request):
    return request.param


def test_no_oscillation_of_any_frequency_grows(tableau):
    a = np.array(tableau.matrix, dtype=float)
    b = np.array(tableau.b, dtype=float)
    ones = np.ones(len(b))
    for y in np.logspace(-3, 5, 400):
        amplification = 1 + 1j * y * b @ np.linalg.solve(np.eye(len(b)) - 1j * y * a, ones)
        assert abs(amplification) <= 1 + 1e-11
    # With no pole on the left (the nonzero eigenvalues of A lie to the right), bounded there too.
    assert (np.linalg.eigvals(a).real >= 0).all()


def test_stiff_components_vanish_in_one_step(tableau):
    with mpmath.workdps(200):  # the terms of R are of the size of z and cancel
        at_infinity = abs(stability(tableau, mpmath.mpf(-10) ** 41))
        wanted = 1 if tableau.name in UNDAMPED else 0
        assert abs(at_infinity - wanted) < mpmath.mpf(10) ** -30


def test_the_stability_function_is_the_exponential_to_the_order(tableau):
    with mpmath.workdps(60):
        steps = [mpmath.mpf("1e-4"), mpmath.mpf("1e-5")]
        errors = [abs(stability(tableau, h) - mpmath.exp(h)) for h in steps]
        assert abs(mpmath.log10(errors[0] / errors[1]) - (tableau.order + 1)) < 0.02


@pytest.mark.parametrize("name", ["implicit_midpoint", "gauss4", "gauss6"])
def test_gauss_methods_are_symplectic(name):
    """``b_i a_ij + b_j a_ji = b_i b_j`` (Hairer, Lubich & Wanner, VI.4)."""
    a, b = IMPLICIT[name].a, IMPLICIT[name].b
    for i in range(len(b)):
        for j in range(len(b)):
            assert abs(b[i] * a[i][j] + b[j] * a[j][i] - b[i] * b[j]) < Fraction(1, 10**40)


@pytest.mark.parametrize("name", ["implicit_midpoint", "gauss4", "gauss6"])
def test_gauss_nodes_are_the_roots_of_legendre_polynomials(name):
    roots, weights = roots_legendre(IMPLICIT[name].n_stages)
    np.testing.assert_allclose(np.array(IMPLICIT[name].c, float), (roots + 1) / 2, atol=1e-15)
    np.testing.assert_allclose(np.array(IMPLICIT[name].b, float), weights / 2, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("kvaerno3", "0.308809969973036 1.490563388254106 -1.235239879727145 0.4358665215"),
        (
            "kvaerno5",
            "0.13659751177640291 0 -0.05496908796538376 -0.04118626728321046 "
            "0.62993304899016403 0.06962479448202728 0.26",
        ),
    ],
)
def test_polished_weights_are_the_published_ones(name, published):
    """Kvaerno (2004): to all 17 digits for the 5/4 pair; the 3/2 pair's diagonal has only ten."""
    tolerance = 1e-8 if name == "kvaerno3" else 1e-16
    published = [float(x) for x in published.split()]
    np.testing.assert_allclose(np.array(IMPLICIT[name].b, float), published, rtol=0, atol=tolerance)
