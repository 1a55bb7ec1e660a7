"""Events: found by sign changes from step to step, their times differentiable."""

import math
from functools import partial

import pytest
import torch
from peers import ours, start, swing, theirs
from torch.testing import assert_close

from odeum import SolveError

GRID = {"method": "rk4", "options": {"step_size": 0.05}}
CUBIC = {"method": "rk4", "options": {"step_size": 0.05, "interp": "cubic"}}
METHODS = [{}, {"method": "dopri8"}, GRID, CUBIC]
TWO = torch.tensor([0.0, 1.0], dtype=torch.float64)


class Fall(torch.nn.Module):
    """A ball under gravity."""

    def __init__(self, gravity=9.8):
        super().__init__()
        self.gravity = torch.nn.Parameter(torch.tensor(gravity))

    def forward(self, t, y):
        return torch.stack([y[1], -self.gravity])


def lands(t, y):
    return y[0]


@pytest.mark.parametrize("kwargs", METHODS, ids=["dopri5", "dopri8", "linear", "cubic"])
def test_an_event_ends_the_solve_wherever_it_comes(kwargs):
    y0 = torch.tensor([40.0, 0.0])
    mine = ours.odeint(Fall(), y0, TWO, event_fn=lands, **kwargs)
    wanted = theirs.odeint(Fall(), y0, TWO, event_fn=lands, **kwargs)
    assert mine[0].shape == ()
    assert mine[1].shape == (2, 2)
    assert_close(mine[0], wanted[0], rtol=1e-8, atol=1e-8)
    assert_close(mine[1], wanted[1], rtol=1e-7, atol=1e-7)
    if kwargs.get("options", {}).get("interp") != "linear" and kwargs is not GRID:
        assert_close(mine[0], torch.tensor(math.sqrt(80 / 9.8)), rtol=1e-8, atol=1e-8)


def test_back_in_time_the_function_is_given_the_time_as_it_is():
    seen = []

    def passes(t, y):
        seen.append(float(t))
        return t + 1.5

    for library in (ours, theirs):
        event_t, _ = library.odeint(swing, start(), TWO.flip(0), event_fn=passes)
        assert_close(event_t, torch.tensor(-1.5), rtol=0, atol=1e-7)
    assert max(seen) <= 1.0


def test_of_several_functions_the_first_zero_counts():
    def either(t, y):
        return torch.stack([1.3 - t, t - 0.8, y[0, 0] + 100])

    for library in (ours, theirs):
        event_t, _ = library.odeint(swing, start(), TWO, event_fn=either)
        assert_close(event_t, torch.tensor(0.8), rtol=0, atol=1e-7)


def test_a_zero_at_the_start_is_the_event():
    mine = ours.odeint(swing, start(), TWO, event_fn=lambda t, y: t)
    wanted = theirs.odeint(swing, start(), TWO, event_fn=lambda t, y: t)
    assert mine[0] == wanted[0] == 0
    assert_close(mine[1], wanted[1])


def test_a_tuple_state_is_given_and_returned_as_one():
    def field(t, y):
        return y[1], -torch.ones(1)

    y0 = (torch.tensor([1.0]), torch.tensor([0.0]))
    event_t, ys = ours.odeint(field, y0, TWO, event_fn=lambda t, y: y[0])
    assert_close(event_t, torch.tensor(math.sqrt(2)), rtol=1e-8, atol=1e-8)
    assert [x.shape for x in ys] == [(2, 1), (2, 1)]


@pytest.mark.parametrize("solver", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("kwargs", [{}, GRID], ids=["dopri5", "rk4"])
def test_gradients_flow_through_the_time_of_an_event(kwargs, solver, reverse):
    found = []
    for library in (ours, theirs):
        field = Fall()
        y0, t0 = torch.tensor([40.0, 3.0], requires_grad=True), torch.tensor(0.3)
        t0.requires_grad_()
        event_t, ys = library.odeint_event(
            field, y0, t0, event_fn=lands, reverse_time=reverse,
            odeint_interface=getattr(library, solver), **kwargs,
        )  # fmt: skip
        inputs = [y0, t0, field.gravity]
        of_time = torch.autograd.grad(event_t, inputs, retain_graph=True)
        of_state = torch.autograd.grad(ys[-1, 1], inputs)
        found.append([event_t, ys, *of_time, *of_state])
    for mine, wanted in zip(*found, strict=True):
        assert_close(mine, wanted, rtol=1e-5, atol=1e-6)


def test_times_and_gradients_are_those_of_the_exact_solution():
    y0 = torch.tensor([4.9, 0.0], requires_grad=True)
    field = Fall()
    event_t, ys = ours.odeint_event(field, y0, torch.tensor(0.0), event_fn=lands)
    assert_close(event_t, torch.tensor(1.0), rtol=1e-8, atol=1e-8)
    height, gravity = torch.autograd.grad(event_t, [y0, field.gravity], retain_graph=True)
    assert_close(height[0], torch.tensor(1 / 9.8), rtol=1e-6, atol=0)  # d sqrt(2h/g) / dh
    assert_close(gravity, torch.tensor(-0.5 / 9.8), rtol=1e-6, atol=0)
    (speed,) = torch.autograd.grad(ys[-1, 1], y0)  # -sqrt(2gh)
    assert_close(speed[0], torch.tensor(-1.0), rtol=1e-6, atol=0)


def test_what_the_event_function_reads_has_a_gradient_too():
    floor = torch.tensor(0.9, requires_grad=True)
    event_t, _ = ours.odeint_event(
        Fall(), torch.tensor([5.8, 0.0]), torch.tensor(0.0), event_fn=lambda t, y: y[0] - floor
    )
    (g,) = torch.autograd.grad(event_t, floor)
    assert_close(event_t.detach(), torch.tensor(1.0), rtol=1e-8, atol=1e-8)
    assert_close(g, torch.tensor(-1 / 9.8), rtol=1e-6, atol=0)


def test_any_function_with_the_same_arguments_may_solve():
    loose = partial(ours.odeint, rtol=1e-4, atol=1e-5)
    event_t, _ = ours.odeint_event(
        Fall(), torch.tensor([4.9, 0.0]), torch.tensor(0.0), event_fn=lands, odeint_interface=loose
    )
    assert_close(event_t.detach(), torch.tensor(1.0), rtol=0, atol=1e-3)


def test_a_ball_bounces():
    for library in (ours, theirs):
        t, y, times = torch.tensor([0.0]), torch.tensor([1.0, 0.0]), []
        for _ in range(4):
            t, ys = library.odeint_event(Fall(), y, t, event_fn=lands)
            times.append(float(t.detach()))
            y = torch.stack([ys[-1, 0].clamp(min=1e-9), -0.8 * ys[-1, 1]])
        fall = math.sqrt(2 / 9.8)
        exact = [fall * (1 + 2 * sum(0.8**k for k in range(1, n + 1))) for n in range(4)]
        assert times == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize("library", [theirs, ours], ids=["theirs", "ours"])
class TestBothLibraries:
    def test_two_times_are_needed(self, library):
        with pytest.raises(ValueError, match=r"2|two"):
            library.odeint(swing, start(), torch.tensor([0.0, 1.0, 2.0]), event_fn=lands)

    def test_a_grid_needs_a_step_size(self, library):
        with pytest.raises(AssertionError, match="step_size"):
            library.odeint(Fall(), torch.ones(2), TWO, event_fn=lands, method="rk4")


def test_on_a_grid_the_search_ends(monkeypatch):
    monkeypatch.setattr("odeum.compat.torchdiffeq.grid.MAX_EVENT_STEPS", 50)
    options = {"step_size": 0.1}
    with pytest.raises(SolveError, match=r"50 steps of 0\.1, up to t = 5"):
        ours.odeint(
            lambda t, y: 0 * y, torch.ones(1), TWO, event_fn=lands, method="euler", options=options
        )


def test_where_steps_adapt_the_search_ends():
    with pytest.raises(SolveError, match="no event came"):
        ours.odeint(lambda t, y: 0 * y, torch.ones(1), TWO, event_fn=lands)
    with pytest.raises(SolveError, match="200 steps"):
        ours.odeint(
            swing, start(), TWO, event_fn=lambda t, y: y[0, 0] + 99, method="dopri5",
            options={"max_num_steps": 200},
        )  # fmt: skip
