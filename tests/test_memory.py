"""Peak memory where it can be counted by hand."""

import pytest
import torch

import odeum
from odeum.memory import PeakMemory

SIZE = 1000
STATE = 8 * SIZE


def test_a_chain_of_operations_that_autograd_remembers():
    n = 10
    with PeakMemory() as memory:
        y = y0 = torch.ones(SIZE, requires_grad=True)
        for _ in range(n):
            y = y.sin()
        (grad,) = torch.autograd.grad(y.sum(), y0)
    # y0 to y10; the first backward step makes a cosine and a product; and two scalars.
    assert memory.peak == (n + 3) * STATE + 2 * 8
    del y
    assert memory.n_bytes == 2 * STATE
    assert grad.shape == y0.shape


def test_views_and_operations_in_place_cost_nothing():
    before = torch.ones(SIZE)
    with PeakMemory() as memory:
        view = before.view(10, -1).t()[3:]
        before += 1
        before.mul_(2).sqrt_()
        torch.sin(before, out=before)
    assert memory.peak == memory.n_bytes == 0
    assert len(view)


def test_what_was_there_before_does_not_count_even_when_it_goes():
    before = torch.ones(SIZE)
    with PeakMemory() as memory:
        after = before + 1
        del before
    assert memory.peak == memory.n_bytes == STATE
    assert len(after)


def by_hand(y, n_steps):
    """The classical method for ``y' = sin(cos(y))``, from 0 to 1."""
    h = 1 / n_steps
    for _ in range(n_steps):
        k1 = y.cos().sin()
        k2 = (y + h / 2 * k1).cos().sin()
        k3 = (y + h / 2 * k2).cos().sin()
        k4 = (y + h * k3).cos().sin()
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y


def by_odeum(gradient):
    def solve(y, n_steps):
        ts, step = torch.tensor([0.0, 1.0]), odeum.StepOptions(fixed=1 / n_steps)
        options = {"method": "rk4", "step": step, "gradient": gradient}
        return odeum.solve(lambda t, y: y.cos().sin(), y, ts, **options).ys[-1]

    return solve


def growth(solve):
    """States that peak memory grows by with a step."""
    peaks = []
    for n_steps in (32, 64):
        with PeakMemory() as memory:
            y0 = torch.ones(1, SIZE, requires_grad=True)
            torch.autograd.grad(solve(y0, n_steps).sum(), y0)
        peaks.append(memory.peak)
    return (peaks[1] - peaks[0]) / 32 / STATE


def test_a_loop_by_hand_grows_by_what_its_stages_save():
    # Each of four stages saves what it takes the cosine and the sine of.
    assert growth(by_hand) == 8


def test_autograd_grows_by_all_stages():
    assert growth(by_odeum("autograd")) >= 8


def test_discrete_grows_by_one_state_a_step_beyond_its_room(monkeypatch):
    monkeypatch.setattr("odeum.gradient.tape.ROOM_BYTES", 0)
    monkeypatch.setattr("odeum.eager.outputs.FLUSH_BYTES", 0)
    assert growth(by_odeum("discrete")) == pytest.approx(1, abs=0.1)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_tangents_that_are_zero_have_no_storage():
    y, h, tangents = torch.randn(2, 2), torch.rand(2, 1), torch.randn(3, 2, 2)

    def pushed(v):
        return torch.func.jvp(lambda y: torch.addcmul(y, h, y**3, value=0.5), (y,), (v,))[1]

    with PeakMemory():
        found = torch.func.vmap(pushed)(tangents)
    torch.testing.assert_close(found, tangents * (1 + 1.5 * h * y**2))
