"""Methods of torchdiffeq's later versions, with the coefficients it means."""

import pytest
import torch
from peers import IMPLICIT, ours, swing, theirs, truth

ORDERS = {
    "implicit_euler": 1, "implicit_midpoint": 2, "trapezoid": 2, "sdirk2": 2, "trbdf2": 2,
    "radauIIA3": 3, "radauIIA5": 5, "gl4": 4, "gl6": 6,
}  # fmt: skip


@pytest.mark.sweep(2)
@pytest.mark.parametrize("method", IMPLICIT)
def test_implicit_methods_have_their_order(method):
    y0, ends = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    exact = truth(y0=y0, t=ends)[-1]
    errors = []
    for n in (16, 32):
        y = ours.odeint(swing, y0, ends, method=method, options={"step_size": 2.0 / n})[-1]
        errors.append((y - exact).abs().max())
    assert torch.log2(errors[0] / errors[1]).item() == pytest.approx(ORDERS[method], abs=0.35)


def test_a_stiff_problem_takes_large_implicit_steps():
    y = ours.odeint(
        lambda t, y: -1e6 * (y - torch.cos(t)), torch.ones(1), torch.tensor([0.0, 2.0]),
        method="radauIIA5", options={"step_size": 0.1},
    )  # fmt: skip
    assert abs(float(y[-1]) - float(torch.cos(torch.tensor(2.0)))) < 1e-6


def test_gradients_flow_through_implicit_steps():
    y0 = torch.tensor([1.0, 0.0], requires_grad=True)
    t = torch.tensor([0.0, 1.0])
    y = ours.odeint(swing, y0, t, method="gl6", options={"step_size": 0.05})[-1]
    wanted = theirs.odeint(swing, y0, t, rtol=1e-11, atol=1e-12)[-1]
    (g,), (g_wanted,) = (torch.autograd.grad(x.sum(), y0) for x in (y, wanted))
    assert torch.allclose(g, g_wanted, rtol=1e-7, atol=1e-8)


def test_tsit5_has_order_five():
    y0, ends = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    exact = truth(y0=y0, t=ends)[-1]
    errors = []
    for n in (16, 32):
        # Any error is accepted, so that steps are of one size.
        options = {"first_step": 2.0 / n, "max_step": 2.0 / n}
        y = ours.odeint(
            swing, y0, ends, method="tsit5", rtol=1e3, atol=1e3, options=options
        )[-1]  # fmt: skip
        errors.append((y - exact).abs().max())
    assert torch.log2(errors[0] / errors[1]).item() == pytest.approx(5, abs=0.35)
