"""Second derivatives of a solve: against finite differences, closed forms and backpropagation."""

import pytest
import torch

import odeum
from odeum.gradient import Discrete

STEP = {"step": odeum.StepOptions(fixed=0.35)}
"""No step ends where an output is asked for: there gradients of times have kinks."""


def field(t, y, args):
    scale, shift, weight = args
    return torch.tanh(y @ weight) * scale + torch.sin(shift * t) * y


def inputs():
    torch.manual_seed(3)
    y0 = torch.randn(2, 2, requires_grad=True)
    ts = torch.tensor([0.3, 0.5, 0.9]).requires_grad_()
    scale = torch.tensor(0.7, requires_grad=True)
    shift = torch.randn(2, 1, requires_grad=True)
    weight = torch.randn(2, 2, requires_grad=True)
    return y0, ts, scale, shift, weight


def solver(**options):
    def solve(y0, ts, scale, shift, weight):
        args = (scale, odeum.per_row(shift), weight)
        return odeum.solve(field, y0, ts, args, **options).ys

    return solve


@pytest.mark.sweep(3)
@pytest.mark.parametrize(
    ("method", "gradient"),
    [
        *((m, "discrete") for m in ("rk4", "tsit5", "trapezoid", "radau5", "rodas4")),
        *((m, "autograd") for m in ("tsit5", "radau5", "rodas4")),
    ],
)
def test_gradgradcheck(method, gradient):
    solve = solver(method=method, gradient=gradient, **STEP)
    assert torch.autograd.gradgradcheck(solve, inputs(), fast_mode=True)


def second(gradient, **options):
    """A Hessian-vector product."""
    given = inputs()
    loss = solver(gradient=gradient, **options)(*given).square().sum()
    first = torch.autograd.grad(loss, given, create_graph=True)
    torch.manual_seed(4)
    along = sum((g * torch.randn_like(g)).sum() for g in first)
    return torch.autograd.grad(along, given)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "dopri5"},
        {"method": "bosh3", "rtol": 1e-2},
        {"method": "euler"},
        {"method": "radau5", **STEP},
    ],
    ids=lambda options: options["method"],
)
def test_discrete_equals_autograd(options):
    wanted = second("autograd", **options)
    for gradient in ("discrete", Discrete(3)):
        for a, b in zip(second(gradient, **options), wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11 * float(b.abs().max()))


def test_dense_output():
    def found(gradient):
        y0 = torch.tensor([[0.5], [1.0]], requires_grad=True)
        rate = torch.tensor(1.3, requires_grad=True)
        sol = odeum.solve(
            lambda t, y, rate: torch.sin(rate * y) * torch.cos(t),
            y0,
            torch.tensor([0.0, 2.0]),
            rate,
            dense=True,
            gradient=gradient,
        )
        loss = (sol(torch.tensor([0.4, 1.1])) ** 3).sum()
        first = torch.autograd.grad(loss, (y0, rate), create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), (y0, rate))

    for a, b in zip(found("discrete"), found("autograd"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_hessian_of_a_solution_known_in_closed_form():
    """y(1) = y0 exp(rate): second derivatives are the same exponential."""
    y0 = torch.tensor([[1.5]], requires_grad=True)
    rate = torch.tensor(0.7, requires_grad=True)
    how = {"rtol": 1e-10, "atol": 1e-10}
    y1 = odeum.solve(lambda t, y: rate * y, y0, torch.tensor([0.0, 1.0]), **how).ys[-1].sum()
    (by_rate,) = torch.autograd.grad(y1, rate, create_graph=True)
    twice, mixed = torch.autograd.grad(by_rate, (rate, y0))
    grown = torch.exp(rate.detach())
    torch.testing.assert_close(twice, 1.5 * grown, rtol=1e-8, atol=0)
    torch.testing.assert_close(mixed, grown.view(1, 1), rtol=1e-8, atol=0)


def test_inputs_that_share_their_history():
    """A weight that the field reads and the initial state comes from: y = w exp(w t)."""
    w = torch.tensor(0.6, requires_grad=True)
    ts, how = torch.tensor([0.0, 1.0]), {"rtol": 1e-10, "atol": 1e-10}
    y1 = odeum.solve(lambda t, y: w * y, w.view(1, 1), ts, **how).ys[-1].sum()
    (first,) = torch.autograd.grad(y1, w, create_graph=True)
    (twice,) = torch.autograd.grad(first, w)
    x = w.detach()
    torch.testing.assert_close(first.detach(), (1 + x) * torch.exp(x), rtol=1e-8, atol=0)
    torch.testing.assert_close(twice, (2 + x) * torch.exp(x), rtol=1e-8, atol=0)


def test_a_gradient_penalty_is_trained_through():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    y0, ts = torch.randn(4, 2, requires_grad=True), torch.tensor([0.0, 1.0])
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    penalties = []
    for _ in range(6):
        ys = odeum.solve(lambda t, y: net(y), y0, ts, rtol=1e-3).ys[-1]
        (g,) = torch.autograd.grad(ys.square().sum(), y0, create_graph=True)
        penalties.append(penalty := g.square().sum())
        optimiser.zero_grad()
        penalty.backward(inputs=list(net.parameters()))
        optimiser.step()
    assert penalties[-1].item() < penalties[0].item()


def test_through_breaks():
    y0 = torch.tensor([[1.0], [0.4]], requires_grad=True)
    rate = torch.tensor(2.0, requires_grad=True)

    def solve(y0, rate):
        return odeum.solve(
            lambda t, y, rate: torch.sin(rate * t) * y - (t > 0.5) * y**2,
            y0,
            torch.tensor([0.0, 0.3, 0.9]),
            rate,
            breaks=[0.5],
            method="rk4",
            step=odeum.StepOptions(fixed=0.1),
        ).ys

    assert torch.autograd.gradgradcheck(solve, (y0, rate), fast_mode=True)


@pytest.mark.parametrize("gradient", ["discrete", "autograd"])
def test_event_times_have_first_derivatives_only(gradient):
    y0 = torch.tensor([[1.0, 0.3]], requires_grad=True)
    fall = odeum.Event(lambda t, y: y[..., 0], direction=-1, jump=lambda t, y: -y)
    sol = odeum.solve(
        lambda t, y: torch.stack([y[:, 1], -9.8 * torch.ones(len(y))], -1),
        y0,
        torch.tensor([0.0, 0.9]),
        events=fall,
        gradient=gradient,
    )
    loss = sol.ys[-1].square().sum()
    assert torch.autograd.grad(loss, y0, retain_graph=True)[0].isfinite().all()
    with pytest.raises(odeum.InputError, match="no second derivatives through the times"):
        torch.autograd.grad(loss, y0, create_graph=True)


def test_third_derivatives_are_for_autograd():
    y0 = torch.ones(1, 1, requires_grad=True)
    y1 = odeum.solve(lambda t, y: -(y**3), y0, torch.tensor([0.0, 1.0])).ys[-1].sum()
    (first,) = torch.autograd.grad(y1, y0, create_graph=True)
    with pytest.raises(odeum.InputError, match="autograd"):
        torch.autograd.grad(first.sum(), y0, create_graph=True)
