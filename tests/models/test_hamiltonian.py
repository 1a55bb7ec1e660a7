"""A Hamiltonian field moves as Hamilton's equations say, and keeps its energy."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

import odeum
from odeum.errors import InputError
from odeum.models import HamiltonianField, SeparableHamiltonian


class Oscillator(nn.Module):
    def forward(self, q, p):
        return (4 * q * q + p * p).sum(-1) / 2


class Pendulum(nn.Module):
    def forward(self, q, p):
        return (p * p / 2 - q.cos()).sum(-1)


class TwoBody(nn.Module):
    """Masses 1 and 3 in the plane, q = (x1, y1, x2, y2)."""

    def forward(self, q, p):
        kinetic = (p[..., :2].square().sum(-1) + p[..., 2:].square().sum(-1) / 3) / 2
        return kinetic - 3 / (q[..., :2] - q[..., 2:]).norm(dim=-1)


def two_body_by_hand(y):
    q, p = y.chunk(2, -1)
    apart = q[..., 2:] - q[..., :2]
    pull = 3 * apart / apart.norm(dim=-1, keepdim=True) ** 3
    return torch.cat([p[..., :2], p[..., 2:] / 3, pull, -pull], -1)


SYSTEMS = {
    "oscillator": (Oscillator(), lambda y: torch.stack([y[..., 1], -4 * y[..., 0]], -1)),
    "pendulum": (Pendulum(), lambda y: torch.stack([y[..., 1], -y[..., 0].sin()], -1)),
    "two-body": (TwoBody(), two_body_by_hand),
}


def states(name, n_rows=4):
    generator = torch.Generator().manual_seed(0)
    dim = 8 if name == "two-body" else 2
    y = torch.randn(n_rows, dim, generator=generator)
    if name == "two-body":
        y[:, :2] += 4  # no near collisions
    return y


def small(dim=2, **options):
    torch.manual_seed(0)
    return HamiltonianField(dim, hidden=(8, 8), **options)


@pytest.mark.parametrize("name", SYSTEMS)
def test_derivatives_are_those_of_the_equations(name):
    hamiltonian, by_hand = SYSTEMS[name]
    y = states(name)
    field = HamiltonianField(y.shape[-1], hamiltonian=hamiltonian)
    torch.testing.assert_close(field(0.0, y), by_hand(y), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(field(0.0, y[0]), by_hand(y[0]), rtol=1e-14, atol=1e-14)
    stacked = torch.stack([y, y / 2])
    torch.testing.assert_close(field(0.0, stacked)[0], by_hand(y), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", SYSTEMS)
def test_solutions_keep_the_energy(name):
    y0 = states(name)
    field = HamiltonianField(y0.shape[-1], hamiltonian=SYSTEMS[name][0])
    ys = odeum.solve(field, y0, torch.linspace(0, 5, 6), rtol=1e-10, atol=1e-10).ys
    torch.testing.assert_close(field.energy(ys), field.energy(y0).expand(6, 4), rtol=0, atol=1e-8)


def test_a_network_keeps_its_own_energy():
    field = small(4)
    y0 = torch.randn(3, 4)
    ys = odeum.solve(field, y0, torch.linspace(0, 5, 6), rtol=1e-10, atol=1e-10).ys
    assert float((ys[-1] - y0).detach().abs().min()) > 1e-3
    torch.testing.assert_close(field.energy(ys), field.energy(y0).expand(6, 3), rtol=0, atol=1e-8)


def test_friction_takes_energy_away_as_it_should():
    field = HamiltonianField(2, friction=True, hamiltonian=Oscillator())
    with torch.no_grad():
        field.raw_friction.fill_(0.3)
    y = torch.tensor([[1.0, 2.0]])
    coefficient = torch.nn.functional.softplus(torch.tensor(0.3))
    by_hand = torch.tensor([[2.0, -4.0]]) - torch.stack([torch.zeros(1), 2 * coefficient[None]], -1)
    torch.testing.assert_close(field(0.0, y), by_hand)
    energies = field.energy(odeum.solve(field, y, torch.linspace(0, 5, 20)).ys)
    assert bool((energies.diff(dim=0) < 0).all())


@pytest.mark.parametrize("options", [{}, {"separable": True, "friction": True}])
def test_gradients_of_a_solve(options):
    field = small(2, **options)
    y0 = torch.randn(2, 2).requires_grad_()
    names, weights = zip(*field.named_parameters(), strict=True)

    def solved(y0, *weights):
        called = dict(zip(names, weights, strict=True))
        return odeum.solve(
            lambda t, y: functional_call(field, called, (t, y)),
            y0,
            torch.tensor([0.0, 0.5]),
            method="rk4",
            step=odeum.StepOptions(fixed=0.25),
        ).ys

    assert torch.autograd.gradcheck(solved, (y0, *weights), fast_mode=True)


def test_a_field_is_differentiated_with_respect_to_states_and_weights():
    field = small(4)
    y = torch.randn(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: field(0.0, y), y)
    assert torch.autograd.gradgradcheck(lambda y: field(0.0, y), y, fast_mode=True)
    with torch.no_grad():
        assert not field(0.0, y).requires_grad


@pytest.mark.parametrize("options", [{}, {"separable": True, "friction": True}])
def test_engines_agree(options):
    field = small(4, **options)
    y0, ts = torch.randn(3, 4), torch.linspace(0, 1, 4)
    found = {}
    for engine in ("eager", "fused"):
        field.zero_grad()
        solution = odeum.solve(field, y0, ts, engine=engine, rtol=1e-8, atol=1e-8)
        solution.ys.square().mean().backward()
        # The bias of the last layer shifts the energy: it has no gradient.
        slopes = [p.grad for p in field.parameters() if p.grad is not None]
        found[engine] = (solution.ys.detach(), *slopes)
    assert odeum.explain(field, y0)
    torch.testing.assert_close(found["fused"], found["eager"], rtol=1e-11, atol=1e-12)


def test_symplectic_methods_solve_separable_energies():
    field = small(4, separable=True)
    assert isinstance(field.hamiltonian, SeparableHamiltonian)
    y0, ts = torch.randn(3, 4), torch.linspace(0, 2, 3)
    reference = odeum.solve(field, y0, ts, rtol=1e-11, atol=1e-11).ys
    errors = []
    for h in (0.1, 0.05):
        step = odeum.StepOptions(fixed=h)
        ys = odeum.solve(field, y0, ts, method="yoshida4", step=step).ys
        errors.append(float((ys - reference).detach().abs().max()))
    assert 12 < errors[0] / errors[1] < 20


@pytest.mark.parametrize("method", ["kvaerno5", "rodas5p"])
def test_stiff_methods_take_it(method):
    field = small(2)
    y0, ts = torch.randn(2, 2), torch.linspace(0, 1, 3)
    expected = odeum.solve(field, y0, ts, rtol=1e-9, atol=1e-9).ys
    found = odeum.solve(field, y0, ts, method=method, rtol=1e-7, atol=1e-9).ys
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_it_is_learned_from_derivatives():
    y = torch.randn(100, 2)
    by_hand = SYSTEMS["pendulum"][1]
    field = small(2)
    assert field.loss(y, by_hand(y)) == (field(0.0, y) - by_hand(y)).square().mean()
    before = field.metrics(y, by_hand(y))["mse"]
    optimiser = torch.optim.Adam(field.parameters(), lr=0.02)
    for _ in range(150):
        optimiser.zero_grad()
        field.loss(y, by_hand(y)).backward()
        optimiser.step()
    after = field.metrics(y, by_hand(y))["mse"]
    assert not after.requires_grad
    assert after < before / 50


def test_it_is_copied_restored_and_of_an_ensemble():
    field = small(2, friction=True)
    y = torch.randn(3, 2)
    twin = copy.deepcopy(field)
    other = HamiltonianField(2, hidden=(8, 8), friction=True)
    other.load_state_dict(field.state_dict())
    for same in (twin, other):
        torch.testing.assert_close(same(0.0, y), field(0.0, y), rtol=0, atol=0)
    ts = torch.linspace(0, 1, 3)
    ys = odeum.Ensemble([field, small(2, friction=True)])(torch.stack([y, y]), ts)
    torch.testing.assert_close(ys[:, 0], odeum.solve(field, y, ts).ys, rtol=1e-10, atol=1e-12)


def test_what_is_no_hamiltonian_field_is_refused():
    with pytest.raises(InputError, match="dim is 3: give an even number"):
        HamiltonianField(3)
    with pytest.raises(InputError, match="give one of the two"):
        HamiltonianField(2, separable=True, hamiltonian=Oscillator())
    with pytest.raises(InputError, match="give one of the two"):
        HamiltonianField(2, hamiltonian=lambda q, p: q)
    with pytest.raises(InputError, match="did you mean 'tanh'"):
        HamiltonianField(2, activation="tahn")
    with pytest.raises(InputError, match=r"shape \[4, 3\]: its last axis must have 2"):
        HamiltonianField(2)(0.0, torch.ones(4, 3))
