"""Second-order dynamics against exact solutions, with the initial velocity learned."""

import copy

import pytest
import torch
from torch import nn

import odeum
from odeum.errors import InputError
from odeum.models import MLPAcceleration, SecondOrder, SecondOrderField

FREQUENCY, DAMPING = 2.0, 0.3
DAMPED = (FREQUENCY**2 - DAMPING**2) ** 0.5


class Oscillator(nn.Module):
    """``y'' = -w² y - 2 d y' + cos t``."""

    def __init__(self):
        super().__init__()
        self.stiffness = nn.Parameter(torch.tensor(FREQUENCY**2))

    def forward(self, t, y, v):
        return -self.stiffness * y - 2 * DAMPING * v + torch.cos(t)


def exact(y0, v0, ts):
    """The solution by hand: the steady one and what dies away, [time, batch, dim]."""
    ts = ts[:, None, None]
    real, imaginary = FREQUENCY**2 - 1, 2 * DAMPING
    size = real**2 + imaginary**2
    a, b = real / size, imaginary / size
    rest = y0 - a
    swing = (v0 - b + DAMPING * rest) / DAMPED
    dying = (-DAMPING * ts).exp() * (rest * (DAMPED * ts).cos() + swing * (DAMPED * ts).sin())
    return a * ts.cos() + b * ts.sin() + dying


@pytest.fixture
def start():
    y0 = torch.tensor([[1.0, -0.5], [0.2, 2.0], [0.0, 0.0]])
    return y0, torch.linspace(0, 4, 9)


def test_positions_are_those_of_the_second_order_equation(start):
    y0, ts = start
    velocity = torch.tensor([0.7, -1.0])
    model = SecondOrder(Oscillator(), velocity, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model(y0, ts), exact(y0, velocity, ts), rtol=1e-7, atol=1e-7)


def test_velocities_are_solved_beside_the_positions(start):
    y0, ts = start
    model = SecondOrder(Oscillator(), nn.Linear(2, 2), rtol=1e-9, atol=1e-9)
    positions, velocities = model.solve(y0, ts).ys.chunk(2, -1)
    torch.testing.assert_close(velocities[0], model.velocity(y0))
    moved = ts + 1e-4
    shift = exact(y0, velocities[0], moved) - exact(y0, velocities[0], ts - 1e-4)
    torch.testing.assert_close(velocities, shift / 2e-4, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(positions, model(y0, ts))


@pytest.mark.parametrize("velocity", ["module", "tensor"])
def test_gradients_reach_acceleration_and_velocity(velocity, start):
    y0, ts = start
    given = nn.Linear(2, 2) if velocity == "module" else torch.tensor([0.3, -0.2])
    model = SecondOrder(Oscillator(), given, rtol=1e-9, atol=1e-9)
    batch = (y0, ts.expand(3, 9), torch.randn(3, 9, 2))
    model.loss(*batch).backward()
    assert len(list(model.parameters())) == (3 if velocity == "module" else 2)
    for weights in model.parameters():
        entry, step = weights.data.view(-1), 1e-6
        ends = []
        for change in (step, -2 * step):
            entry[0] += change
            ends.append(model.loss(*batch).detach())
        entry[0] += step
        slope = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(weights.grad.view(-1)[0], slope, rtol=1e-5, atol=1e-8)


def test_stiffness_and_velocity_are_learned_back_from_positions_by_the_fused_engine(start):
    y0, ts = start
    velocity = torch.tensor([0.7, -1.0])
    model = SecondOrder(Oscillator(), torch.zeros(2), engine="fused", rtol=1e-6)
    torch.testing.assert_close(model(y0, ts), model.solve(y0, ts, engine="eager").ys[..., :2])
    with torch.no_grad():
        model.field.acceleration.stiffness.fill_(3.0)
    batch = (y0, ts.expand(3, 9), exact(y0, velocity, ts).transpose(0, 1))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    before = model.metrics(*batch)["rmse"]
    for epoch in range(150):
        optimiser.param_groups[0]["lr"] = 0.1 * 0.975**epoch
        optimiser.zero_grad()
        model.loss(*batch).backward()
        optimiser.step()
    assert model.metrics(*batch)["rmse"] < 1e-2 * before
    torch.testing.assert_close(model.velocity.data, velocity, rtol=1e-2, atol=1e-2)
    stiffness = model.field.acceleration.stiffness.item()
    assert stiffness == pytest.approx(FREQUENCY**2, rel=5e-3)
    assert model.solve(y0, ts).engine == "fused"


def test_loss_and_metrics_are_of_positions_rows_first(start):
    y0, ts = start
    model = SecondOrder(Oscillator(), torch.ones(2))
    positions = torch.randn(3, 9, 2)
    error = model(y0, ts).transpose(0, 1) - positions
    per_row = model.loss(y0, ts.expand(3, 9), positions)
    torch.testing.assert_close(per_row, error.square().mean())
    torch.testing.assert_close(model.loss(y0, ts, positions), per_row)
    metrics = model.metrics(y0, ts, positions)
    assert list(metrics) == ["rmse"]
    torch.testing.assert_close(metrics["rmse"], error.square().mean().sqrt().detach())
    assert not metrics["rmse"].requires_grad


def test_a_velocity_may_be_kept_from_learning():
    fixed = nn.Parameter(torch.zeros(2), requires_grad=False)
    assert SecondOrder(Oscillator(), fixed).velocity is fixed
    start = torch.zeros(2)
    model = SecondOrder(Oscillator(), start)
    with torch.no_grad():
        model.velocity.add_(1)
    assert not start.any()


def test_the_state_serves_symplectic_methods():
    """Positions and then velocities is what they take: a spring's energy stays."""

    class Spring(nn.Module):
        def forward(self, t, y, v):
            return -4 * y

    model = SecondOrder(Spring(), torch.zeros(1), method="leapfrog")
    ys = model.solve(torch.ones(1, 1), torch.linspace(0, 60, 1001)).ys[:, 0]
    energy = (4 * ys[:, 0] ** 2 + ys[:, 1] ** 2) / 4
    assert (energy - 1).abs().max() < 5e-3


def test_models_are_copied_and_restored(start):
    y0, ts = start
    make = [SecondOrder(MLPAcceleration(2, hidden=(4,)), nn.Linear(2, 2)) for _ in range(2)]
    model, other = make
    twin = copy.deepcopy(model)
    other.load_state_dict(model.state_dict())
    expected = model(y0, ts)
    assert torch.equal(twin(y0, ts), expected)
    assert torch.equal(other(y0, ts), expected)


def test_mlp_acceleration_is_a_network_of_both_halves_and_time():
    acceleration = MLPAcceleration(3, hidden=(5,), activation="silu", time_dependent=True)
    y, v = torch.randn(4, 3), torch.randn(4, 3)
    first, second = acceleration.network.layers
    inner = first(torch.cat([y, v, torch.full((4, 1), 0.5)], -1))
    torch.testing.assert_close(acceleration(0.5, y, v), second(inner * inner.sigmoid()))
    assert second.out_features == 3


def test_what_is_no_second_order_model_is_refused(start):
    _, ts = start
    with pytest.raises(InputError, match="acceleration is a function"):
        SecondOrderField(lambda t, y, v: -y)
    with pytest.raises(InputError, match="velocity is a float"):
        SecondOrder(Oscillator(), 0.0)
    with pytest.raises(InputError, match="as many velocities"):
        odeum.solve(SecondOrderField(Oscillator()), torch.ones(2, 3), ts)
