"""Symplectic methods keep energies, run backward, and have their order on separable systems."""

import math

import pytest
import torch
from torch import nn

import odeum
from odeum.tableaus import SYMPLECTIC

REVERSIBLE = [name for name, tableau in SYMPLECTIC.items() if tableau.reversible]
EVALUATIONS = {"semi_implicit_euler": 2, "leapfrog": 2, "yoshida4": 6, "yoshida6": 14}
"""Evaluations in a step: one for each kick and drift, a last kick shared with the next step."""


def driven(t, state, phase):
    """Nonlinear and non-autonomous, solved by ``q = sin(t + phase)``, ``p = cos(2 t + phase)``."""
    q, p = state
    at = t + phase
    q_rate = torch.cos(at) + torch.sin(p) - torch.sin(torch.cos(at + t))
    p_rate = -2 * torch.sin(at + t) - q**3 + torch.sin(at) ** 3
    return q_rate, p_rate


def driven_exact(t, phase):
    return torch.sin(t + phase), torch.cos(2 * t + phase)


PHASES = torch.tensor([[0.0], [0.7], [2.0]], dtype=torch.float64)
SPAN = 3.0
N_STEPS = {1: (100, 200, 400), 2: (40, 80, 160), 4: (40, 60, 90), 6: (40, 52, 68)}


def driven_errors(method, n):
    ts = torch.linspace(0, SPAN, n + 1)
    sol = odeum.solve(
        driven,
        driven_exact(ts[:1], PHASES),
        ts,
        odeum.per_row(PHASES),
        method=method,
        step=odeum.StepOptions(fixed=SPAN / n),
        dense=True,
    )
    assert sol.stats.n_accepted.tolist() == [n] * 3
    between = torch.linspace(0.05, SPAN - 0.05, 101)
    return [
        torch.stack(
            [
                (found - exact).square().mean()
                for found, exact in zip(ys, driven_exact(t[:, None, None], PHASES), strict=True)
            ]
        )
        .sum()
        .sqrt()
        .item()
        for ys, t in ((sol.ys, ts), (sol(between), between))
    ]


def slope(n_steps, values):
    x = -torch.tensor(n_steps, dtype=torch.float64).log()
    y = torch.tensor(values).log()
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


@pytest.mark.parametrize("method", SYMPLECTIC)
def test_order_at_the_outputs_and_between_them(method):
    described = odeum.methods.describe(method)
    n_steps = N_STEPS[described.order]
    ends, insides = zip(*(driven_errors(method, n) for n in n_steps), strict=True)
    assert slope(n_steps, ends) == pytest.approx(described.order, abs=0.2)
    assert slope(n_steps, insides) > min(described.order, described.dense_order + 1) - 0.2


def test_described():
    assert [odeum.methods.describe(name).n_stages for name in SYMPLECTIC] == [2, 3, 7, 15]
    for name in SYMPLECTIC:
        described = odeum.methods.describe(name)
        assert (described.adaptive, described.stiff, described.dense_order) == (False, False, 3)


# A pendulum and a Kepler orbit (x, y) beside it.


def pendulum_and_planet(t, state):
    q, p = state
    angle, orbit = q[..., :1], q[..., 1:]
    distance = orbit.square().sum(-1, keepdim=True).sqrt()
    return p, torch.cat([-torch.sin(angle), -orbit / distance**3], -1)


def energies(q, p):
    pendulum = p[..., 0] ** 2 / 2 - torch.cos(q[..., 0])
    orbit, motion = q[..., 1:], p[..., 1:]
    return pendulum, motion.square().sum(-1) / 2 - 1 / orbit.square().sum(-1).sqrt()


ECCENTRICITY = 0.3
START = (
    torch.tensor([[1.2, 1 - ECCENTRICITY, 0.0]], dtype=torch.float64),
    torch.tensor(
        [[0.0, 0.0, math.sqrt((1 + ECCENTRICITY) / (1 - ECCENTRICITY))]], dtype=torch.float64
    ),
)


def energy_errors(method, n_steps, h=0.1):
    """The largest in the first and in the last tenth of the steps, of pendulum and planet."""
    ts = torch.arange(n_steps + 1) * h
    sol = odeum.solve(pendulum_and_planet, START, ts, method=method, gradient="none")
    tenth = n_steps // 10
    for energy in energies(*sol.ys):
        error = (energy - energy[0]).abs()
        yield float(error[:tenth].max()), float(error[-tenth:].max())


ENERGY_ERROR = {"semi_implicit_euler": 0.05, "leapfrog": 5e-3, "yoshida4": 2e-4, "yoshida6": 5e-7}


def check_energies(method, n_steps):
    for first, last in energy_errors(method, n_steps):
        assert first < ENERGY_ERROR[method]
        assert last < 1.05 * first + 1e-12


@pytest.mark.parametrize("method", SYMPLECTIC)
def test_energy_does_not_drift(method):
    check_energies(method, 700)


@pytest.mark.slow
@pytest.mark.parametrize("method", SYMPLECTIC)
def test_energy_does_not_drift_in_a_hundred_thousand_steps(method):
    check_energies(method, 100_000)


def test_energy_drifts_with_a_method_that_is_not_symplectic():
    (first, last), _ = energy_errors("rk4", 700, h=0.3)
    assert last > 5 * first


@pytest.mark.parametrize("method", SYMPLECTIC)
def test_there_and_back_again(method):
    ts = torch.arange(201) * 0.05
    there = odeum.solve(pendulum_and_planet, START, ts, method=method).ys
    start = [x[-1] for x in there]
    back = odeum.solve(pendulum_and_planet, tuple(start), ts.flip(0), method=method).ys
    missed = max(float((x[-1] - y).abs().max()) for x, y in zip(back, START, strict=True))
    if method in REVERSIBLE:
        assert missed < 1e-12
    else:
        assert missed > 1e-3


@pytest.mark.parametrize("method", SYMPLECTIC)
def test_one_evaluation_for_each_kick_and_drift(method):
    calls = []

    def field(t, state):
        calls.append(t)
        return pendulum_and_planet(t, state)

    ts = torch.linspace(0, 1, 11)
    sol = odeum.solve(field, START, ts, method=method, gradient="none")
    first = 0 if method == "semi_implicit_euler" else 1
    assert sol.stats.n_evaluations.tolist() == [len(calls)] == [first + 10 * EVALUATIONS[method]]


class TestStates:
    """A state may come in any structure that says what is q and what is p."""

    q, p = torch.tensor([[0.3, -1.0], [1.1, 0.4]]), torch.tensor([[0.0, 0.5], [-0.2, 1.0]])
    ts = torch.linspace(0, 2, 21)

    @pytest.fixture(autouse=True)
    def wanted(self):
        self.q, self.p = self.q.double(), self.p.double()
        self.pair = self.solve((self.q, self.p), lambda t, y: (y[1], -torch.sin(y[0])))

    def solve(self, y0, field, method="yoshida4", **options):
        return odeum.solve(field, y0, self.ts.double(), method=method, **options).ys

    def same(self, q, p):
        torch.testing.assert_close(q, self.pair[0], rtol=0, atol=1e-14)
        torch.testing.assert_close(p, self.pair[1], rtol=0, atol=1e-14)

    def test_dict(self):
        ys = self.solve(
            {"position": self.q, "momentum": self.p},
            lambda t, y: {"position": y["momentum"], "momentum": -torch.sin(y["position"])},
        )
        self.same(ys["position"], ys["momentum"])

    @pytest.mark.parametrize("coupling", ["independent", "joint"])
    def test_one_tensor(self, coupling):
        def field(t, y):
            q, p = y.chunk(2, -1)
            return torch.cat([p, -torch.sin(q)], -1)

        ys = self.solve(torch.cat([self.q, self.p], -1), field, coupling=coupling)
        self.same(ys[..., :2], ys[..., 2:])

    def test_one_tensor_of_more_axes(self):
        def field(t, y):
            return torch.stack([y[:, 1], -torch.sin(y[:, 0])], 1)

        ys = self.solve(torch.stack([self.q, self.p], 1), field)
        self.same(ys[:, :, 0], ys[:, :, 1])

    def test_jointly(self):
        self.same(
            *self.solve((self.q, self.p), lambda t, y: (y[1], -torch.sin(y[0])), coupling="joint")
        )

    def test_one_system(self):
        q, p = self.solve((self.q[0], self.p[0]), lambda t, y: (y[1], -torch.sin(y[0])))
        torch.testing.assert_close(q, self.pair[0][:, 0], rtol=0, atol=1e-14)
        torch.testing.assert_close(p, self.pair[1][:, 0], rtol=0, atol=1e-14)

    @pytest.mark.parametrize(
        "y0",
        [torch.zeros(2, 3), (torch.zeros(2, 1),) * 3, (torch.zeros(2, 1), torch.zeros(2, 2))],
        ids=["odd", "three", "unequal"],
    )
    def test_others_are_refused(self, y0):
        with pytest.raises(odeum.InputError, match=r"leapfrog solves .* give a pair \(q, p\)"):
            odeum.solve(lambda t, y: y, y0, torch.tensor([0.0, 1.0]), method="leapfrog")


class Separable(nn.Module):
    """Both halves nonlinear, with parameters, the time and per-row arguments."""

    def __init__(self):
        super().__init__()
        self.drift = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
        self.kick = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))

    def forward(self, t, state, scale):
        q, p = state
        time = t.expand(len(q), 1)
        drift = self.drift(torch.cat([p, time], -1))
        return drift, scale * self.kick(torch.cat([q, time], -1))


def times(*, per_row, decreasing):
    ts = torch.linspace(0.3, 1.3, 5)
    if per_row:
        ts = ts[:, None] * torch.tensor([1.0, 1.4, 0.6]) + torch.tensor([0.0, 0.2, -0.4])
    return (ts.flip(0) if decreasing else ts).clone().requires_grad_()


def loss_and_inputs(method, gradient, *, per_row, decreasing):
    torch.manual_seed(3)
    field = Separable()
    q0, p0 = torch.randn(2, 3, 2).unbind(0)
    inputs = [
        q0.clone().requires_grad_(),
        p0.clone().requires_grad_(),
        times(per_row=per_row, decreasing=decreasing),
        torch.rand(3, 1).requires_grad_(),
    ]

    def loss(q0, p0, ts, scale):
        sol = odeum.solve(
            field,
            (q0, p0),
            ts,
            odeum.per_row(scale),
            method=method,
            gradient=gradient,
            step=odeum.StepOptions(fixed=0.17),
            dense=True,
        )
        q, p = sol.ys
        q_between, p_between = sol(0.6 * ts[:1] + 0.4 * ts[-1:])
        return (q**2 + p.sin()).sum() + (q_between * p_between).sum()

    return loss, inputs, list(field.parameters())


@pytest.mark.parametrize("room", ["room", "no room"])
@pytest.mark.parametrize("decreasing", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("per_row", [False, True], ids=["shared", "per row"])
@pytest.mark.parametrize("method", SYMPLECTIC)
def test_discrete_equals_autograd(method, per_row, decreasing, room, monkeypatch):
    if room == "no room":
        monkeypatch.setattr("odeum.gradient.tape.ROOM_BYTES", 0)
    found = []
    for gradient in ("discrete", "autograd"):
        loss, inputs, parameters = loss_and_inputs(
            method, gradient, per_row=per_row, decreasing=decreasing
        )
        found.append(torch.autograd.grad(loss(*inputs), inputs + parameters))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12 * float(b.abs().max()))


@pytest.mark.parametrize("method", SYMPLECTIC)
def test_discrete_against_finite_differences(method):
    loss, inputs, parameters = loss_and_inputs(method, "discrete", per_row=True, decreasing=False)
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)
    (found,) = torch.autograd.grad(loss(*inputs), parameters[0])
    with torch.no_grad():
        values = []
        for shift in (1e-5, -1e-5):
            parameters[0][1, 2] += shift
            values.append(float(loss(*inputs)))
            parameters[0][1, 2] -= shift
    assert float(found[1, 2]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)
