"""What the adjoint over the stored solution does that the adjoint beside it does not."""

import pytest
import torch
from torch import nn

import odeum
from odeum.eager.outputs import Interpolant, Segments
from odeum.gradient.interpolated import Past


def test_stored_states_are_those_of_the_dense_output():
    """Rows in any order, several at one time, solved by two methods in turn."""
    torch.manual_seed(0)
    y0 = torch.tensor([[2.0, 0.0], [0.5, 0.1], [1.0, 1.0]])
    ts = torch.tensor([[0.0, 8.0, 1.0], [12.0, 0.0, 2.5]])
    kept: list[Segments] = []

    def gradient(problem):
        outcome = problem.solve()
        kept.extend(outcome.segments)
        return outcome

    def field(t, y):
        x, v = y.split(1, -1)
        return torch.cat([v, 20 * (1 - x * x) * v - x], -1)

    y0.requires_grad_()
    with torch.no_grad():
        odeum.solve(field, y0, ts, method="auto", dense=True, gradient=gradient)
    assert len(kept) == 2
    direction = torch.tensor([[1.0], [-1.0], [1.0]])
    past, interpolant = (kind(kept, direction, y0.detach()) for kind in (Past, Interpolant))
    for part in torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.3, 0.99], [1.0, 1.0, 1.0]]):
        t = ts[0] + (ts[1] - ts[0]) * part
        rows = torch.tensor([2, 0, 1, 0])
        torch.testing.assert_close(
            past(rows, t[rows].unsqueeze(-1)), interpolant(t[None])[0, rows], rtol=1e-11, atol=1e-11
        )


def test_where_the_state_cannot_be_solved_backwards():
    """``y' = -60 (y - cos t)``: errors of y grow by exp(60 t) backwards."""
    ts = torch.linspace(0, 2, 3)
    y0 = torch.tensor([[2.0], [-1.0]], requires_grad=True)
    rate = torch.tensor(60.0, requires_grad=True)

    def exact(t):
        forced = (rate**2 * torch.cos(t) + rate * torch.sin(t)) / (1 + rate**2)
        return forced + (y0[:, 0] - rate**2 / (1 + rate**2)) * torch.exp(-rate * t)

    wanted = torch.autograd.grad(sum(exact(t).square().sum() for t in ts[1:]), (y0, rate))

    def grads(method, gradient):
        ys = odeum.solve(
            lambda t, y, rate: rate * (torch.cos(t) - y),
            y0,
            ts,
            rate,
            method=method,
            gradient=gradient,
            rtol=1e-8,
            atol=1e-8,
        ).ys
        return torch.autograd.grad(ys[1:].square().sum(), (y0, rate))

    for method in ("tsit5", "rodas5p"):
        # The sensitivity is some 1e-4 of what the tolerance measures.
        torch.testing.assert_close(grads(method, "interpolated"), wanted, rtol=1e-4, atol=1e-8)


def test_where_the_state_blows_up_backwards():
    """Any error of ``y' = -50 (y - cos t) (1 + y^2)`` is infinite after a short while."""
    ts, rate = torch.tensor([0.0, 1.6]), torch.tensor(50.0, requires_grad=True)

    def loss(rate, gradient, tolerance=1e-6, method="rodas5p"):
        how = {"gradient": gradient, "rtol": tolerance, "atol": tolerance}
        field = lambda t, y, rate: -rate * (y - torch.cos(t)) * (1 + y * y)  # noqa: E731
        return 1e3 * odeum.solve(field, torch.ones(1, 1), ts, rate, method=method, **how).ys[-1]

    (found,) = torch.autograd.grad(loss(rate, "interpolated"), rate)
    ahead, behind = (loss(rate.detach() + h, "none", 1e-10, "dopri8") for h in (0.5, -0.5))
    # The sensitivity is some 1e-4 of what the tolerance measures.
    assert float(found) == pytest.approx(float(ahead - behind), rel=1e-3)
    with pytest.raises(odeum.SolveError, match="harder backwards"):
        loss(rate, odeum.gradient.Adjoint(method="dopri8")).backward()


def van_der_pol(t, y, mu):
    x, v = y.split(1, -1)
    return torch.cat([v, mu * (1 - x * x) * v - x], -1)


def van_der_pol_jacobian(t, y, mu):
    x, v = y.unbind(-1)
    rows = (torch.zeros_like(x), torch.ones_like(x)), (-2 * mu * x * v - 1, mu * (1 - x * x))
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


@pytest.mark.parametrize("jacobian", [None, van_der_pol_jacobian], ids=["by autograd", "given"])
def test_a_stiff_system(jacobian):
    """Van der Pol's oscillator, mu = 100, along a slow branch, against central differences."""
    ts = torch.tensor([0.0, 4.0, 10.0])
    mu = torch.tensor(100.0, requires_grad=True)
    y0 = torch.tensor([[2.0, 0.0], [-1.8, 0.1]])
    method = odeum.methods.get("rodas5p", jacobian=jacobian)

    def loss(mu, gradient, tolerance):
        how = {"method": method, "rtol": tolerance, "atol": tolerance, "gradient": gradient}
        ys = odeum.solve(van_der_pol, y0, ts, mu, **how).ys
        return ys[..., 0].sum() * 1e4

    (found,) = torch.autograd.grad(loss(mu, "interpolated", 1e-7), mu)
    ahead, behind = (loss(mu.detach() + h, "none", 1e-11) for h in (0.1, -0.1))
    assert float(found) == pytest.approx(float((ahead - behind) / 0.2), rel=1e-5)


def test_after_a_symplectic_method():
    """A Hamiltonian network: its own method forwards, another one for the adjoint."""
    torch.manual_seed(0)
    potential = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    ts = torch.linspace(0, 1, 101)
    q0 = torch.tensor([[0.5], [-0.3]], requires_grad=True)

    def field(t, state):
        q, p = state
        with torch.enable_grad():
            q = q if q.requires_grad else q.detach().requires_grad_()
            force = -torch.autograd.grad(potential(q).sum(), q, create_graph=True)[0]
        return p, force

    def grads(method, gradient):
        q, _ = odeum.solve(
            field,
            (q0, torch.zeros(2, 1)),
            ts,
            method=method,
            gradient=gradient,
            rtol=1e-9,
            atol=1e-9,
        ).ys
        inputs = [q0, *(p for name, p in potential.named_parameters() if name != "2.bias")]
        return torch.autograd.grad(q[::20].square().sum(), inputs)

    wanted = grads("dopri8", "discrete")
    for a, b in zip(grads("yoshida4", "interpolated"), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    with pytest.raises(odeum.InputError, match="symplectic"):
        odeum.gradient.Interpolated(method="leapfrog")


def test_options_of_the_backward_solve():
    ts = torch.tensor([0.0, 2.0])
    rate = torch.tensor(0.7, requires_grad=True)

    def solved(gradient):
        sol = odeum.solve(
            lambda t, y: -rate * y, torch.ones(1, 1), ts, gradient=gradient, rtol=1e-9, atol=1e-9
        )
        (grad,) = torch.autograd.grad(sol.ys[-1].sum(), rate)
        return float(grad), int(sol.stats.backward.n_accepted), sol.ys

    fine, n_fine, ys = solved("interpolated")
    coarse, n_coarse, same = solved(odeum.gradient.Interpolated(rtol=1e-3, atol=1e-3))
    other, n_other, _ = solved(odeum.gradient.Interpolated(method="dopri8"))
    exact = -2 * float(torch.exp(-2 * rate.detach()))
    assert torch.equal(ys, same)
    assert n_coarse < n_fine > n_other
    assert fine == pytest.approx(exact, rel=1e-8) == other
    assert coarse == pytest.approx(exact, rel=1e-2)
    with pytest.raises(odeum.InputError, match="Interpolated\\(atol=-1"):
        odeum.gradient.Interpolated(atol=-1)
