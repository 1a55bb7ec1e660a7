"""No input makes a solve hang: every failure ends with a status, in bounded work, and says why.

Bad rows stand beside a healthy one, which must not notice.
"""

import math

import pytest
import torch

import odeum
from odeum import SolveError, Status, StepOptions
from odeum.eager.options import MAX_STEPS

ADAPTIVE = ["tsit5", "dopri8", "vern9", "kvaerno5", "rodas5p", "auto", "implicit_euler"]
FIXED = ["euler", "rk4", "gauss4", "explicit_adams", "implicit_adams"]
STIFF = ["kvaerno5", "rodas5p", "gauss4", "implicit_euler", "implicit_adams"]
TS = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
MOST = 300
"""Steps that a test allows."""

MOST_EVALUATIONS = 40
"""Evaluations a step, with those of an implicit method's iterations."""


def beside_a_healthy_row(bad):
    """The field ``bad`` in rows whose last component is 1, decay in the others."""

    def field(t, y):
        state, kind = y[..., :-1], y[..., -1:]
        return torch.cat([torch.where(kind == 1, bad(t, state), -state), 0 * kind], -1)

    return field


def options(method, n_steps=MOST):
    steps = StepOptions(fixed=0.05) if method in FIXED else StepOptions(max_steps=n_steps)
    return {"method": method, "step": steps, "gradient": "none", "rtol": 1e-3, "atol": 1e-5}


def solved(bad, method, *, start=(1.0, 1.0), ts=TS, n_steps=MOST, **more):
    """The solution, checked for what every failing solve must keep to; and its bad row's status."""
    y0 = torch.tensor([[1.0, 2.0, 0.0], [*start, 1.0]])
    settings = {**options(method, n_steps), **more}
    field = beside_a_healthy_row(bad)
    sol = odeum.solve(field, y0, ts, on_failure="mask", **settings)
    alone = odeum.solve(field, y0[:1], ts, **settings)
    assert int(sol.status[0]) == Status.SUCCESS
    torch.testing.assert_close(sol.ys[:, :1], alone.ys, rtol=1e-12, atol=1e-14)
    assert int(sol.stats.n_evaluations[0]) == int(alone.stats.n_evaluations)
    n_tried = sol.stats.n_accepted + sol.stats.n_rejected
    assert int(n_tried.max()) <= n_steps
    assert int(sol.stats.n_evaluations.max()) <= MOST_EVALUATIONS * (n_steps + 1)
    status = Status(int(sol.status[1]))
    assert sol.ys[-1, 1].isfinite().all() == (status == Status.SUCCESS)
    return sol, status


@pytest.mark.parametrize("method", ADAPTIVE + FIXED)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_field_that_is_no_number(method, value):
    sol, status = solved(lambda t, y: value + 0 * y, method)
    assert status == Status.NON_FINITE
    assert int(sol.stats.n_evaluations[1]) == 1
    assert sol.ys[1:, 1].isnan().all()


@pytest.mark.sweep(2)
@pytest.mark.parametrize("method", ADAPTIVE + FIXED)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_field_that_is_a_number_no_more(method, value):
    sol, status = solved(lambda t, y: torch.where(t > 0.5, value, -y), method)
    assert status == Status.NON_FINITE
    expected = torch.exp(-TS[1]).expand(2)
    atol = 0.03 if method in ("euler", "implicit_euler") else 2e-3
    torch.testing.assert_close(sol.ys[1, 1, :2], expected, rtol=0, atol=atol)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("method", ADAPTIVE + FIXED)
def test_a_state_that_leaves_the_domain(method):
    """y' = -1 - sqrt(y) has no field below zero, which it reaches at 2 - 2 log 2."""
    sol, status = solved(lambda t, y: -1 - torch.sqrt(y), method)
    if method not in ("euler", "implicit_euler"):
        assert status in (Status.NON_FINITE, Status.NOT_CONVERGED)
    assert sol.ys[1, 1].isfinite().all()


@pytest.mark.sweep(2)
@pytest.mark.parametrize("method", ADAPTIVE + FIXED)
def test_blow_up_in_finite_time(method):
    """y' = y^2 from 4: infinite at 1/4."""
    sol, status = solved(lambda t, y: y * y, method, start=(4.0, 1e-3), n_steps=120)
    wanted = (Status.NON_FINITE, Status.STEP_TOO_SMALL, Status.MAX_STEPS, Status.NOT_CONVERGED)
    if method not in FIXED:  # fixed steps may jump over the pole
        assert status in wanted
        assert sol.ys[1:, 1].isnan().all()


@pytest.mark.sweep(2)
@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize(
    "bad",
    [
        lambda t, y: torch.sign(torch.sin(1 / (t - 0.5))) + 0 * y,
        lambda t, y: 1e8 * torch.sin(1e9 * (13.0 * t + 78.0 * y.sum(-1, keepdim=True))) + 0 * y,
        lambda t, y: -torch.sign(y - 0.5),
        lambda t, y: 1e300 * y,
        lambda t, y: torch.exp(100 * y),
        lambda t, y: torch.floor(1e6 * t) % 2 * 1e9 + 0 * y,
    ],
    ids=["oscillation", "noise", "sliding", "huge", "steep", "switching"],
)
def test_fields_that_no_step_fits(method, bad):
    solved(bad, method, n_steps=50)


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("rtol", [1e-300, 1e-16])
def test_tolerances_that_cannot_be_met(method, rtol):
    with pytest.warns(UserWarning, match="finer than a state in float64 can be rounded"):
        sol = odeum.solve(
            lambda t, y: torch.cos(t) - y,
            torch.zeros(1, 2),
            TS,
            on_failure="mask",
            **{**options(method, 60), "rtol": rtol, "atol": 0.0},
        )
    assert int(sol.status) in (Status.STEP_TOO_SMALL, Status.MAX_STEPS)
    assert int(sol.stats.n_evaluations) <= MOST_EVALUATIONS * 61


@pytest.mark.parametrize("method", ADAPTIVE)
def test_no_absolute_tolerance_at_zero(method):
    """y = 0 stays there: an error of zero is within a tolerance of zero."""
    sol = odeum.solve(
        lambda t, y: -y, torch.zeros(2, 2), TS, method=method, atol=0.0, gradient="none"
    )
    assert (sol.ys == 0).all()


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("end", [1e300, -1e300, 1e-300])
def test_spans_of_any_size(method, end):
    ts = torch.tensor([0.0, end])
    sol = odeum.solve(
        lambda t, y: torch.stack([y[:, 1], -y[:, 0]], -1),
        torch.tensor([[1.0, 0.0]]),
        ts,
        on_failure="mask",
        **options(method, 100),
    )
    if abs(end) < 1:
        assert int(sol.status) == Status.SUCCESS
    elif method in ("tsit5", "dopri8", "vern9"):  # a damped method may come to rest and run
        assert int(sol.status) in (Status.MAX_STEPS, Status.STEP_TOO_SMALL)
    assert int(sol.stats.n_evaluations) <= MOST_EVALUATIONS * 101


@pytest.mark.parametrize("method", ["tsit5", "dopri8", "vern9"])
def test_a_stiff_problem_and_an_explicit_method(method):
    _, status = solved(lambda t, y: -1e8 * (y - torch.cos(t)), method)
    assert status == Status.MAX_STEPS


@pytest.mark.parametrize("method", ["kvaerno5", "rodas5p", "auto"])
def test_a_stiff_problem_and_a_stiff_method(method):
    sol, status = solved(lambda t, y: -1e8 * (y - torch.cos(t)), method)
    assert status == Status.SUCCESS
    expected = torch.cos(TS[1:, None]).expand(2, 2)
    torch.testing.assert_close(sol.ys[1:, 1, :2], expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize("method", ["kvaerno5", "rodas5p", "implicit_euler", "gauss4"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_jacobian_that_is_no_number(method, value):

    def jacobian(t, y):
        good = -torch.eye(3).expand(len(y), 3, 3)
        return torch.where(y[:, -1:, None] == 1, value, good)

    y0 = torch.tensor([[1.0, 2.0, 0.0], [1.0, 1.0, 1.0]])
    settings = options(method, 60)
    settings["method"] = odeum.methods.get(method, jacobian=jacobian)
    sol = odeum.solve(beside_a_healthy_row(lambda t, y: -y), y0, TS, on_failure="mask", **settings)
    assert int(sol.status[0]) == Status.SUCCESS
    torch.testing.assert_close(sol.ys[-1, 0, :2], y0[0, :2] * torch.exp(-TS[-1]), rtol=0.1, atol=0)
    assert int(sol.status[1]) not in (Status.SUCCESS, Status.EVENT)
    assert int(sol.stats.n_evaluations[1]) <= MOST_EVALUATIONS * 61


@pytest.mark.parametrize("method", ["kvaerno5", "rodas5p", "implicit_euler"])
def test_a_step_whose_matrix_is_singular_becomes_another(method):
    """y' = y / (h gamma) makes 1 - h gamma J zero for one h: the solve goes on regardless."""
    first = 0.5
    rates = torch.linspace(0.5, 4, 40)[:, None] / first
    sol = odeum.solve(
        lambda t, y, rate: rate * y,
        torch.ones(40, 1),
        torch.tensor([0.0, 1.0]),
        odeum.per_row(rates),
        method=method,
        step=StepOptions(first=first, max_steps=1000),
        gradient="none",
        rtol=1e-3,
    )
    torch.testing.assert_close(sol.ys[-1], torch.exp(rates), rtol=0.2, atol=0)


def test_the_limit_is_finite_unless_told_otherwise():
    """An explicit method on a problem far too stiff for it, with a stub's worth of work a step."""
    assert MAX_STEPS == 100_000
    sol = odeum.solve(
        lambda t, y: -1e8 * y,
        torch.ones(1, 1),
        TS,
        method="heun",
        gradient="none",
        on_failure="mask",
        step=StepOptions(max_steps=50),
    )
    assert int(sol.status) == Status.MAX_STEPS
    assert int(sol.stats.n_accepted + sol.stats.n_rejected) == 50


def message(field, y0, ts=TS, **settings):
    with pytest.raises(SolveError) as raised:
        odeum.solve(field, y0, ts, **{**options("tsit5"), **settings})
    return str(raised.value)


def test_messages_name_the_row_its_time_and_what_grew():
    y0 = torch.tensor([[1.0, 1.0], [1.0, 4.0], [1.0, 5.0]])
    text = message(lambda t, y: torch.stack([-y[:, 0], y[:, 1] ** 2], -1), y0, TS[:2] / 4 * 2.2)
    assert text.startswith("row 2 of 3 stopped at t = 0.2")
    assert "step shrank to" in text
    assert "y[1] = " in text
    for hint in ("blow up", "shorten the span", "tanh", "rtol", "on_failure='mask'"):
        assert hint in text


def test_messages_name_the_component_that_is_no_number():
    text = message(lambda t, y: torch.stack([-y[:, 0], torch.log(-y[:, 1])], -1), torch.ones(1, 2))
    assert text.startswith("the solve stopped at t = 0: ")
    assert "dy/dt[1] = nan" in text
    assert "log" in text
    text = message(lambda t, y: -y, torch.tensor([[1.0, math.nan]]))
    assert "y[1] = nan" in text
    text = message(lambda t, y: torch.where(t > 0.5, math.nan, -y), torch.ones(1, 1))
    assert "stopped at t = 0.5: " in text
    assert "Before that step y[0] = 0.6065" in text


@pytest.mark.parametrize("method", ["tsit5", "dopri8", "rodas5p", "kvaerno5"])
def test_a_stiff_method_is_advised_only_where_there_was_none(method):
    def switching(t, y):
        return torch.floor(1e4 * t) % 2 * 1e3 - 1e3 * y

    text = message(switching, torch.ones(1, 1), **options(method, 40))
    assert "it took 40 steps without arriving, and would go on by " in text
    assert "max_steps" in text
    assert "rtol" in text
    assert ('"rodas5p" or "auto"' in text) == (method not in STIFF)
    assert ("breaks=" in text) == (method in STIFF)


@pytest.mark.parametrize("gradient", ["discrete", "autograd"])
def test_a_failure_under_autograd_is_the_same_error(gradient):
    y0, ts = torch.ones(2, 1, requires_grad=True), TS.clone().requires_grad_()
    text = message(lambda t, y: y * y * 5, y0, ts, gradient=gradient)
    assert text.startswith("row 0 of 2 stopped at t = 0.2")
