"""Rosenbrock methods: order conditions, stability, and a step taken by the record alone."""

from dataclasses import replace
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from rooted_trees import gamma, order, trees, trees_up_to

from odeum.errors import InputError
from odeum.tableaus.rosenbrock import ROSENBROCK

TINY = 1e-30


@pytest.fixture(params=ROSENBROCK.values(), ids=ROSENBROCK.keys())
def tableau(request):
    return request.param


@pytest.fixture(autouse=True)
def sixty_digits():
    with mpmath.workdps(60):
        yield


def exact(x):
    return mpmath.mpf(x.numerator) / x.denominator


def matrix(rows, n_columns=None):
    n_columns = n_columns or len(rows)
    padded = [[*r, *[Fraction(0)] * (n_columns - len(r))] for r in rows]
    return mpmath.matrix([[exact(x) for x in r] for r in padded])


def vector(row):
    return mpmath.matrix([exact(x) for x in row])


def elementary_weights(tableau, n_nodes):
    """``phi(tree)`` per stage: an only child is reached through beta, several through alpha."""
    alpha, beta = matrix(tableau.alpha), matrix(tableau.alpha) + matrix(tableau.gamma_matrix)
    phi = {}
    for tree in trees_up_to(n_nodes):
        product = mpmath.ones(tableau.n_stages, 1)
        for subtree in tree:
            inner = (beta if len(tree) == 1 else alpha) * phi[subtree]
            product = mpmath.matrix([x * y for x, y in zip(product, inner, strict=True)])
        phi[tree] = product
    return phi


def weigh(tableau, transformed, phi):
    """``(transformed Gamma) . phi``."""
    return (vector(transformed).T * matrix(tableau.gamma_matrix) * phi)[0]


def residuals(tableau, transformed, n_nodes, *, only_last=False):
    phi = elementary_weights(tableau, n_nodes)
    chosen = trees(n_nodes) if only_last else trees_up_to(n_nodes)
    return [abs(weigh(tableau, transformed, phi[t]) - mpmath.mpf(1) / gamma(t)) for t in chosen]


def embedded(tableau):
    return tuple(m - e for m, e in zip(tableau.m, tableau.m_error, strict=True))


def test_the_untransformed_coefficients_are_the_transformed_ones_inverted(tableau):
    n = tableau.n_stages
    gamma_matrix = matrix(tableau.gamma_matrix)
    wanted = mpmath.eye(n) / exact(tableau.gamma) - matrix(tableau.c)
    assert mpmath.mnorm(gamma_matrix * wanted - mpmath.eye(n)) < TINY
    assert mpmath.mnorm(matrix(tableau.alpha) * wanted - matrix(tableau.a)) < TINY
    assert mpmath.mnorm(vector(tableau.b).T * wanted - vector(tableau.m).T) < TINY


def test_solution_has_exactly_its_order(tableau):
    assert max(residuals(tableau, tableau.m, tableau.order)) < TINY
    assert max(residuals(tableau, tableau.m, tableau.order + 1, only_last=True)) > 1e-6


def test_embedded_solution_has_exactly_its_order(tableau):
    weights, p = embedded(tableau), tableau.embedded_order
    assert max(residuals(tableau, weights, p)) < TINY
    assert max(residuals(tableau, weights, p + 1, only_last=True)) > 1e-6
    assert tableau.error_order == p + 1


def test_time_as_a_component_of_the_state_gives_the_same_nodes(tableau):
    """The autonomous form evaluates ``f`` at ``t + sum_j alpha_ij h`` and adds ``gamma_i f_t``."""
    for given, wanted in ((tableau.alpha, tableau.nodes), (tableau.gamma_matrix, tableau.d)):
        for coefficients, value in zip(given, wanted, strict=True):
            assert abs(sum(coefficients) - value) < TINY


@pytest.mark.parametrize("theta", ["0.1", "0.37", "0.5", "0.9", "1"])
def test_dense_output_has_its_order_at_every_point(tableau, theta):
    theta, dense = mpmath.mpf(theta), tableau.interpolant
    phi = elementary_weights(tableau, dense.order + 1)
    through = [
        sum(exact(x) * theta ** (power + 1) for power, x in enumerate(polynomial))
        for polynomial in dense.weights
    ]
    given = (mpmath.matrix(through).T * matrix(tableau.gamma_matrix)).T

    def residual(tree):
        return abs((given.T * phi[tree])[0] - theta ** order(tree) / gamma(tree))

    assert max(map(residual, trees_up_to(dense.order))) < TINY
    if theta != 1:
        assert max(map(residual, trees(dense.order + 1))) > 1e-7
    else:
        assert mpmath.norm(mpmath.matrix(through) - vector(tableau.end_weights)) < TINY


def stability(tableau, z, weights):
    """``R(z) = 1 + z b^T (I - z beta)^-1 1`` in float64."""
    n = tableau.n_stages
    beta = np.array(tableau.alpha, float) + np.array(tableau.gamma_matrix, float)
    b = np.array(weights, float) @ np.array(tableau.gamma_matrix, float)
    return 1 + z * b @ np.linalg.solve(np.eye(n) - z * beta, np.ones(n))


def test_l_stable(tableau):
    """``R`` is analytic in the left half plane, so its edge bounds it (maximum principle)."""
    for y in np.concatenate([np.linspace(0, 60, 1201), np.geomspace(60, 1e6, 200)]):
        assert abs(stability(tableau, 1j * y, tableau.m)) <= 1 + 1e-12
    beta = matrix(tableau.alpha) + matrix(tableau.gamma_matrix)
    ones = mpmath.ones(tableau.n_stages, 1)
    for weights in (tableau.m, embedded(tableau)):
        at_infinity = 1 - weigh(tableau, weights, mpmath.lu_solve(beta, ones))
        assert abs(at_infinity) < TINY


def test_stiffly_accurate(tableau):
    """``y1`` is the last stage's argument and its correction: ``b_j = beta_sj``."""
    last = [a + g for a, g in zip(tableau.alpha[-1], tableau.gamma_matrix[-1], strict=True)]
    assert max(abs(b - x) for b, x in zip(tableau.b, last, strict=True)) < TINY


def field(t, y):
    """Nonlinear, coupled, non-autonomous; from (1, 1) it is solved by ``solution``."""
    p, q = y
    growth, decay = mpmath.exp(mpmath.sin(t)), 1 + t * t
    return mpmath.matrix(
        [p * mpmath.cos(t) + (q * decay - 1) * p, -2 * t * q * q + (p - growth) * q]
    )


def solution(t):
    return mpmath.matrix([mpmath.exp(mpmath.sin(t)), 1 / (1 + t * t)])


def jacobian(t, y):
    p, q = y
    decay = 1 + t * t
    return mpmath.matrix(
        [
            [mpmath.cos(t) + q * decay - 1, p * decay],
            [q, -4 * t * q + p - mpmath.exp(mpmath.sin(t))],
        ]
    )


def time_derivative(t, y):
    p, q = y
    growth = mpmath.exp(mpmath.sin(t)) * mpmath.cos(t)
    return mpmath.matrix([-p * mpmath.sin(t) + 2 * t * q * p, -2 * q * q - growth * q])


def step(tableau, t, y, h):
    """The stages of one step, as the record's docstring states it."""
    g = exact(tableau.gamma)
    left = mpmath.eye(2) - h * g * jacobian(t, y)
    f_t, ks = time_derivative(t, y), []

    def weighed(weights):
        pairs = zip(weights, ks, strict=True)
        return sum((exact(w) * k for w, k in pairs), mpmath.zeros(2, 1))

    for a, c, node, d in zip(tableau.a, tableau.c, tableau.nodes, tableau.d, strict=True):
        f = field(t + exact(node) * h, y + h * weighed(a))
        ks.append(mpmath.lu_solve(left, g * (f + weighed(c) + h * exact(d) * f_t)))
    return ks


def advance(ks, weights, h):
    return h * sum((w * k for w, k in zip(weights, ks, strict=True)), mpmath.zeros(2, 1))


def global_error(tableau, n_steps):
    h, y = mpmath.mpf(1) / n_steps, solution(0)
    for i in range(n_steps):
        y += advance(step(tableau, i * h, y, h), [exact(m) for m in tableau.m], h)
    return mpmath.norm(y - solution(1))


def test_converges_with_its_order(tableau):
    with mpmath.workdps(30):
        slope = mpmath.log(global_error(tableau, 32) / global_error(tableau, 64), 2)
    assert abs(slope - tableau.order) < 0.2


@pytest.mark.parametrize("part", ["error estimate", "dense output"])
def test_error_and_dense_output_shrink_with_their_orders_over_one_step(tableau, part):
    t, dense, defects = mpmath.mpf("0.3"), tableau.dense, []
    for h in (mpmath.mpf(1) / 64, mpmath.mpf(1) / 128):
        ks = step(tableau, t, solution(t), h)
        if part == "error estimate":
            defect = advance(ks, [exact(m) for m in tableau.m_error], h)
        else:
            theta = mpmath.mpf("0.4")
            weights = [mpmath.polyval([*map(exact, reversed(p)), 0], theta) for p in dense.weights]
            defect = solution(t) + advance(ks, weights, h) - solution(t + theta * h)
        defects.append(mpmath.norm(defect))
    wanted = tableau.error_order if part == "error estimate" else dense.order + 1
    assert abs(mpmath.log(defects[0] / defects[1], 2) - wanted) < 0.2


def test_an_inconsistent_record_cannot_be_made(tableau):
    zeros = (Fraction(0),) * tableau.n_stages
    changes = {
        "gamma must be positive": {"gamma": Fraction(0)},
        "a must be strictly triangular": {"a": tableau.a[1:]},
        "c must be strictly triangular": {"c": tableau.c[1:]},
        "nodes must have an entry": {"nodes": zeros[1:]},
        "row 1 of alpha, nodes": {"nodes": zeros},
        "row 0 of Gamma, d": {"d": zeros},
        "sum of b": {"m": zeros},
        "sum of the error weights": {"m_error": tableau.m},
        "weigh the stages": {"dense": replace(tableau.dense, weights=tableau.dense.weights[1:])},
        "dense output's end": {
            "dense": replace(tableau.dense, weights=(zeros, *tableau.dense.weights[1:]))
        },
    }
    for message, change in changes.items():
        with pytest.raises(InputError, match=message):
            replace(tableau, **change)
