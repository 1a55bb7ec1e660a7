"""A Lagrangian field moves as Euler's equation says, and keeps its energy."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

import odeum
from odeum.errors import InputError
from odeum.models import LagrangianField


class Oscillator(nn.Module):
    def forward(self, q, v):
        return (v * v - 4 * q * q).sum(-1) / 2


class Pendulum(nn.Module):
    def forward(self, q, v):
        return (v * v / 2 + q.cos()).sum(-1)


class TwoBody(nn.Module):
    """Masses 1 and 3 in the plane, q = (x1, y1, x2, y2)."""

    def forward(self, q, v):
        kinetic = (v[..., :2].square().sum(-1) + 3 * v[..., 2:].square().sum(-1)) / 2
        return kinetic + 3 / (q[..., :2] - q[..., 2:]).norm(dim=-1)


class Polar(nn.Module):
    """A free particle of the plane in polar coordinates: the mass matrix depends on place."""

    def forward(self, q, v):
        return (v[..., 0].square() + (q[..., 0] * v[..., 1]).square()) / 2


def two_body_by_hand(y):
    q, v = y.chunk(2, -1)
    apart = q[..., 2:] - q[..., :2]
    pull = apart / apart.norm(dim=-1, keepdim=True) ** 3
    return torch.cat([v, 3 * pull, -pull], -1)


def polar_by_hand(y):
    r, _, dr, turning = y.unbind(-1)
    return torch.stack([dr, turning, r * turning**2, -2 * dr * turning / r], -1)


SYSTEMS = {
    "oscillator": (Oscillator(), lambda y: torch.stack([y[..., 1], -4 * y[..., 0]], -1)),
    "pendulum": (Pendulum(), lambda y: torch.stack([y[..., 1], -y[..., 0].sin()], -1)),
    "two-body": (TwoBody(), two_body_by_hand),
    "polar": (Polar(), polar_by_hand),
}


def states(name, n_rows=4):
    generator = torch.Generator().manual_seed(0)
    dim = {"two-body": 8, "polar": 4}.get(name, 2)
    y = torch.randn(n_rows, dim, generator=generator)
    if dim > 2:
        y[:, :2] += 4  # no near collisions, and far from the pole
    return y


def small(dim=2):
    torch.manual_seed(0)
    return LagrangianField(dim, hidden=(8, 8))


@pytest.mark.parametrize("name", SYSTEMS)
def test_derivatives_are_those_of_the_equations(name):
    lagrangian, by_hand = SYSTEMS[name]
    y = states(name)
    field = LagrangianField(y.shape[-1], lagrangian=lagrangian)
    torch.testing.assert_close(field(0.0, y), by_hand(y), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(field(0.0, y[0]), by_hand(y[0]), rtol=1e-13, atol=1e-13)
    stacked = torch.stack([y, y])
    torch.testing.assert_close(field(0.0, stacked)[1], by_hand(y), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", SYSTEMS)
def test_solutions_keep_the_energy(name):
    y0 = states(name)
    field = LagrangianField(y0.shape[-1], lagrangian=SYSTEMS[name][0])
    ys = odeum.solve(field, y0, torch.linspace(0, 1, 6), rtol=1e-10, atol=1e-10).ys
    torch.testing.assert_close(field.energy(ys), field.energy(y0).expand(6, 4), rtol=0, atol=1e-8)


def test_energies_are_those_of_the_systems():
    y = torch.tensor([[0.5, 3.0]])
    expected = torch.tensor([9.0 / 2 + 4 * 0.25 / 2])
    torch.testing.assert_close(LagrangianField(2, lagrangian=Oscillator()).energy(y), expected)
    y = states("polar")
    energy = LagrangianField(4, lagrangian=Polar()).energy(y)
    torch.testing.assert_close(energy, Polar()(*y.chunk(2, -1)))


def test_a_network_keeps_its_own_energy():
    field = small(4)
    y0 = torch.randn(3, 4)
    ys = odeum.solve(field, y0, torch.linspace(0, 2, 6), rtol=1e-10, atol=1e-10).ys
    assert float((ys[-1] - y0).detach()[:, 2:].abs().max()) > 1e-3
    torch.testing.assert_close(field.energy(ys), field.energy(y0).expand(6, 3), rtol=0, atol=1e-8)


def test_masses_begin_near_the_identity():
    torch.manual_seed(0)
    field = LagrangianField(8)
    y = 2 * torch.randn(50, 8)
    q, v = y.chunk(2, -1)

    masses = torch.stack(
        [
            torch.autograd.functional.hessian(lambda x, i=i: field.lagrangian(q[i], x), v[i])
            for i in range(10)
        ]
    )
    assert float(torch.linalg.cond(masses).detach().max()) < 2
    assert float(field(0.0, y).detach()[:, 4:].abs().max()) < 1


def test_a_row_without_mass_leaves_the_others_alone():
    class Massless(nn.Module):
        def forward(self, q, v):
            return (q * v * v / 2).sum(-1)  # no mass at q = 0

    field = LagrangianField(2, lagrangian=Massless())
    found = field(0.0, torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
    assert not bool(found[0].isfinite().all())
    # (q v)' = v^2 / 2, so q a = -v^2 / 2
    torch.testing.assert_close(found[1], torch.tensor([1.0, -0.25]))


def test_gradients_of_a_solve():
    field = small(2)
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


def test_a_field_is_differentiated_with_respect_to_states():
    field = small(4)
    y = torch.randn(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: field(0.0, y), y)
    with torch.no_grad():
        assert not field(0.0, y).requires_grad


def test_engines_agree():
    field = small(4)
    y0, ts = torch.randn(3, 4), torch.linspace(0, 1, 4)
    found = {}
    for engine in ("eager", "fused"):
        field.zero_grad()
        solution = odeum.solve(field, y0, ts, engine=engine, rtol=1e-8, atol=1e-8)
        solution.ys.square().mean().backward()
        slopes = [p.grad for p in field.parameters() if p.grad is not None]
        found[engine] = (solution.ys.detach(), *slopes)
    torch.testing.assert_close(found["fused"], found["eager"], rtol=1e-11, atol=1e-12)


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


def test_it_is_copied_and_restored():
    field = small(2)
    y = torch.randn(3, 2)
    twin = copy.deepcopy(field)
    other = LagrangianField(2, hidden=(8, 8))
    other.load_state_dict(field.state_dict())
    for same in (twin, other):
        torch.testing.assert_close(same(0.0, y), field(0.0, y), rtol=0, atol=0)


def test_what_is_no_lagrangian_field_is_refused():
    with pytest.raises(InputError, match="dim is 5: give an even number"):
        LagrangianField(5)
    with pytest.raises(InputError, match="lagrangian is a function: give an"):
        LagrangianField(2, lagrangian=lambda q, v: v)
    with pytest.raises(InputError, match=r"shape \[4, 3\]: its last axis must have 2"):
        LagrangianField(2)(0.0, torch.ones(4, 3))
