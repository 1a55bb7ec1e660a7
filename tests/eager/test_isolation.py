"""What becomes of one row is no other row's business."""

import pytest
import torch
from problems import rotation

import odeum
from odeum import Status

TS = torch.linspace(0, 4, 9, dtype=torch.float64)
METHODS = ["heun", "bosh3", "dopri5", "tsit5", "dopri8"]


def misbehaving(t, y):
    """Rotation, but where the third component says otherwise: NaN, blow-up, fast, faster."""
    q, p, kind = y.unbind(-1)
    nan = torch.where((kind == 1) & (t[:, 0] > 1), torch.nan, 0.0)
    blow_up = torch.where(kind == 2, q * q, 0.0)
    speed = torch.where(kind == 3, 8.0, torch.where(kind == 4, 50.0, 1.0))
    return torch.stack([speed * p + nan + blow_up, -speed * q, 0 * kind], -1)


def start(kinds):
    generator = torch.Generator().manual_seed(3)
    y = torch.rand(len(kinds), 2, generator=generator, dtype=torch.float64) + 0.5
    return torch.cat([y, torch.tensor(kinds)[:, None]], -1)


@pytest.mark.sweep(4)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("position", [0, 3, 6])
def test_other_rows_are_the_same_to_the_last_bit(method, kind, position):
    kinds = [0.0] * 7
    kinds[position] = kind
    y0 = start(kinds)
    others = [i for i in range(7) if i != position]
    options = {"method": method, "rtol": 1e-4, "atol": 1e-5, "on_failure": "mask"}
    together = odeum.solve(misbehaving, y0, TS, **options)
    alone = odeum.solve(misbehaving, y0[others], TS, **options)
    assert torch.equal(together.ys[:, others], alone.ys)
    for count in ("n_evaluations", "n_accepted", "n_rejected"):
        assert torch.equal(getattr(together.stats, count)[others], getattr(alone.stats, count))
    assert alone.status.tolist() == [Status.SUCCESS] * 6


def test_one_fast_row_of_256_costs_the_others_nothing():
    kinds = torch.zeros(256)
    kinds[100] = 4.0
    y0 = start(kinds.tolist())
    calls = []

    def counted(t, y):
        calls.append(len(y))
        return misbehaving(t, y)

    sol = odeum.solve(counted, y0, TS, method="dopri5")
    n = sol.stats.n_evaluations
    assert int(n[100]) > 20 * int(n[:100].max())
    assert sum(calls) == int(n.sum())  # finished rows are not evaluated


@pytest.mark.parametrize("method", METHODS)
def test_statuses(method):
    y0 = start([0.0, 1.0, 2.0])
    y0[2, :2] = 4.0  # q' = q^2 + p: infinite before t = 1/4
    sol = odeum.solve(misbehaving, y0, TS, method=method, on_failure="mask")
    assert int(sol.status[0]) == Status.SUCCESS
    assert int(sol.status[1]) == Status.NON_FINITE
    assert int(sol.status[2]) in (Status.STEP_TOO_SMALL, Status.NON_FINITE)
    assert torch.isfinite(sol.ys[:, 0]).all()
    assert torch.isfinite(sol.ys[:2, 1]).all()  # t = 1, where NaN begins, is not quite reached
    assert torch.isnan(sol.ys[3:, 1]).all()
    assert torch.isnan(sol.ys[1:, 2]).all()
    assert int(sol.stats.n_rejected[2]) < 1000


@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5"])
def test_fixed_steps_stop_where_the_state_is_no_number(method):
    step = odeum.StepOptions(fixed=0.1)
    y0 = start([0.0, 1.0])
    sol = odeum.solve(misbehaving, y0, TS, method=method, step=step, on_failure="mask")
    assert sol.status.tolist() == [Status.SUCCESS, Status.NON_FINITE]
    assert torch.isnan(sol.ys[-1, 1]).all()
    assert int(sol.stats.n_accepted[1]) in range(9, 12)


def test_a_row_that_starts_as_nan_is_dropped_at_once():
    y0 = start([0.0, 0.0])
    y0[0, 0] = torch.nan
    sol = odeum.solve(misbehaving, y0, TS, on_failure="mask")
    assert sol.status.tolist() == [Status.NON_FINITE, Status.SUCCESS]
    assert int(sol.stats.n_evaluations[0]) == 1
    assert torch.equal(sol.ys[:, 1:], odeum.solve(misbehaving, y0[1:], TS).ys)


@pytest.mark.parametrize("gradient", ["discrete", "autograd"])
@pytest.mark.parametrize("kind", [1.0, 2.0])
def test_gradients_of_healthy_rows_are_unharmed(gradient, kind):
    def grad(kinds, keep):
        y0 = start(kinds)
        if kind == 2.0 and len(kinds) == 4:
            y0[1, :2] = 4.0
        y0.requires_grad_()
        speed = torch.tensor(1.0, requires_grad=True)
        sol = odeum.solve(
            lambda t, y, speed: speed * misbehaving(t, y),
            y0,
            TS,
            speed,
            gradient=gradient,
            on_failure="mask",
        )
        sol.ys[:, keep].square().sum().backward()
        return y0.grad[keep], speed.grad

    with_bad = grad([0.0, kind, 0.0, 0.0], [0, 2, 3])
    generator_rows = start([0.0, kind, 0.0, 0.0])[[0, 2, 3]].requires_grad_()
    speed = torch.tensor(1.0, requires_grad=True)
    sol = odeum.solve(
        lambda t, y, speed: speed * misbehaving(t, y), generator_rows, TS, speed, gradient=gradient
    )
    sol.ys.square().sum().backward()
    torch.testing.assert_close(with_bad[0], generator_rows.grad, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(with_bad[1], speed.grad, rtol=1e-12, atol=1e-12)


def test_rows_agree_with_single_solves_through_matrix_products():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    y0 = torch.randn(9, 2)
    together = odeum.solve(lambda t, y: net(y), y0, TS, gradient="none")
    for i in range(9):
        alone = odeum.solve(lambda t, y: net(y), y0[i : i + 1], TS, gradient="none")
        torch.testing.assert_close(together.ys[:, i : i + 1], alone.ys, rtol=1e-13, atol=1e-14)
        assert int(together.stats.n_evaluations[i]) == int(alone.stats.n_evaluations)


def test_pointwise_rows_do_not_depend_on_the_batch_size():
    y0 = torch.randn(33, 2)
    whole = odeum.solve(rotation, y0, TS, rtol=1e-6)
    for n in (1, 2, 7, 16, 32):
        assert torch.equal(odeum.solve(rotation, y0[:n], TS, rtol=1e-6).ys, whole.ys[:, :n])


@pytest.mark.parametrize("method", METHODS)
def test_nan_is_never_taken_for_a_step_that_is_too_small(method):
    """Whenever it begins, and whatever the step sizes were when the row ran into it."""
    onset = torch.linspace(0.1, 3.9, 100)[:, None]
    y0 = torch.randn(100, 2)
    sol = odeum.solve(
        lambda t, y, onset: torch.where(t > onset, torch.nan, rotation(t, y)),
        y0,
        TS,
        odeum.per_row(onset),
        method=method,
        on_failure="mask",
    )
    assert sol.status.tolist() == [Status.NON_FINITE] * 100
    assert int((sol.stats.n_accepted + sol.stats.n_rejected).max()) < 5000
