"""``odeint_dense``: the solution as a function of time."""

import pytest
import torch
from peers import ours, start, swing, theirs, truth
from torch.testing import assert_close

T0, T1 = torch.tensor(0.2, dtype=torch.float64), torch.tensor(1.9, dtype=torch.float64)


def test_it_is_the_solution_at_any_time():
    mine = ours.odeint_dense(swing, start(), T0, T1)
    wanted = theirs.odeint_dense(swing, start(), T0, T1)
    times = torch.linspace(0.2, 1.9, 18)
    exact = truth(t=times)
    for t, y in zip(times[:-1], exact[:-1], strict=True):
        assert mine(t).shape == (3, 2)
        assert_close(mine(t), wanted(t), rtol=1e-6, atol=1e-6)
        assert_close(mine(t), y, rtol=1e-6, atol=1e-6)


def test_several_times_may_be_asked_for_at_once():
    times = torch.linspace(0.2, 1.9, 7)
    found = ours.odeint_dense(swing, start(), T0, T1)(times)
    assert found.shape == (7, 3, 2)
    assert_close(found, theirs.odeint(swing, start(), times), rtol=1e-6, atol=1e-6)


def test_it_goes_back_in_time_and_takes_tuples_and_other_methods():
    y0 = (torch.ones(2), torch.tensor(1 + 1j))
    found = ours.odeint_dense(lambda t, y: (-y[0], 1j * y[1]), y0, T1, T0, method="dopri8")
    y = found(torch.tensor(1.0))
    assert_close(y[0].real, torch.exp(torch.tensor(0.9)).expand(2), rtol=1e-6, atol=0)
    assert_close(y[1], (1 + 1j) * torch.exp(torch.tensor(-0.9j)), rtol=1e-6, atol=0)


def test_it_is_differentiable():
    y0 = start().requires_grad_()
    t = torch.tensor(1.0, requires_grad=True)
    y = ours.odeint_dense(swing, y0, T0, T1)(t)
    (slope,) = torch.autograd.grad(y[0, 0], t, retain_graph=True)
    assert_close(slope, y[0, 1], rtol=1e-4, atol=1e-5)
    (g,) = torch.autograd.grad(y.sum(), y0)
    wanted = theirs.odeint(swing, y0, torch.stack([T0, t.detach()]), rtol=1e-10, atol=1e-11)[-1]
    assert_close(g, torch.autograd.grad(wanted.sum(), y0)[0], rtol=1e-5, atol=1e-6)


def test_other_times_and_methods_on_a_grid_are_refused():
    found = ours.odeint_dense(swing, start(), T0, T1)
    with pytest.raises(ValueError, match=r"0\.2 to 1\.9"):
        found(torch.tensor(2.5))
    with pytest.raises(ValueError, match="rk4"):
        ours.odeint_dense(swing, start(), T0, T1, method="rk4")
