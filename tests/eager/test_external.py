"""SciPy's solvers on torch fields: right, quiet, bounded, each row by itself."""

import numpy as np
import pytest
import torch
from problems import LOGISTIC_Y0, logistic, logistic_exact
from scipy.integrate import solve_ivp

import odeum
from odeum import Status

SOLVERS = ["RK45", "RK23", "DOP853", "Radau", "BDF", "LSODA"]
IMPLICIT = ["Radau", "BDF", "LSODA"]
TIGHT = {"rtol": 1e-9, "atol": 1e-10, "gradient": "none"}
PER_ROW = torch.tensor([[0.0, 1.0, 2.0], [0.4, 0.7, 1.0], [3.0, -1.0, 1.5]], dtype=torch.float64)
PER_ROW[2, 2] = -0.5


def exact(ts):
    start, ts = (x if x.ndim == 2 else x[:, None].expand(-1, 3) for x in (ts[:1], ts))
    inner = torch.sin(ts) - torch.sin(start)
    y0 = LOGISTIC_Y0.squeeze(-1)
    return (1 / (1 + (1 / y0 - 1) * torch.exp(-inner))).unsqueeze(-1)


@pytest.mark.parametrize("ts", [torch.linspace(0, 3, 5).double(), PER_ROW], ids=["shared", "rows"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_states_are_right_at_the_outputs_and_between(solver, ts):
    sol = odeum.solve(logistic, LOGISTIC_Y0, ts, method=f"scipy:{solver}", dense=True, **TIGHT)
    atol = 1e-6 if solver == "BDF" else 2e-7
    torch.testing.assert_close(sol.ys, exact(ts), rtol=0, atol=atol)
    inside = ts[:-1] * 0.3 + ts[1:] * 0.7
    wanted = exact(torch.cat([ts[:1], inside]))[1:]
    torch.testing.assert_close(sol(inside), wanted, rtol=0, atol=10 * atol)
    outside = ts[-1] + (ts[-1] - ts[0])
    assert bool(sol(outside[None] if outside.ndim else outside).isnan().all())
    assert bool((sol.status == Status.SUCCESS).all())


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_steps_are_those_of_scipy(solver):
    def f(t, y):
        return np.array([y[1], -np.sin(y[0]) - 0.1 * y[1] + np.cos(t)])

    def field(t, y):
        return torch.stack([y[1], -torch.sin(y[0]) - 0.1 * y[1] + torch.cos(t)])

    def jac(t, y):
        return np.array([[0.0, 1.0], [-np.cos(y[0]), -0.1]])

    ts = torch.linspace(0, 4, 3)
    extra = {"jac": jac} if solver in IMPLICIT else {}
    wanted = solve_ivp(f, (0, 4), [1.0, 0.3], solver, rtol=1e-6, atol=1e-8, **extra)
    y0 = torch.tensor([1.0, 0.3])
    sol = odeum.solve(field, y0, ts, method=f"scipy:{solver}", rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(sol.ys[-1].numpy(), wanted.y[:, -1], rtol=1e-10)
    assert int(sol.stats.n_accepted) == len(wanted.t) - 1
    if solver in IMPLICIT:
        assert int(sol.stats.n_jacobians) == wanted.njev
        assert int(sol.stats.n_factorisations) == wanted.nlu
    else:
        assert sol.stats.n_jacobians is None


@pytest.mark.parametrize("solver", IMPLICIT)
def test_a_given_jacobian_is_used(solver):
    matrix = torch.tensor([[-1.0, 3.0], [0.5, -2000.0]])
    calls = []

    def jacobian(t, y):
        calls.append(t)
        return matrix.expand(len(y), 2, 2)

    method = odeum.methods.get(f"scipy:{solver}", jacobian=jacobian)
    y0, ts = torch.tensor([[1.0, 1.0], [2.0, 0.5]]), torch.tensor([0.0, 2.0])
    sol = odeum.solve(lambda t, y: y @ matrix.T, y0, ts, method=method, **TIGHT)
    wanted = y0 @ torch.linalg.matrix_exp(2 * matrix).T
    torch.testing.assert_close(sol.ys[-1], wanted, rtol=1e-5, atol=1e-7)
    assert len(calls) == int(sol.stats.n_jacobians.sum()) > 0
    with pytest.raises(odeum.InputError, match="uses no Jacobian"):
        odeum.methods.get("scipy:DOP853", jacobian=jacobian)


ENDLESS = {
    "nan": lambda t, y: y * torch.nan,
    "infinite": lambda t, y: y / 0,
    "nan later": lambda t, y: torch.where(t > 0.5, torch.nan, -y),
    "blow-up": lambda t, y: y.abs() * y.abs() + 1,
    "faster blow-up": lambda t, y: torch.exp(y.abs()),
    "out of its domain": lambda t, y: -torch.sqrt(y) - 0.1,
    "chattering": lambda t, y: -1e6 * torch.sign(y - 0.5),
}


@pytest.mark.sweep(4)
@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_nothing_hangs_and_other_rows_go_on(solver, kind):
    """The last row is mild: it must be solved as if it were alone."""
    bad = torch.tensor([[True], [True], [False]])

    def field(t, y, bad):
        return torch.where(bad, ENDLESS[kind](t, y), torch.cos(t) * y)

    y0, ts = torch.tensor([[1.0], [0.7], [1.0]]), torch.tensor([0.0, 0.1, 4.0])
    how = {"step": odeum.StepOptions(max_steps=150), "on_failure": "mask", "gradient": "none"}
    sol = odeum.solve(field, y0, ts, odeum.per_row(bad), method=f"scipy:{solver}", **how)
    alone = odeum.solve(field, y0[2:], ts, odeum.per_row(bad[2:]), method=f"scipy:{solver}", **how)
    assert bool((sol.status[:2] > Status.EVENT).all())
    assert sol.ys[-1, :2].isnan().all()
    assert int(sol.stats.n_evaluations.max()) <= 30 * 150
    assert int(sol.stats.n_accepted.max()) <= 150
    assert torch.equal(sol.ys[:, 2], alone.ys[:, 0])
    assert sol.status[2] == alone.status[0] == Status.SUCCESS
    if kind in ("nan", "infinite"):
        assert (sol.status[:2] == Status.NON_FINITE).all()


def test_a_failure_is_explained():
    y0, ts = torch.tensor([[0.5], [1.0]]), torch.tensor([0.0, 1.5])
    with pytest.raises(odeum.SolveError, match=r"row 1 of 2 stopped at t = 1[: .]"):
        odeum.solve(lambda t, y: y * y, y0, ts, method="scipy:DOP853", gradient="none")


def test_errors_of_the_field_are_the_users():
    def field(t, y):
        raise ValueError("mine")

    for solver in SOLVERS:
        with pytest.raises(ValueError, match="mine"):
            odeum.solve(field, torch.ones(2), torch.tensor([0.0, 1.0]), method=f"scipy:{solver}")


def test_bounds_on_steps():
    y0, ts = torch.ones(1, 1), torch.tensor([0.0, 1.0])

    def count(solver, **bounds):
        step = odeum.StepOptions(**bounds)
        how = {"gradient": "none", "on_failure": "mask", "step": step}
        return odeum.solve(lambda t, y: -y, y0, ts, method=f"scipy:{solver}", **how)

    for solver in SOLVERS:
        assert int(count(solver, max=0.01).stats.n_accepted) >= 100
        assert count(solver, max=0.01, max_steps=7).status == Status.MAX_STEPS
        assert count(solver, first=5.0).status == Status.SUCCESS
    assert count("LSODA", min=1e-6).status == Status.SUCCESS
    with pytest.raises(odeum.InputError, match="no smallest step"):
        count("Radau", min=1e-6)
    with pytest.raises(odeum.InputError, match="chooses its steps"):
        count("RK45", fixed=0.1)


def test_tolerances_per_component():
    y0, ts = torch.tensor([[1.0, 1.0]]), torch.tensor([0.0, 2.0])

    def steps(atol):
        how = {"method": "scipy:RK45", "rtol": 1e-12, "gradient": "none"}
        field = lambda t, y: torch.cat([-y[..., :1], torch.cos(20 * t) * y[..., 1:]], -1)  # noqa: E731
        return int(odeum.solve(field, y0, ts, atol=torch.tensor(atol), **how).stats.n_accepted)

    assert steps([1e-8, 1e2]) < steps([1e2, 1e-8]) < 2 * steps([1e-8, 1e-8])


def test_joint_coupling_pytrees_and_float32():
    ts = torch.linspace(0, 1, 3)
    y0 = {"q": torch.ones(3, 2), "p": torch.zeros(3, 2)}

    def field(t, y):
        return {"q": y["p"] * torch.cos(t), "p": -y["q"] * torch.cos(t)}

    for coupling in ("independent", "joint"):
        sol = odeum.solve(field, y0, ts, method="scipy:DOP853", coupling=coupling, **TIGHT)
        wanted = torch.cos(torch.sin(ts))[:, None, None].expand(3, 3, 2)
        torch.testing.assert_close(sol.ys["q"], wanted, rtol=0, atol=1e-8)
    single = odeum.solve(logistic, LOGISTIC_Y0.float(), ts.float(), method="scipy:LSODA")
    assert single.ys.dtype == torch.float32
    wanted = logistic_exact(ts[:, None, None], LOGISTIC_Y0).float()
    torch.testing.assert_close(single.ys, wanted, rtol=0, atol=1e-3)


def test_breaks_take_scipy_too():
    y0, ts = torch.zeros(2, 1), torch.tensor([0.0, 1.0, 2.0])

    def field(t, y):
        return torch.where(t < 0.7, 1.0, -2.0) * torch.ones_like(y)

    sol = odeum.solve(field, y0, ts, method="scipy:RK45", breaks=[0.7], dense=True, **TIGHT)
    torch.testing.assert_close(sol.ys[:, 0, 0], torch.tensor([0.0, 0.1, -1.9]))
    torch.testing.assert_close(sol(torch.tensor([0.5, 1.7]))[:, 1, 0], torch.tensor([0.5, -1.3]))


def test_what_is_refused():
    y0, ts = torch.ones(1, 1), torch.tensor([0.0, 1.0])
    with pytest.raises(odeum.InputError, match="autograd cannot see"):
        odeum.solve(lambda t, y: -y, y0, ts, method="scipy:BDF", gradient="autograd")
    event = odeum.Event(lambda t, y: y[..., 0] - 0.5)
    with pytest.raises(odeum.InputError, match="events need one of odeum's own methods"):
        odeum.solve(lambda t, y: -y, y0, ts, method="scipy:BDF", events=event)
    with pytest.raises(odeum.InputError, match="SciPy solver"):
        odeum.methods.SciPy("Euler")
