"""Options of the methods on a grid: where it lies, and what comes between its points."""

import pytest
import torch
from peers import FIXED, ours, start, swing, theirs
from torch.testing import assert_close

from odeum.compat.torchdiffeq.adams import weights

# Both libraries say so of the tight default tolerances, and both go on.
pytestmark = pytest.mark.filterwarnings("ignore:.*did not converge")

TIMES = torch.tensor([0.0, 0.31, 0.84, 1.0, 1.77], dtype=torch.float64)


def both(*args, **kwargs):
    return ours.odeint(*args, **kwargs), theirs.odeint(*args, **kwargs)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("interp", ["linear", "cubic"])
@pytest.mark.parametrize("method", FIXED)
def test_outputs_between_points_are_interpolated_alike(method, interp, reverse):
    t = TIMES.flip(0) if reverse else TIMES
    options = {"step_size": 0.25, "interp": interp}
    mine, wanted = both(swing, start(), t, method=method, options=options)
    assert_close(mine, wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("step_size", [0.1, 0.5, 5.0, torch.tensor(0.3), 1.77 / 3])
def test_the_grid_of_a_step_size_is_theirs(step_size):
    def times_of(library):
        seen = []
        library.odeint(
            lambda t, y: (seen.append(float(t)), -y)[1],
            torch.ones(1), TIMES, method="euler", options={"step_size": step_size},
        )  # fmt: skip
        return seen

    assert times_of(ours) == pytest.approx(times_of(theirs), abs=1e-15)


@pytest.mark.parametrize("method", ["euler", "rk4", "implicit_adams"])
def test_a_grid_may_be_given_by_a_function(method):
    def geometric(func, y0, t):
        assert func(t[0], y0).shape == y0.shape == (3, 2)
        return t[0] + (t[-1] - t[0]) * torch.linspace(0, 1, 17) ** 2

    options = {"grid_constructor": geometric}
    mine, wanted = both(swing, start(), TIMES, method=method, options=options)
    assert_close(mine, wanted, rtol=1e-13, atol=1e-13)


def test_a_grid_function_is_given_the_times_as_they_are_and_a_tuple_flat():
    def constructor(func, y0, t):
        assert t[0] > t[-1]
        assert y0.shape == (3,)
        return torch.linspace(float(t[0]), float(t[-1]), 9)

    y0 = (torch.ones(2), torch.ones(1))
    mine, wanted = both(
        lambda t, y: (-y[0], y[1]), y0, TIMES.flip(0), method="midpoint",
        options={"grid_constructor": constructor},
    )  # fmt: skip
    assert_close(mine, wanted, rtol=1e-13, atol=1e-13)


def test_a_grid_that_misses_an_end_is_refused():
    options = {"grid_constructor": lambda func, y0, t: t[1:]}
    for library in (ours, theirs):
        with pytest.raises(AssertionError):
            library.odeint(swing, start(), TIMES, method="euler", options=options)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("method", FIXED)
def test_perturbed_steps_see_their_own_side_of_a_jump(method, reverse):
    def jumps(t, y):
        return torch.where(t < 1.0, -y, 2 * y) if not reverse else torch.where(t > 1.0, -y, 2 * y)

    t = torch.tensor([2.0, 0.0] if reverse else [0.0, 2.0])
    options = {"step_size": 0.25, "perturb": True}
    mine, wanted = both(jumps, torch.ones(1), t, method=method, options=options)
    assert_close(mine, wanted, rtol=1e-13, atol=1e-13)
    plain = ours.odeint(jumps, torch.ones(1), t, method=method, options={"step_size": 0.25})
    if method not in ("midpoint", "heun3", "euler", "explicit_adams"):
        assert not torch.allclose(mine[-1], plain[-1], rtol=1e-9)


def test_perturbed_times_carry_gradients():
    t = torch.tensor([0.0, 1.0], requires_grad=True)
    options = {"perturb": True}
    grads = [
        torch.autograd.grad(
            library.odeint(swing, start(), t, method="rk4", options=options)[-1].sum(), t
        )[0]
        for library in (ours, theirs)
    ]
    assert_close(*grads, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ["explicit_adams", "implicit_adams"])
@pytest.mark.parametrize("max_order", [4, 5, 8, 12])
def test_adams_methods_stop_at_an_order(method, max_order):
    t = torch.linspace(0, 0.6, 31)
    mine, wanted = both(swing, start(), t, method=method, options={"max_order": max_order})
    assert_close(mine, wanted, rtol=1e-13, atol=1e-13)


def test_an_adams_order_below_four_is_the_rk4_of_the_first_steps():
    t, options = torch.linspace(0, 3, 31), {"max_order": 3}
    with pytest.warns(UserWarning, match="rk4"):
        mine = ours.odeint(swing, start(), t, method="implicit_adams", options=options)
    assert_close(mine, theirs.odeint(swing, start(), t, method="rk4"), rtol=1e-13, atol=1e-13)


def test_corrections_that_do_not_converge_are_warned_of_and_go_on_alike():
    t = torch.linspace(0, 1, 11)
    options = {"max_iters": 2}
    with pytest.warns(UserWarning, match="did not converge"):
        mine = ours.odeint(swing, start(), t, method="implicit_adams", options=options)
    with pytest.warns(UserWarning, match="did not converge"):
        wanted = theirs.odeint(swing, start(), t, method="implicit_adams", options=options)
    assert_close(mine, wanted, rtol=1e-13, atol=1e-13)


def test_the_weights_of_adams_integrate_polynomials_exactly():
    for newest in (0, 1):
        for n in range(1, 13):
            nodes = [newest - i for i in range(n)]
            for power in range(n):
                terms = [w * x**power for w, x in zip(weights(n, newest), nodes, strict=True)]
                assert abs(sum(terms) - 1 / (power + 1)) < 1e-15 * (1 + sum(map(abs, terms)))
