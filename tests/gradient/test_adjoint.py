"""Both continuous adjoints against the discrete gradient at tight tolerance, and against finite
differences.
"""

import gc
from functools import cache

import pytest
import torch
from torch import nn

import odeum

EXPLICIT = ["dopri8", "tsit5"]
IMPLICIT = ["kvaerno5", "rodas5p", "auto"]
SCIPY = ["scipy:DOP853", "scipy:LSODA"]
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
CONTINUOUS = ["adjoint", "interpolated"]


class Field(nn.Module):
    """Nonlinear, time-dependent, with parameters, arguments shared and per row."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        self.unused = nn.Parameter(torch.zeros(3))

    def forward(self, t, y, args):
        scale, shift = args
        time = t.expand(len(y), 1)
        return self.net(torch.cat([y, time], -1)) * scale + torch.sin(shift) * y


def tolerance_of(method):
    """How exactly a method is asked to solve: where each step takes Jacobians, less."""
    tolerance = 1e-8 if method in IMPLICIT else 1e-10
    return {"rtol": tolerance, "atol": tolerance}


def times(*, per_row, decreasing):
    ts = torch.linspace(0.3, 1.5, 4)
    if per_row:
        ts = ts[:, None] * torch.tensor([1.0, 1.3, 0.7]) + torch.tensor([0.0, 0.2, -0.4])
    return (ts.flip(0) if decreasing else ts).clone()


def gradients(method, gradient, ts, coupling="independent", **options):
    torch.manual_seed(1)
    field = Field()
    y0 = torch.randn(3, 2, requires_grad=True)
    ts = ts.clone().requires_grad_()
    scale = torch.tensor(0.7, requires_grad=True)
    shift = torch.randn(3, 1, requires_grad=True)
    args = (scale, shift if coupling == "joint" else odeum.per_row(shift))
    how = {"gradient": gradient, "coupling": coupling, **TIGHT, **options}
    sol = odeum.solve(field, y0, ts, args, method=method, **how)
    (sol.ys**2 * torch.arange(1, 5).view(-1, 1, 1)).sum().backward()
    assert field.unused.grad is None
    return [
        y0.grad,
        ts.grad,
        scale.grad,
        shift.grad,
        *(p.grad for p in field.net.parameters()),
    ], sol


@cache
def exact(*, per_row=False, decreasing=False, coupling="independent"):
    ts = times(per_row=per_row, decreasing=decreasing)
    return gradients("dopri8", "discrete", ts, coupling, rtol=1e-12, atol=1e-12)[0]


def assert_near(found, wanted, rtol=1e-7):
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=rtol * float(b.abs().max()))


@pytest.mark.sweep(3)
@pytest.mark.parametrize(
    ("method", "times_are", "direction"),
    [
        *((m, "shared", "forwards") for m in (*EXPLICIT, *IMPLICIT, *SCIPY)),
        *((m, "per row", "backwards") for m in (*EXPLICIT, *IMPLICIT, *SCIPY)),
        *((m, "shared", "backwards") for m in ("tsit5", "rodas5p")),
        *((m, "per row", "forwards") for m in ("tsit5", "rodas5p")),
    ],
)
def test_equals_discrete(method, times_are, direction):
    per_row, decreasing = times_are == "per row", direction == "backwards"
    ts = times(per_row=per_row, decreasing=decreasing)
    found, sol = gradients(method, "adjoint", ts, **tolerance_of(method))
    wanted = exact(per_row=per_row, decreasing=decreasing)
    assert_near(found, wanted, rtol=1e-5 if method in IMPLICIT else 1e-7)
    backward = sol.stats.backward
    assert bool((backward.n_accepted >= 3).all())
    assert bool((backward.n_evaluations > backward.n_accepted).all())
    assert (backward.n_jacobians is None) == (method in [*EXPLICIT, "scipy:DOP853"])


@pytest.mark.parametrize("method", [*EXPLICIT, *IMPLICIT, *SCIPY])
def test_over_the_stored_solution_it_is_the_same(method):
    ts = times(per_row=True, decreasing=True)
    found, sol = gradients(method, "interpolated", ts, **tolerance_of(method))
    wanted = exact(per_row=True, decreasing=True)
    assert_near(found, wanted, rtol=1e-5 if method in IMPLICIT else 1e-7)
    backward = sol.stats.backward
    assert bool((backward.n_accepted >= 3).all())
    assert (backward.n_jacobians is None) == (method in [*EXPLICIT, "scipy:DOP853"])


@pytest.mark.parametrize("gradient", CONTINUOUS)
@pytest.mark.parametrize("method", ["dopri8", "rodas5p", "scipy:DOP853"])
def test_joint_coupling(method, gradient):
    ts = times(per_row=False, decreasing=False)
    found, _ = gradients(method, gradient, ts, "joint", **tolerance_of(method))
    assert_near(found, exact(coupling="joint"), rtol=1e-5 if method in IMPLICIT else 1e-7)


@pytest.mark.parametrize("solver", ["RK45", "RK23", "DOP853", "Radau", "BDF", "LSODA"])
def test_discrete_means_the_adjoint_for_scipy(solver):
    ts = times(per_row=False, decreasing=False)
    tolerance = {"rtol": 1e-6, "atol": 1e-6}
    found, _ = gradients(f"scipy:{solver}", "discrete", ts, **tolerance)
    same, _ = gradients(f"scipy:{solver}", "adjoint", ts, **tolerance)
    for a, b in zip(found, same, strict=True):
        assert torch.equal(a, b)
    assert_near(found, exact(), rtol=1e-3)


@pytest.mark.parametrize("gradient", CONTINUOUS)
def test_the_spiral_has_its_exact_gradient(gradient):
    matrix = torch.tensor([[-0.1, -1.0], [1.0, -0.1]], requires_grad=True)
    y0 = torch.tensor([[2.0, 0.5], [-1.0, 0.3]], requires_grad=True)
    t1 = torch.tensor(3.0, requires_grad=True)
    ts = torch.stack([torch.tensor(0.0), t1])
    ys = odeum.solve(
        lambda t, y, a: y @ a.T, y0, ts, matrix, method="dopri8", gradient=gradient, **TIGHT
    ).ys
    exact = y0 @ torch.linalg.matrix_exp(matrix * t1).T
    weight = torch.randn(2, 2)
    inputs = (y0, matrix, t1)
    found = torch.autograd.grad((ys[-1] * weight).sum(), inputs)
    assert_near(found, torch.autograd.grad((exact * weight).sum(), inputs), rtol=1e-8)


@pytest.mark.parametrize("gradient", CONTINUOUS)
@pytest.mark.parametrize("method", ["tsit5", "kvaerno5", "scipy:LSODA"])
def test_gradcheck(method, gradient):
    y0 = torch.tensor([[1.0, 0.2], [-0.5, 0.8]], requires_grad=True)
    ts = torch.tensor([[0.0, 1.0], [0.4, 0.7], [0.5, 0.5]], requires_grad=True)
    rate = torch.tensor([[0.4], [1.1]], requires_grad=True)
    weight = torch.tensor([0.3, -0.6], requires_grad=True)

    # A Jacobian at every step is dear.
    rtol = 1e-8 if method == "kvaerno5" else 1e-9

    def solve(y0, ts, rate, weight):
        def field(t, y, rate):
            return torch.sin(y.flip(-1) * weight + t) - rate * y

        args = odeum.per_row(rate)
        how = {"method": method, "gradient": gradient, "rtol": rtol, "atol": rtol}
        return odeum.solve(field, y0, ts, args, **how).ys

    inputs = (y0, ts, rate, weight)
    assert torch.autograd.gradcheck(solve, inputs, eps=1e-5, atol=1e-6, rtol=1e-5, fast_mode=True)


def test_options_of_the_backward_solve():
    ts = times(per_row=False, decreasing=False)
    adjoint = odeum.gradient.Adjoint(method="dopri8", rtol=1e-10, atol=1e-10)
    assert_near(gradients("scipy:RK45", adjoint, ts)[0], exact())
    _, fine = gradients("tsit5", "adjoint", ts)
    _, coarse = gradients("tsit5", odeum.gradient.Adjoint(rtol=1e-3, atol=1e-3), ts)
    assert torch.equal(fine.ys, coarse.ys)
    assert (coarse.stats.backward.n_accepted < fine.stats.backward.n_accepted).all()
    with pytest.raises(odeum.InputError, match="Adjoint\\(rtol=0"):
        odeum.gradient.Adjoint(rtol=0)
    with pytest.raises(odeum.InputError, match="symplectic"):
        odeum.gradient.Adjoint(method="leapfrog")


@pytest.mark.parametrize("gradient", CONTINUOUS)
def test_fixed_steps_and_multistep_methods(gradient):
    ts = times(per_row=False, decreasing=False)
    for method in ("rk4", "explicit_adams", "gauss4"):
        found, _ = gradients(method, gradient, ts, step=odeum.StepOptions(fixed=0.04))
        assert_near(found, exact(), rtol=1e-5)


@pytest.mark.parametrize("gradient", CONTINUOUS)
def test_a_small_loss_has_as_exact_a_gradient(gradient):
    """An absolute tolerance measures the state; the adjoint is measured by its own size."""
    weight = torch.tensor([0.3, -0.6], requires_grad=True)
    y0, ts = torch.tensor([[1.0, 0.2]]), torch.tensor([0.0, 2.0])

    def grad(factor):
        ys = odeum.solve(
            lambda t, y: torch.sin(y.flip(-1) * weight + t), y0, ts, gradient=gradient
        ).ys
        return torch.autograd.grad(ys[-1].sum() * factor, weight)[0] / factor

    torch.testing.assert_close(grad(2.0**-40), grad(1.0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("gradient", CONTINUOUS)
def test_events_and_breaks(gradient):
    """Marks are observations too: event times and states carry gradients through the adjoint."""
    height = torch.tensor([[1.0], [2.0]], requires_grad=True)
    drag = torch.tensor(0.1, requires_grad=True)
    bounce = torch.tensor(0.8, requires_grad=True)
    ts = torch.linspace(0, 2, 5)

    def loss(gradient):
        def field(t, y):
            speed = y[..., 1:]
            return torch.cat([speed, torch.where(t < 0.35, -8.0, -9.81) - drag * speed], -1)

        event = odeum.Event(
            lambda t, y: y[..., 0],
            direction=-1,
            jump=lambda t, y: torch.stack([y[..., 0].abs(), -bounce * y[..., 1]], -1),
        )
        y0 = torch.cat([height, torch.zeros(2, 1)], -1)
        sol = odeum.solve(
            field, y0, ts, gradient=gradient, method="dopri8", events=event, breaks=[0.35], **TIGHT
        )
        assert int(sol.events[0].count.min()) >= 1
        return sol.ys.square().sum() + sol.events[0].times.nan_to_num().sum()

    inputs = (height, drag, bounce)
    found = torch.autograd.grad(loss(gradient), inputs)
    assert_near(found, torch.autograd.grad(loss("discrete"), inputs))


def test_failed_rows_count_up_to_their_failure():
    rate = torch.tensor([[1.0], [0.2]], requires_grad=True)
    shared = torch.tensor(1.0, requires_grad=True)
    y0 = torch.tensor([[1.0], [1.0]], requires_grad=True)
    ts = torch.tensor([0.0, 0.5, 2.0])

    def grads(gradient, method):
        sol = odeum.solve(
            lambda t, y, rate: shared * rate * y * y,
            y0,
            ts,
            odeum.per_row(rate),
            method=method,
            gradient=gradient,
            on_failure="mask",
            **TIGHT,
        )
        assert (sol.status != 0).tolist() == [True, False]
        assert sol.ys[-1].isnan().flatten().tolist() == [True, False]
        return torch.autograd.grad(sol.ys.nan_to_num().sum(), (y0, rate, shared))

    # y = 1 / (1 / y0 - c t), with dy/dy0 = (y / y0)^2 and dy/dc = t y^2
    y = [torch.tensor([2.0, 1 / 0.9]), torch.tensor([0.0, 1 / 0.6])]
    by_rate = sum(t * x**2 for t, x in zip((0.5, 2.0), y, strict=True))[:, None]
    wanted = (1 + sum(x**2 for x in y)[:, None], by_rate, (by_rate * rate.detach()).sum())
    for method in ("dopri8", "scipy:DOP853"):
        for gradient in CONTINUOUS:
            assert_near(grads(gradient, method), wanted)


@pytest.mark.parametrize("gradient", CONTINUOUS)
def test_fields_that_differentiate_inside(gradient):
    """As Hamiltonian networks do; stiff methods need the derivative of that once more."""
    stiffness = torch.tensor(1.3, requires_grad=True)
    y0, ts = torch.tensor([[1.0, 0.2], [0.3, -0.4]]), torch.tensor([0.0, 0.3, 0.5])

    def field(t, y):
        with torch.enable_grad():
            y = y if y.requires_grad else y.detach().requires_grad_()
            energy = (y[..., 1] ** 2 / 2 - stiffness * torch.cos(y[..., 0])).sum()
            slope = torch.autograd.grad(energy, y, create_graph=True)[0]
        return torch.stack([slope[..., 1], -slope[..., 0]], -1)

    def grad(method, gradient):
        ys = odeum.solve(field, y0, ts, method=method, gradient=gradient, **TIGHT).ys
        return torch.autograd.grad(ys.square().sum(), stiffness)

    wanted = grad("dopri8", "discrete")
    for method in ("dopri8", "rodas5p", "scipy:LSODA"):
        assert_near(grad(method, gradient), wanted)


def test_tensors_with_a_history_and_single_systems():
    hyper = nn.Linear(1, 2)
    y0, ts = torch.tensor([1.0, -0.5], requires_grad=True), torch.linspace(0, 1, 3)

    def grads(gradient):
        made = hyper(torch.ones(1))
        ys = odeum.solve(
            lambda t, y: torch.tanh(y.flip(0) * made) + t,
            y0,
            ts,
            method="dopri8",
            gradient=gradient,
            **TIGHT,
        ).ys
        return torch.autograd.grad(ys.square().sum(), [y0, *hyper.parameters()])

    for gradient in CONTINUOUS:
        assert_near(grads(gradient), grads("discrete"))


def test_lent_weights_and_float32():
    net = nn.Linear(2, 2)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, y0, ts, gradient):
            net = self.net
            return odeum.solve(lambda t, y: torch.tanh(net(y)), y0, ts, gradient=gradient).ys

    y0, ts = torch.randn(3, 2), torch.tensor([0.0, 0.5, 1.0])
    model = Model()
    lent = {name: torch.randn_like(p).requires_grad_() for name, p in model.named_parameters()}

    def grads(gradient):
        ys = torch.func.functional_call(model, lent, (y0, ts, gradient))
        return torch.autograd.grad(ys.square().sum(), list(lent.values()))

    for gradient in CONTINUOUS:
        assert_near(grads(gradient), grads("discrete"), rtol=1e-3)
    net.float()
    ys = model(y0.float(), ts.float(), "adjoint")
    (found,) = torch.autograd.grad(ys.square().sum(), [net.weight])
    net.double()
    (wanted,) = torch.autograd.grad(model(y0, ts, "discrete").square().sum(), [net.weight])
    assert_near([found.double()], [wanted], rtol=1e-3)


@pytest.mark.parametrize("gradient", CONTINUOUS)
def test_dense_output_gets_no_gradient(gradient):
    y0, ts = torch.ones(1, 1, requires_grad=True), torch.tensor([0.0, 1.0])
    sol = odeum.solve(lambda t, y: -y, y0, ts, gradient=gradient, dense=True)
    assert float(sol(0.5).detach()) == pytest.approx(0.6065, abs=1e-4)
    with pytest.raises(odeum.InputError, match="dense output"):
        sol(0.5).sum().backward()


def test_a_backward_solve_may_fail_alone():
    y0, ts = torch.ones(1, 1, requires_grad=True), torch.tensor([0.0, 1.0])
    # Steps enough for the forward solve, not for a backward solve that is far more exact.
    exact = odeum.gradient.Adjoint(rtol=1e-12, atol=1e-12)
    step = odeum.StepOptions(max_steps=20)
    ys = odeum.solve(lambda t, y: -y, y0, ts, gradient=exact, step=step).ys
    with pytest.raises(odeum.SolveError, match="backward solve of row 0 stopped"):
        ys[-1].sum().backward()


@pytest.mark.parametrize("gradient", CONTINUOUS)
def test_a_loss_that_is_nan_gives_nan(gradient):
    y0, ts = torch.ones(2, 1, requires_grad=True), torch.tensor([0.0, 1.0])
    rate = torch.tensor(1.0, requires_grad=True)
    ys = odeum.solve(lambda t, y: -rate * y, y0, ts, gradient=gradient).ys
    (ys[-1, :, 0] * torch.tensor([torch.nan, 1.0])).sum().backward()
    assert y0.grad.isnan().flatten().tolist() == [True, False]
    assert bool(rate.grad.isnan())


@pytest.mark.parametrize("gradient", [*CONTINUOUS, "discrete"])
def test_nothing_outlives_a_solution(gradient):
    dim = 1019  # like nothing that another test left behind
    y0 = torch.ones(1, dim, requires_grad=True)
    weight = torch.randn(dim, requires_grad=True)

    def n_left():
        odeum.solve(
            lambda t, y: torch.tanh(weight * y), y0, torch.tensor([0.0, 1.0]), gradient=gradient
        )
        gc.collect()
        return sum(type(x) is torch.Tensor and x.shape[-1:] == (dim,) for x in gc.get_objects())

    n_left()  # the first solve of a kind may leave constants behind
    assert n_left() == n_left() == 2
