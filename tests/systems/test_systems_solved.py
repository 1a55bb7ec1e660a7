"""The systems under `odeum.solve`: truths kept along the way, gradients to their constants."""

import pytest
import torch

import odeum
from odeum import systems

SPANS = {"robertson": 0.05, "oregonator": 1.0, "hires": 0.5, "pollu": 1e-9}
"""Stiff systems are followed through their first instants, where an explicit method can."""

TIGHT = {"method": "dopri5", "rtol": 1e-10, "atol": 1e-10}


def starts(system, n=3):
    y0 = torch.tensor(system.y0, dtype=torch.float64)
    return y0 * torch.linspace(0.85, 1.05, n, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("name", systems.names())
def test_invariants_and_exact_solutions_hold(name):
    system = systems.get(name)
    y0 = starts(system)
    end = SPANS.get(name, min(system.span[1], 5))
    ts = torch.linspace(0, end, 6, dtype=torch.float64)
    ys = odeum.solve(system, y0, ts, gradient="none", **TIGHT).ys
    assert ys.shape == (6, 3, system.dim)
    for invariant in system.invariants.values():
        drift = (invariant(ys) - invariant(y0)) / (1 + invariant(y0).abs())
        assert drift.abs().max() < 1e-7
    if system.exact is not None:
        torch.testing.assert_close(ys, system.exact(ts, y0), rtol=0, atol=1e-7)


@pytest.mark.parametrize("gradient", ["discrete", "autograd"])
def test_constants_are_differentiated_through_a_solve(gradient):
    y0 = starts(systems.lotka_volterra())
    ts = torch.tensor([0.0, 0.7], dtype=torch.float64)
    options = {"method": "dopri5", "rtol": 1e-9, "atol": 1e-9, "gradient": gradient}
    alpha = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([[1.4], [1.5], [1.6]], dtype=torch.float64, requires_grad=True)

    def bound(alpha):
        return odeum.solve(systems.lotka_volterra(alpha=alpha), y0, ts, **options).ys[-1]

    def given(alpha):
        return odeum.solve(systems.lotka_volterra(), y0, ts, {"alpha": alpha}, **options).ys[-1]

    def given_per_row(rows):
        return given(odeum.per_row(rows))

    # The steps move with the constant, which the gradient of the steps taken leaves out: both
    # agree to the tolerance of the solve, not to rounding.
    for call, value in ((bound, alpha), (given, alpha), (given_per_row, rows)):
        assert torch.autograd.gradcheck(call, (value,), eps=1e-4, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(bound(alpha), given(alpha), rtol=1e-14, atol=0)


def test_the_spiral_matrix_is_differentiated_through_a_solve():
    y0 = starts(systems.spiral())
    ts = torch.tensor([0.0, 1.0], dtype=torch.float64)
    a = torch.tensor(systems.spiral().constants["a"], dtype=torch.float64, requires_grad=True)
    ys = odeum.solve(systems.spiral(a), y0, ts, **TIGHT).ys[-1]
    exact = systems.spiral(a).exact(ts, y0)[-1]
    weights = torch.tensor([1.0, -2.0], dtype=torch.float64)
    (slope,) = torch.autograd.grad((ys * weights).sum(), a)
    (expected,) = torch.autograd.grad((exact * weights).sum(), a)
    torch.testing.assert_close(slope, expected, rtol=1e-7, atol=1e-7)
