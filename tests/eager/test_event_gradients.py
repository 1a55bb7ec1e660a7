"""Gradients through events: of their times, their states and what comes after them."""

import math

import pytest
import torch
from problems import rotation

import odeum
from odeum import Event, StepOptions

G = 9.81
GRADIENTS = ["discrete", "autograd"]
TIGHT = {"rtol": 1e-9, "atol": 1e-11}


def ball(t, y, args):
    return torch.stack([y[:, 1], -args["g"] - args["drag"] * y[:, 1]], -1)


def bounce(args):
    """A floor at ``args["floor"]``, which only the event knows; a jump that only it knows."""
    return Event(
        lambda t, y: y[:, 0] - args["floor"],
        direction=-1,
        jump=lambda t, y: torch.stack([y[:, 0], -args["restitution"] * y[:, 1]], -1),
    )


@pytest.mark.sweep(2)
@pytest.mark.parametrize(
    ("method", "gradient"),
    [
        ("tsit5", "discrete"),
        ("tsit5", "autograd"),
        ("vern7", "discrete"),
        ("rk4", "autograd"),
        ("rodas5p", "discrete"),
        ("gauss4", "discrete"),
    ],
)
def test_bouncing_ball_against_finite_differences(method, gradient):
    explicit = method in ("tsit5", "vern7")
    options = {"rtol": 1e-7, "atol": 1e-9} if explicit else {"step": StepOptions(fixed=0.3)}

    def solved(y0, ts, g, drag, floor, restitution):
        args = {"g": g, "drag": drag, "floor": floor, "restitution": restitution}
        sol = odeum.solve(
            ball, y0, ts, args, events=bounce(args), method=method, gradient=gradient, **options
        )
        record = sol.events[0]
        assert record.count.tolist() == [2, 1]
        return sol.ys, record.times[0], record.times[1, :1], record.states[0]

    inputs = [
        torch.tensor([[1.0, 0.0], [2.2, 0.5]]),
        torch.tensor([0.05, 0.3, 0.7, 1.1]),
        torch.tensor(G),
        torch.tensor(0.1),
        torch.tensor(0.05),
        torch.tensor([0.7]),
    ]
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(solved, inputs, eps=1e-5, atol=1e-4, rtol=1e-4, fast_mode=True)


def test_no_gradient_is_none_through_events():
    y0 = torch.tensor([[1.0, 0.0]], requires_grad=True)
    args = {"g": G, "drag": 0.0, "floor": 0.0, "restitution": 0.5}

    def field(t, y):
        return ball(t, y, {"g": torch.tensor(G), "drag": 0.0})

    ts = torch.tensor([0.0, 1.0])
    sol = odeum.solve(field, y0, ts, events=bounce(args), breaks=[0.1], gradient="none")
    assert not sol.ys.requires_grad
    assert not sol.events[0].times.requires_grad


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_fall_in_closed_form(gradient):
    """``t = t0 + sqrt(2 (h - floor) / g)``, of a height, a start, a floor, a field."""
    height = torch.tensor([1.0, 3.0], requires_grad=True)
    ts = torch.tensor([0.5, 4.0], requires_grad=True)
    g = torch.tensor(G, requires_grad=True)
    floor = torch.tensor(0.2, requires_grad=True)
    y0 = torch.stack([height, torch.zeros(2)], -1)
    sol = odeum.solve(
        lambda t, y, g: torch.stack([y[:, 1], -g.expand(len(y))], -1),
        y0,
        ts,
        g,
        events=Event(lambda t, y: y[:, 0] - floor),
        gradient=gradient,
        **TIGHT,
    )
    leaves = (height, ts, g, floor)
    exact = ts[0] + torch.sqrt(2 * (height - floor) / g)
    speed = -torch.sqrt(2 * (height - floor) * g)
    weights = torch.tensor([1.0, 2.0])
    for found, wanted in ((sol.events[0].time, exact), (sol.events[0].state[:, 1], speed)):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=0)
        given = torch.autograd.grad((weights * found).sum(), leaves, retain_graph=True)
        expected = torch.autograd.grad(
            (weights * wanted).sum(), leaves, retain_graph=True, materialize_grads=True
        )
        for a, b in zip(given, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_parameters_of_modules_in_an_event_and_a_jump_alone(gradient):
    class Level(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.level = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, t, y):
            return y[:, 0] - self.level

    class Scale(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(0.25))

        def forward(self, t, y):
            return self.scale * y

    level, scale = Level(), Scale()
    sol = odeum.solve(
        lambda t, y: y,
        torch.ones(1, 1),
        torch.tensor([0.0, 1.0]),
        events=Event(level, jump=scale),
        gradient=gradient,
        **TIGHT,
    )
    # e^t reaches L at log L, goes on from s L: s L e^(1 - log L) = s e whatever L is.
    assert float(sol.events[0].time.detach()) == pytest.approx(math.log(2))
    by_level, by_scale = torch.autograd.grad(
        sol.ys[-1].sum(), (level.level, scale.scale), retain_graph=True
    )
    assert float(by_level) == pytest.approx(0.0, abs=1e-8)
    assert float(by_scale) == pytest.approx(math.e)
    sol.events[0].time.sum().backward()
    assert float(level.level.grad) == pytest.approx(0.5)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_rows_beside_do_not_enter(gradient):
    """The gradient of a row that bounces is its own, beside rows that stop and rows that fly."""
    y0 = torch.tensor([[1.0, 0.0], [50.0, 0.0], [0.5, 1.0]])
    ts = torch.tensor([0.0, 0.4, 1.0])
    args = {"g": G, "drag": 0.1, "floor": 0.0, "restitution": 0.7}

    def grad(rows):
        start = y0[rows].clone().requires_grad_()
        sol = odeum.solve(ball, start, ts, args, events=bounce(args), gradient=gradient)
        (sol.ys.square().sum() + sol.events[0].time.nan_to_num(0).sum()).backward()
        return start.grad

    together = grad([0, 1, 2])
    for i in range(3):
        torch.testing.assert_close(grad([i]), together[i : i + 1], rtol=1e-9, atol=1e-11)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("kind", ["[dim]", "tuple", "joint", "decreasing", "dense"])
def test_states_and_couplings(gradient, kind):
    """sin from a phase: the time of its zero moves against the phase."""
    phase = torch.tensor(0.3, requires_grad=True)
    y0, ts = torch.stack([torch.sin(phase), torch.cos(phase)]), torch.tensor([0.0, 5.0])
    event = Event(lambda t, y: y[..., 0])
    options = {"gradient": gradient, "events": event, **TIGHT}
    if kind == "[dim]":
        time = odeum.solve(rotation, y0, ts, **options).events[0].time
    elif kind == "tuple":
        options["events"] = Event(lambda t, s: s[0][:, 0])
        state = (y0[None, :1], y0[None, 1:])
        time = odeum.solve(lambda t, s: (s[1], -s[0]), state, ts, **options).events[0].time
    elif kind == "joint":
        options["events"] = Event(lambda t, y: y[0, 0])
        both = torch.stack([y0, y0])
        time = odeum.solve(rotation, both, ts, coupling="joint", **options).events[0].time[0]
    elif kind == "decreasing":
        time = odeum.solve(rotation, y0[None], -ts, **options).events[0].time + math.pi
    else:
        jump = Event(lambda t, y: y[..., 0], jump=lambda t, y: -y)
        options["events"] = jump
        sol = odeum.solve(rotation, y0[None], ts, dense=True, **options)
        # |sin(t + phase)|, inside the second arc.
        torch.testing.assert_close(sol(4.0)[0, 0], torch.sin(4.0 + phase).abs(), rtol=1e-7, atol=0)
        (by_phase,) = torch.autograd.grad(sol(4.0)[0, 0], phase, retain_graph=True)
        assert float(by_phase) == pytest.approx(-math.cos(4.3), rel=1e-6)
        time = sol.events[0].time
    assert float(time.detach()) == pytest.approx(math.pi - 0.3, abs=1e-8)
    time.sum().backward()
    assert float(phase.grad) == pytest.approx(-1.0, rel=1e-7)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_tangency_gives_finite_gradients(gradient):
    """A function that touches zero: no derivative of its time, and none is made up."""
    y0 = torch.tensor([[0.0, 1.0]], requires_grad=True)
    sol = odeum.solve(
        rotation,
        y0,
        torch.linspace(0, 3, 4),
        events=Event(lambda t, y: -((t - 1.0)[:, 0] ** 3), terminal=False),
        gradient=gradient,
    )
    record = sol.events[0]
    assert record.count.tolist() == [1]
    (sol.ys.sum() + record.time.sum() + record.state.sum()).backward()
    assert y0.grad.isfinite().all()


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_float32(gradient):
    height = torch.tensor([1.0, 3.0], dtype=torch.float32, requires_grad=True)
    y0 = torch.stack([height, torch.zeros_like(height)], -1)
    ts = torch.tensor([0.0, 2.0], dtype=torch.float32)
    sol = odeum.solve(
        lambda t, y: torch.stack([y[:, 1], torch.full_like(y[:, 1], -G)], -1),
        y0,
        ts,
        events=Event(lambda t, y: y[:, 0]),
        gradient=gradient,
        rtol=1e-5,
    )
    sol.events[0].time.sum().backward()
    expected = 1 / torch.sqrt(2 * G * height.detach())
    torch.testing.assert_close(height.grad, expected, rtol=1e-4, atol=0)


def test_the_gradients_agree():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))

    def grads(gradient):
        net.zero_grad()
        sol = odeum.solve(
            lambda t, y: net(y) + torch.stack([y[:, 1], -4 * y[:, 0]], -1),
            torch.tensor([[1.0, 0.0], [0.3, 2.0], [0.0, -1.0]]),
            torch.linspace(0, 3, 5),
            events=[
                Event(lambda t, y: y[:, 0], jump=lambda t, y: 0.9 * y),
                Event(lambda t, y: y[:, 1], terminal=False),
            ],
            gradient=gradient,
            breaks=[0.5, 2.0],
        )
        times = torch.cat([record.times.nan_to_num(0).flatten() for record in sol.events])
        (sol.ys.square().sum() + times.square().sum()).backward()
        return [p.grad.clone() for p in net.parameters()]

    for a, b in zip(grads("discrete"), grads("autograd"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("gradient", ["discrete", "autograd", "adjoint", "reversible"])
def test_a_field_that_no_state_enters(gradient):
    """``y = y0 + t - t0``: what an event weighs of the field leads to no gradient."""
    y0 = torch.tensor([[0.0], [0.2]], requires_grad=True)
    ts = torch.tensor([0.0, 0.25, 1.0], requires_grad=True)
    sol = odeum.solve(
        lambda t, y: torch.ones_like(y),
        y0,
        ts,
        events=Event(lambda t, y: y[:, 0] - 0.5),
        gradient=gradient,
    )
    (sol.ys[:2].sum() + 3 * sol.events[0].time.sum()).backward()
    torch.testing.assert_close(y0.grad, torch.full((2, 1), 2.0 - 3.0))
    torch.testing.assert_close(
        ts.grad, torch.tensor([2 * (3.0 - 1.0), 2.0, 0.0]), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("gradient", ["discrete", "autograd", "forward", "reversible"])
def test_an_event_inside_a_step_cut_to_land_on_the_last_output(gradient):
    """The step's size comes from that output: the error of the method moves with it."""

    def solved(ts, gradient):
        sol = odeum.solve(
            lambda t, y: torch.stack([y[:, 1], -G - y[:, 1] + torch.sin(3 * t[:, 0])], -1),
            torch.tensor([[1.0, 0.0]]),
            ts,
            events=Event(
                lambda t, y: y[:, 0],
                direction=-1,
                jump=lambda t, y: torch.stack([y[:, 0], -0.8 * y[:, 1]], -1),
            ),
            method="rk4",
            step=StepOptions(fixed=0.3),
            gradient=gradient,
        )
        assert int(sol.events[0].count) == 1
        return sol.ys[-1].sum() + sol.events[0].time.sum()

    ts = torch.tensor([0.0, 0.3, 0.6], requires_grad=True)
    (found,) = torch.autograd.grad(solved(ts, gradient), ts)
    moves = 1e-5 * torch.eye(3)
    if gradient != "reversible":
        gradient = "none"
    ends = [[solved(ts.detach() + sign * move, gradient) for move in moves] for sign in (1, -1)]
    differences = [float(up - down) / 2e-5 for up, down in zip(*ends, strict=True)]
    torch.testing.assert_close(found, torch.tensor(differences), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_jump_of_a_joint_batch(gradient):
    """``y = y0 exp(-t)``; where y[0, 0] is a half, all rows double their first number."""
    y0 = torch.tensor([[1.0, 0.1], [0.5, 1.0], [0.3, 0.2]], requires_grad=True)
    ts = torch.tensor([0.0, 0.3, 1.0])
    times = torch.tensor([2.0, 1.0])
    sol = odeum.solve(
        lambda t, y: -y,
        y0,
        ts,
        coupling="joint",
        events=Event(lambda t, y: y[0, 0] - 0.5, direction=-1, jump=lambda t, y: times * y),
        integrals={"slope": lambda field, t, y, f: (f**2).sum(-1)},
        gradient=gradient,
        **TIGHT,
    )
    at = torch.log(2 * y0[0, 0])
    end = times * y0 * math.exp(-1)
    before, after = 1 - torch.exp(-2 * at), torch.exp(-2 * at) - math.exp(-2)
    slope = (y0**2 * before + (times * y0) ** 2 * after).sum(-1) / 2
    weights = torch.tensor([1.0, 2.0, 3.0])
    for found, wanted in (
        (sol.events[0].time, at.expand(3)),
        (sol.ys[-1].sum(-1), end.sum(-1)),
        (sol.integrals["slope"][-1], slope),
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=0)
        given, expected = (
            torch.autograd.grad((weights * x).sum(), y0, retain_graph=True)[0]
            for x in (found, wanted)
        )
        # To the accuracy of the slope of the dense output, which an event moves along.
        torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-9)
