"""Integrands against closed forms and derivatives taken another way."""

import math

import pytest
import torch
from torch import nn

import odeum
from odeum.regularisers import Derivative, JacobianFrobenius, kinetic_energy


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


A = torch.tensor([[-0.3, 2.0, 0.1], [-1.5, 0.2, 0.4], [0.3, -0.2, -0.5]], dtype=torch.float64)


def linear(t, y):
    return y @ A.T


def forced(t, y):
    return torch.sin(2 * t) * y**2 + torch.exp(-t)


class Hamiltonian(nn.Module):
    """Differentiates inside by torch.autograd, as a Hamiltonian network does."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double()

    def forward(self, t, y):
        recorded = torch.is_grad_enabled()
        with torch.enable_grad():
            if not y.requires_grad:
                y = y.detach().requires_grad_()
            (g,) = torch.autograd.grad(self.energy(y).sum(), y, create_graph=True)
        dy = torch.stack([g[:, 1], -g[:, 0]], -1)
        return dy if recorded else dy.detach()


class Functional(nn.Module):
    """The same field by torch.func."""

    def __init__(self, other: Hamiltonian) -> None:
        super().__init__()
        self.energy = other.energy

    def forward(self, t, y):
        g = torch.func.grad(lambda y: self.energy(y).sum())(y)
        return torch.stack([g[:, 1], -g[:, 0]], -1)


def states(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def test_kinetic_energy_sums_over_each_row():
    f = {"q": states(4, 2, 3), "p": states(4)}
    expected = f["q"].pow(2).sum((1, 2)) + f["p"] ** 2
    torch.testing.assert_close(kinetic_energy(linear, None, f, f), expected)
    torch.testing.assert_close(kinetic_energy(linear, None, f["p"], f["p"]), f["p"].pow(2).sum())


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_derivatives_of_linear_systems_are_powers_of_the_matrix(order):
    y = states(4, 3)
    derivative = Derivative(order).of(linear, torch.zeros(4, 1).double(), y, linear(0, y))
    torch.testing.assert_close(derivative, y @ torch.linalg.matrix_power(A, order).T)


def test_derivatives_see_time_and_curvature():
    """y = tan(t^2 / 2) solves y' = t (1 + y^2)."""
    t = torch.tensor([[0.3], [0.9]], dtype=torch.float64)

    def field(t, y):
        return t * (1 + y**2)

    x = t.clone().requires_grad_()
    value = torch.tan(x**2 / 2)
    y = value.detach()
    for order in (1, 2, 3, 4):
        (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        found = Derivative(order).of(field, t, y, field(t, y))
        torch.testing.assert_close(found, value.detach())
        integrand = Derivative(order)(field, t, y, field(t, y))
        torch.testing.assert_close(integrand, value.detach().squeeze(-1) ** 2)


def test_derivatives_of_structured_states():
    state = {"q": states(4, 3), "p": states(4, 2, 2)}

    def field(t, y):
        return {"q": y["q"] @ A.T, "p": torch.cos(t).unsqueeze(-1) * y["p"]}

    t = states(4, 1)
    found = Derivative(2).of(field, t, state, field(t, state))
    factor = (torch.cos(t) ** 2 - torch.sin(t)).unsqueeze(-1)
    torch.testing.assert_close(found["q"], state["q"] @ (A @ A).T)
    torch.testing.assert_close(found["p"], factor * state["p"])


def test_frobenius_norm_of_a_matrix():
    y, t = states(5, 3), torch.zeros(5, 1).double()
    exact = JacobianFrobenius(exact=True)
    torch.testing.assert_close(exact(linear, t, y, linear(t, y), None), (A**2).sum().expand(5))
    # The mean over all signs is exact.
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    estimates = [
        JacobianFrobenius()(linear, t, y, linear(t, y), sign.expand_as(y)) for sign in signs
    ]
    torch.testing.assert_close(torch.stack(estimates).mean(0), (A**2).sum().expand(5))


def test_frobenius_norm_of_structured_states():
    state = {"q": states(4, 2), "p": states(4, 1)}

    def field(t, y):
        return {"q": y["p"] * y["q"], "p": y["q"].sum(-1, keepdim=True) ** 2}

    found = JacobianFrobenius(exact=True)(field, None, state, field(None, state), None)
    q, p = state["q"], state["p"].squeeze(-1)
    torch.testing.assert_close(found, 2 * p**2 + (q**2).sum(-1) + 2 * (2 * q.sum(-1)) ** 2)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize(
    "integrand", [JacobianFrobenius(exact=True), Derivative(2), Derivative(3)], ids=repr
)
def test_fields_that_differentiate_inside(integrand, recorded):
    field = Hamiltonian()
    other = Functional(field)
    y, t = states(3, 2), torch.zeros(3, 1).double()
    drawn = [integrand.draw(y)] if hasattr(integrand, "draw") else []
    with torch.set_grad_enabled(recorded):
        found = integrand(field, t, y, field(t, y), *drawn)
        expected = integrand(other, t, y, other(t, y), *drawn)
    torch.testing.assert_close(found, expected)
    assert found.requires_grad == expected.requires_grad == recorded
    if recorded:
        ours, theirs = (
            torch.autograd.grad(x.sum(), list(field.energy.parameters()), materialize_grads=True)
            for x in (found, expected)
        )
        torch.testing.assert_close(ours, theirs)


def test_noise_is_drawn_from_its_generator():
    y = states(4, 3)
    draws = [
        JacobianFrobenius(generator=torch.Generator().manual_seed(seed)).draw(y)
        for seed in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert bool((draws[0].abs() == 1).all())
    given = states(4, 3)
    assert torch.equal(JacobianFrobenius(noise=given).draw(y), given)


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(odeum.InputError, match="whole number"):
        Derivative(0)
    with pytest.raises(odeum.InputError, match="whole number"):
        Derivative(2.0)
    with pytest.raises(odeum.InputError, match="one or the other"):
        JacobianFrobenius(exact=True, noise=torch.ones(1))
    with pytest.raises(odeum.InputError, match=r"shaped like y0, \[2, 1\]"):
        JacobianFrobenius(noise=torch.ones(3, 1)).draw(torch.ones(2, 1))


def test_harmonic_oscillator_integrals_are_what_they_are():
    """q = cos wt: |y^(k)|^2 integrates to sums of squares of sines and cosines."""
    w = 1.7
    y0 = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    ts = torch.linspace(0, 2, 5, dtype=torch.float64)

    def oscillator(t, y):
        return torch.stack([y[:, 1], -(w**2) * y[:, 0]], -1)

    sol = odeum.solve(
        oscillator,
        y0,
        ts,
        method="dopri8",
        rtol=1e-10,
        atol=1e-10,
        integrals={
            "kinetic": kinetic_energy,
            "jerk": Derivative(3),
            "jacobian": JacobianFrobenius(exact=True),
        },
    )
    sines = ts / 2 - torch.sin(2 * w * ts) / (4 * w)
    cosines = ts - sines
    kinetic = w**2 * sines + w**4 * cosines
    torch.testing.assert_close(sol.integrals["kinetic"][:, 0], kinetic, rtol=1e-8, atol=1e-9)
    jerk = w**4 * kinetic
    torch.testing.assert_close(sol.integrals["jerk"][:, 0], jerk, rtol=1e-8, atol=1e-8)
    jacobian = (1 + w**4) * ts
    torch.testing.assert_close(sol.integrals["jacobian"][:, 0], jacobian, rtol=1e-12, atol=0)
    assert math.isclose(float(sol.integrals["kinetic"][0, 0]), 0.0)
