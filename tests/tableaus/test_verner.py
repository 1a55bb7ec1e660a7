"""Verner's pairs take steps that shrink with their orders; test_tableaus holds the conditions."""

import mpmath
import pytest

from odeum.tableaus.verner import VERN7, VERN9


@pytest.fixture(params=[VERN7, VERN9], ids=lambda t: t.name, scope="module")
def tableau(request):
    return request.param


@pytest.fixture(scope="module", autouse=True)
def fifty_digits():
    with mpmath.workdps(50):
        yield


def exact(row):
    return [mpmath.mpf(x.numerator) / x.denominator for x in row]


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
