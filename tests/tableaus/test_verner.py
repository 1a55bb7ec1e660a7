"""Verner's pairs: order conditions of solution, estimate and dense output, and steps taken."""

import mpmath
import pytest
from rooted_trees import Weights, gamma, order, trees, trees_up_to

from odeum.tableaus.verner import VERN7, VERN9

TINY = 1e-30


@pytest.fixture(params=[VERN7, VERN9], ids=lambda t: t.name, scope="module")
def tableau(request):
    return request.param


@pytest.fixture(scope="module", autouse=True)
def fifty_digits():
    with mpmath.workdps(50):
        yield


def exact(row):
    return [mpmath.mpf(x.numerator) / x.denominator for x in row]


@pytest.fixture(scope="module")
def weights(tableau):
    """Elementary weights of the stages, then of ``f(t1, y1)`` and the dense output's stages."""
    rows = [*tableau.a, tableau.b, *tableau.dense.extra_a]
    return Weights([exact(row) + [mpmath.mpf(0)] * (len(rows) - len(row)) for row in rows])


def padded(weights, row):
    return exact(row) + [mpmath.mpf(0)] * (weights.n_stages - len(row))


def test_solution_has_exactly_its_order(tableau, weights):
    b = padded(weights, tableau.b)

    def residual(tree):
        return abs(weights.sum(b, tree) - mpmath.mpf(1) / gamma(tree))

    assert max(map(residual, trees_up_to(tableau.order))) < TINY
    assert max(map(residual, trees(tableau.order + 1))) > 1e-6


def test_error_estimate_has_exactly_its_order(tableau, weights):
    (b_error,) = (padded(weights, row) for row in tableau.b_error)
    assert max(abs(weights.sum(b_error, t)) for t in trees_up_to(tableau.embedded_order)) < TINY
    assert max(abs(weights.sum(b_error, t)) for t in trees(tableau.embedded_order + 1)) > 1e-6


def test_dense_output_has_its_order_at_every_point(tableau, weights):
    """``sum_j b_j(theta) phi_j(tree) = theta^|tree| / gamma(tree)``, power by power."""
    dense = tableau.dense
    columns = list(zip(*map(exact, dense.weights), strict=True))

    def residual(tree):
        wanted = {order(tree): mpmath.mpf(1) / gamma(tree)}
        return max(
            abs(weights.sum(column, tree) - wanted.get(power, 0))
            for power, column in enumerate(columns, start=1)
        )

    assert dense.order == tableau.order
    assert max(map(residual, trees_up_to(dense.order))) < TINY
    assert max(map(residual, trees(dense.order + 1))) > 1e-6


def test_dense_output_is_continuously_differentiable(tableau):
    for j, polynomial in enumerate(tableau.dense.weights):
        at_end = sum((power + 1) * x for power, x in enumerate(polynomial))
        assert abs(polynomial[0] - (j == 0)) < TINY
        assert abs(at_end - (j == tableau.n_stages)) < TINY


def test_dense_output_needs_its_extra_stages_only(tableau):
    """The end of a step is no stage: the derivative there is the next step's first."""
    assert not tableau.first_same_as_last
    assert tableau.n_derivatives == tableau.n_stages + 1
    assert len(tableau.dense.extra_c) == {"vern7": 5, "vern9": 9}[tableau.name]


def solution(t):
    return 1 / (2 - mpmath.sin(t))


def derivatives(tableau, t, y, h):
    """Every derivative of one step of ``y' = y^2 cos t``, solved by ``1 / (2 - sin t)``."""
    ks = []
    nodes = [*exact(tableau.c), 1, *exact(tableau.dense.extra_c)]
    for row, node in zip([*tableau.a, tableau.b, *tableau.dense.extra_a], nodes, strict=True):
        stage = y + h * mpmath.fdot(exact(row), ks[: len(row)])
        ks.append(stage**2 * mpmath.cos(t + h * node))
    return ks


def global_error(tableau, n_steps):
    h, y, b = mpmath.mpf(1) / n_steps, solution(mpmath.mpf(0)), exact(tableau.b)
    for i in range(n_steps):
        y += h * mpmath.fdot(b, derivatives(tableau, i * h, y, h)[: len(b)])
    return abs(y - solution(mpmath.mpf(1)))


def test_converges_with_its_order(tableau):
    slope = mpmath.log(global_error(tableau, 32) / global_error(tableau, 64), 2)
    assert abs(slope - tableau.order) < 0.2


@pytest.mark.parametrize("theta", ["0.2", "0.45", "0.75"])
def test_dense_output_shrinks_with_its_order_over_one_step(tableau, theta):
    t, theta, defects = mpmath.mpf("0.3"), mpmath.mpf(theta), []
    for h in (mpmath.mpf(1) / 128, mpmath.mpf(1) / 256):
        ks = derivatives(tableau, t, solution(t), h)
        b = [mpmath.polyval([*reversed(exact(p)), 0], theta) for p in tableau.dense.weights]
        defects.append(solution(t) + h * mpmath.fdot(b, ks) - solution(t + theta * h))
    slope = mpmath.log(abs(defects[0] / defects[1]), 2)
    assert abs(slope - (tableau.dense.order + 1)) < 0.2
