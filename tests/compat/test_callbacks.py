"""Functions that a field carries: called at the steps that torchdiffeq calls them at."""

import warnings
from itertools import pairwise

import pytest
import torch
from peers import Swing, ours, start, theirs
from torch.testing import assert_close


class Watched(Swing):
    """Writes down what it is told."""

    def __init__(self, *names):
        super().__init__()
        self.heard = []
        for name in names:
            setattr(self, name, lambda t, y, dt, name=name: self.heard.append((name, t, y, dt)))


# Both libraries say so of the tight default tolerances, and both go on.
pytestmark = pytest.mark.filterwarnings("ignore:.*did not converge")

TIMES = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("method", ["euler", "rk4", "implicit_adams"])
def test_every_step_on_a_grid_is_told(method, reverse):
    heard = []
    for library in (ours, theirs):
        field = Watched("callback_step")
        library.odeint(
            field, start(), TIMES.flip(0) if reverse else TIMES, method=method,
            options={"step_size": 0.3},
        )  # fmt: skip
        heard.append(field.heard)
    assert len(heard[0]) == len(heard[1]) > 3
    for (_, *mine), (_, *wanted) in zip(*heard, strict=True):
        for x, y in zip(mine, wanted, strict=True):
            assert_close(x.detach(), y.detach(), rtol=1e-12, atol=1e-12)


def test_a_tuple_state_is_told_as_one():
    field = Watched("callback_step")
    field.forward = lambda t, y: (-y[0], y[1])
    ours.odeint(field, (torch.ones(2), torch.ones(1)), TIMES, method="euler")
    assert [tuple(x.shape for x in y) for _, _, y, _ in field.heard] == [((2,), (1,))] * 2


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
def test_adaptive_steps_are_tried_and_then_accepted_or_rejected(reverse):
    field = Watched("callback_step", "callback_accept_step", "callback_reject_step")
    t = TIMES.flip(0) if reverse else TIMES
    ours.odeint(field, start(), t, method="dopri5", options={"first_step": 1.9}, rtol=1e-9)
    names = [name for name, *_ in field.heard]
    assert names[0::2] == ["callback_step"] * (len(names) // 2)
    assert names[1] == "callback_reject_step"
    assert "callback_accept_step" in names
    accepted = [(float(t0), float(dt)) for name, t0, _, dt in field.heard if "accept" in name]
    sign = -1 if reverse else 1
    assert all(dt > 0 for _, dt in accepted)
    for (t0, dt), (t1, _) in pairwise(accepted):
        assert t1 == pytest.approx(t0 + sign * dt)
    pairs = zip(field.heard[0::2], field.heard[1::2], strict=True)
    for (_, t0, y, dt), (name, t1, y1, dt1) in pairs:
        assert name != "callback_step"
        assert (float(t0), float(dt)) == (float(t1), float(dt1))
        assert torch.equal(y, y1)


def test_a_callback_that_a_method_does_not_call_is_warned_of():
    for library in (ours, theirs):
        field = Watched("callback_accept_step")
        with pytest.warns(UserWarning, match="callback_accept_step"):
            library.odeint(field, start(), TIMES, method="euler")
        with pytest.warns(UserWarning, match="callback_step"):
            library.odeint(Watched("callback_step"), start(), TIMES[:1], method="scipy_solver")


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_the_backward_solve_has_callbacks_of_its_own(method):
    heard = []
    for library in (ours, theirs):
        field = Watched("callback_step", "callback_step_adjoint")
        y = library.odeint_adjoint(field, start(), TIMES, method=method)
        forward = len(field.heard)
        assert {name for name, *_ in field.heard} == {"callback_step"}
        y.sum().backward()
        heard.append(field.heard[forward:])
        assert {name for name, *_ in heard[-1]} == {"callback_step_adjoint"}
    for (_, t, state, dt), (_, t_wanted, wanted, dt_wanted) in zip(*heard, strict=False):
        if method == "rk4":
            assert_close((t, dt), (t_wanted, dt_wanted))
            assert [x.shape for x in state] == [x.shape for x in wanted]
    if method == "rk4":
        assert len(heard[0]) == len(heard[1])


def test_no_callbacks_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.odeint(Swing(), start(), TIMES, method="rk4")
