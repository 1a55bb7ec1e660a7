"""Every method converges with its order, at the outputs and between the steps."""

import math
from functools import cache

import pytest
import torch
from problems import LOGISTIC_Y0, logistic, logistic_exact

import odeum

# Steps small enough to be asymptotic, large enough to stand above rounding.
N_STEPS = {1: (100, 200, 400), 2: (64, 128, 256), 3: (48, 96, 192), 4: (48, 96, 192)}
N_STEPS |= {5: (64, 96, 128), 6: (24, 36, 48), 7: (28, 36, 48), 8: (10, 12, 16), 9: (5, 6, 7)}
SPAN = 3.0


def takes_given_steps_on_any_system(name):
    """SciPy's methods choose their own steps, symplectic ones want q and p."""
    return not isinstance(odeum.methods.get(name), odeum.methods.SciPy | odeum.methods.Symplectic)


METHODS = [name for name in odeum.methods.names() if takes_given_steps_on_any_system(name)]


def rms_error(sol, t):
    exact = logistic_exact(t[:, None, None], LOGISTIC_Y0)
    return float((sol - exact).square().mean().sqrt())


@cache
def errors(method, n_steps, coupling="independent"):
    """At the ends of the steps, and at points anywhere between them."""
    ends, insides = [], []
    for n in n_steps:
        ts = torch.linspace(0, SPAN, n + 1)
        sol = odeum.solve(
            logistic,
            LOGISTIC_Y0,
            ts,
            method=method,
            step=odeum.StepOptions(fixed=SPAN / n),
            dense=True,
            coupling=coupling,
        )
        assert sol.stats.n_accepted.tolist() == [n] * 3
        ends.append(rms_error(sol.ys, ts))
        t = torch.linspace(0.05, SPAN - 0.05, 101)
        insides.append(rms_error(sol(t), t))
    return ends, insides


def slope(n_steps, values):
    x = torch.tensor([math.log(SPAN / n) for n in n_steps])
    y = torch.tensor(values).log()
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


@pytest.mark.sweep(2)
@pytest.mark.parametrize("method", METHODS)
def test_order_of_convergence(method):
    order = odeum.methods.describe(method).order
    ends, _ = errors(method, N_STEPS[order])
    assert slope(N_STEPS[order], ends) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("method", METHODS)
def test_order_between_steps(method):
    """An interpolant of order q errs by h^(q+1) in a step; the solution itself by h^p."""
    described = odeum.methods.describe(method)
    wanted = min(described.order, described.dense_order + 1)
    _, insides = errors(method, N_STEPS[described.order])
    assert slope(N_STEPS[described.order], insides) > wanted - 0.2


@pytest.mark.parametrize("method", ["dopri5", "rk4", "dopri8"])
def test_joint_coupling_converges_too(method):
    order = odeum.methods.describe(method).order
    ends, _ = errors(method, N_STEPS[order], coupling="joint")
    assert slope(N_STEPS[order], ends) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("method", ["heun", "bosh3", "dopri5", "tsit5", "dopri8"])
def test_error_follows_the_tolerance(method):
    ts = torch.linspace(0, SPAN, 5)
    found = []
    for tolerance in (1e-4, 1e-6):
        sol = odeum.solve(logistic, LOGISTIC_Y0, ts, method=method, rtol=tolerance, atol=tolerance)
        found.append(float((sol.ys - logistic_exact(ts[:, None, None], LOGISTIC_Y0)).abs().max()))
    assert found[0] < 1e-2
    assert found[1] < 1e-4
    assert found[1] < found[0] / 10
