"""Gradients against finite differences and against each other."""

import gc
from functools import cache
from itertools import product

import pytest
import torch
from torch import nn

import odeum
import odeum.tableaus

EXPLICIT = list(odeum.tableaus.EXPLICIT)
ROOM = ["room", "no room"]
IMPLICIT = [*odeum.tableaus.IMPLICIT, *odeum.tableaus.ROSENBROCK]


class Field(nn.Module):
    """Nonlinear, time-dependent, with parameters and per-row arguments."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        self.unused = nn.Parameter(torch.zeros(3))

    def forward(self, t, y, args):
        scale, shift = args
        time = t.expand(len(y), 1)
        return self.net(torch.cat([y, time], -1)) * scale + torch.sin(shift) * y


def options(method):
    if not odeum.methods.describe(method).adaptive or odeum.methods.describe(method).order < 3:
        return {"method": method, "step": odeum.StepOptions(fixed=0.16)}
    return {"method": method, "rtol": 1e-4, "atol": 1e-6}


def times(*, per_row, decreasing, n_times=7):
    ts = torch.linspace(0.3, 2.1, 7)[:n_times]
    if per_row:
        ts = ts[:, None] * torch.tensor([1.0, 1.3, 0.7, 2.0]) + torch.tensor([0.0, 0.2, -0.4, 0.1])
    return (ts.flip(0) if decreasing else ts).clone()


def gradients(
    method,
    gradient,
    *,
    per_row,
    decreasing,
    dense,
    coupling="independent",
    step=None,
    n_times=7,
):
    torch.manual_seed(1)
    field = Field()
    y0 = torch.randn(4, 2, requires_grad=True)
    ts = times(per_row=per_row, decreasing=decreasing, n_times=n_times).requires_grad_()
    scale = torch.tensor(0.7, requires_grad=True)
    shift = torch.randn(4, 1, requires_grad=True)
    args = (scale, shift if coupling == "joint" else odeum.per_row(shift))
    sol = odeum.solve(
        field,
        y0,
        ts,
        args,
        gradient=gradient,
        coupling=coupling,
        dense=dense,
        **({"method": method, "step": step} if step else options(method)),
    )
    loss = (sol.ys**2 * torch.arange(1, n_times + 1).view(-1, 1, 1)).sum()
    if dense:
        between = ts[0] * 0.6 + ts[-1] * 0.4
        loss = loss + (sol(between[None]) ** 3).sum()
    loss.backward()
    parameters = [p.grad for p in field.net.parameters()]
    assert field.unused.grad is None
    return [y0.grad, ts.grad, scale.grad, shift.grad, *parameters], sol


@cache
def by_autograd(method, **how):
    return gradients(method, "autograd", **how)[0]


EVERY_PAIR = [
    ("shared", "forwards", "", "room"),
    ("shared", "backwards", "dense", "no room"),
    ("per row", "forwards", "dense", "no room"),
    ("per row", "backwards", "", "room"),
    ("joint", "forwards", "dense", "room"),
    ("joint", "backwards", "", "no room"),
]
"""Any two of these options meet in one of them."""

EVERY_ONE = list(
    product(["shared", "per row", "joint"], ["forwards", "backwards"], ["", "dense"], ROOM)
)


@pytest.mark.parametrize(
    ("method", "times_are", "direction", "dense", "room"),
    [(m, *case) for m in EXPLICIT for case in (EVERY_ONE if m == "tsit5" else EVERY_PAIR)],
)
def test_discrete_equals_autograd(method, times_are, direction, dense, room, monkeypatch):
    if room == "no room":
        monkeypatch.setattr("odeum.gradient.tape.ROOM_BYTES", 0)
    how = {
        "per_row": times_are == "per row",
        "coupling": "joint" if times_are == "joint" else "independent",
        "decreasing": direction == "backwards",
        "dense": dense == "dense",
    }
    discrete, sol = gradients(method, "discrete", **how)
    for a, b in zip(discrete, by_autograd(method, **how), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12 * float(b.abs().max()))
    backward = sol.stats.backward
    assert torch.equal(backward.n_accepted, sol.stats.n_accepted)
    if room == "no room":
        assert (backward.n_evaluations >= sol.stats.n_accepted).all()


@pytest.mark.parametrize("method", IMPLICIT)
def test_discrete_equals_autograd_through_equations(method):
    """Fixed steps: the equations of a step are solved to rounding."""
    how = {"per_row": True, "decreasing": True, "dense": True, "n_times": 4}
    how["step"] = odeum.StepOptions(fixed=0.3)
    discrete, sol = gradients(method, "discrete", **how)
    autograd, _ = gradients(method, "autograd", **how)
    for a, b in zip(discrete, autograd, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10 * float(b.abs().max()))
    assert torch.equal(sol.stats.backward.n_accepted, sol.stats.n_accepted)


@pytest.mark.parametrize("method", ["kvaerno5", "radau5", "rodas5p", "auto"])
def test_discrete_equals_autograd_with_steps_that_adapt(method):
    """The two solve the equations of a step from different guesses, to a share of rtol = 1e-4."""
    for per_row, coupling in ((True, "independent"), (False, "joint")):
        how = {"per_row": per_row, "decreasing": False, "dense": False, "coupling": coupling}
        discrete, _ = gradients(method, "discrete", **how)
        autograd, _ = gradients(method, "autograd", **how)
        for a, b in zip(discrete, autograd, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6 * float(b.abs().max()))


@pytest.mark.parametrize("method", ["gauss4", "trapezoid", "kvaerno3", "radau5", "rodas4"])
def test_gradcheck_through_equations(method):
    """Fixed steps: the equations of a step are solved to rounding."""
    torch.manual_seed(2)
    field = Field()
    y0 = torch.randn(2, 2, requires_grad=True)
    ts = torch.tensor([0.3, 0.7, 1.1]).requires_grad_()
    scale = torch.tensor(0.7, requires_grad=True)
    shift = torch.randn(2, 1, requires_grad=True)
    weight = field.net[2].weight.detach().requires_grad_()

    def solve(y0, ts, scale, shift, weight):
        def lent(t, y, args):
            return torch.func.functional_call(field, {"net.2.weight": weight}, (t, y, args))

        args = (scale, odeum.per_row(shift))
        return odeum.solve(lent, y0, ts, args, method=method, step=odeum.StepOptions(fixed=0.3)).ys

    assert torch.autograd.gradcheck(solve, (y0, ts, scale, shift, weight), fast_mode=True)


@pytest.mark.sweep(2)
@pytest.mark.parametrize(
    ("per_row", "gradient"), [(False, "discrete"), (True, "discrete"), (True, "autograd")]
)
@pytest.mark.parametrize("method", ["rk4", "tsit5", "dopri8"])
def test_gradcheck(method, per_row, gradient):
    torch.manual_seed(2)
    field = Field()
    y0 = torch.randn(4, 2, requires_grad=True)
    ts = times(per_row=per_row, decreasing=False, n_times=4).requires_grad_()
    scale = torch.tensor(0.7, requires_grad=True)
    shift = torch.randn(4, 1, requires_grad=True)
    weight = field.net[0].weight
    # Steps short enough that what a step size depends on hides below the tolerance.
    how = {"step": odeum.StepOptions(fixed=0.029)} if method == "rk4" else {}

    def solve(y0, ts, scale, shift, weight):
        def with_weight(t, y, args):
            module = {"net.0.weight": weight}
            return torch.func.functional_call(field, module, (t, y, args))

        args = (scale, odeum.per_row(shift))
        return odeum.solve(
            with_weight, y0, ts, args, method=method, gradient=gradient, rtol=1e-9, atol=1e-9, **how
        ).ys

    inputs = (y0, ts, scale, shift, weight)
    assert torch.autograd.gradcheck(solve, inputs, eps=1e-5, atol=1e-6, rtol=1e-5, fast_mode=True)


def test_gradient_to_a_single_system():
    y0 = torch.tensor([1.0, -0.5], requires_grad=True)
    ts = torch.linspace(0, 1, 4)
    matrix = torch.tensor([[-0.1, -1.0], [1.0, -0.1]], requires_grad=True)

    def loss(y0, matrix):
        return odeum.solve(lambda t, y, a: a @ y, y0, ts, matrix, rtol=1e-9, atol=1e-9).ys.square()

    assert torch.autograd.gradcheck(loss, (y0, matrix), atol=1e-6)


def test_gradient_through_a_pytree():
    q = torch.randn(3, 2, requires_grad=True)
    p = torch.randn(3, 1, 2, requires_grad=True)
    ts = torch.linspace(0, 1, 3)

    def loss(gradient):
        sol = odeum.solve(
            lambda t, y: {"q": y["p"][:, 0], "p": -torch.sin(y["q"])[:, None]},
            {"q": q, "p": p},
            ts,
            gradient=gradient,
        )
        return sol.ys["q"].square().sum() + sol.ys["p"][-1].sum()

    discrete = torch.autograd.grad(loss("discrete"), (q, p))
    autograd = torch.autograd.grad(loss("autograd"), (q, p))
    for a, b in zip(discrete, autograd, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_captured_tensors_get_their_gradient():
    rate = torch.tensor(0.8, requires_grad=True)
    hyper = torch.nn.Linear(1, 1)
    y0, ts = torch.ones(2, 1), torch.linspace(0, 1, 3)

    def grads(gradient):
        made = hyper(torch.ones(1))  # computed before the solve, with a history of its own
        loss = odeum.solve(lambda t, y: -rate * made * y, y0, ts, gradient=gradient).ys.sum()
        return torch.autograd.grad(loss, [rate, *hyper.parameters()])

    for a, b in zip(grads("discrete"), grads("autograd"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_a_bound_method_is_a_field():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(0.5))

        def dynamics(self, t, y):
            return -self.rate * y

    model = Model()
    odeum.solve(model.dynamics, torch.ones(1, 1), torch.tensor([0.0, 1.0])).ys[-1].sum().backward()
    expected = -torch.exp(torch.tensor(-0.5))
    torch.testing.assert_close(model.rate.grad, expected, rtol=1e-4, atol=0)


def test_none_records_nothing():
    y0 = torch.ones(1, 1, requires_grad=True)
    sol = odeum.solve(lambda t, y: -y, y0, torch.tensor([0.0, 1.0]), gradient="none")
    assert not sol.ys.requires_grad
    with torch.no_grad():
        assert not odeum.solve(lambda t, y: -y, y0, torch.tensor([0.0, 1.0])).ys.requires_grad
    frozen = nn.Linear(1, 1).requires_grad_(False)
    sol = odeum.solve(lambda t, y: frozen(y), torch.ones(1, 1), torch.tensor([0.0, 1.0]))
    assert not sol.ys.requires_grad


def test_parameters_changed_before_the_backward_pass_are_noticed():
    net = nn.Linear(1, 1)
    sol = odeum.solve(lambda t, y: net(y), torch.ones(1, 1), torch.tensor([0.0, 1.0]))
    with torch.no_grad():
        net.weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        sol.ys.sum().backward()


def test_backward_twice():
    y0 = torch.ones(1, 1, requires_grad=True)
    loss = odeum.solve(lambda t, y: -y * y, y0, torch.tensor([0.0, 1.0])).ys.sum()
    (first,) = torch.autograd.grad(loss, y0, retain_graph=True)
    (second,) = torch.autograd.grad(loss, y0)
    assert torch.equal(first, second)


def test_discrete_stores_one_state_a_step(monkeypatch):
    """Beyond the room for autograd's records, a step costs its state and two times."""
    monkeypatch.setattr("odeum.gradient.tape.ROOM_BYTES", 0)
    dim = 1013  # like nothing that another test left behind
    y0 = torch.ones(1, dim, requires_grad=True)
    weight = torch.randn(dim, requires_grad=True)

    def stored(n_steps):
        ts = torch.tensor([0.0, 1.0])
        step = odeum.StepOptions(fixed=1 / n_steps)
        sol = odeum.solve(lambda t, y: torch.tanh(weight * y), y0, ts, step=step)
        gc.collect()
        tensors = {
            x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()
            for x in gc.get_objects()
            if type(x) is torch.Tensor and x.shape[-1:] == (dim,)
        }
        del sol
        return sum(tensors.values()) / (dim * 8)

    assert stored(60) - stored(40) == pytest.approx(20, abs=2)


def test_float32_agrees_with_float64():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))

    def grad(dtype):
        field = net.to(dtype)
        field.zero_grad()
        y0 = torch.tensor([[1.0, 0.5], [-0.3, 0.2]], dtype=dtype)
        ts = torch.linspace(0, 2, 5, dtype=dtype)
        odeum.solve(lambda t, y: field(y), y0, ts).ys.square().mean().backward()
        return field[0].weight.grad.double().clone()

    torch.testing.assert_close(grad(torch.float32), grad(torch.float64), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("room", ROOM)
@pytest.mark.parametrize("kind", ["module", "closure", "method"])
@pytest.mark.parametrize("method", ["tsit5", "rk4"])
def test_weights_lent_by_functional_call(method, kind, room, monkeypatch):
    """The backward pass runs after the module has its own weights back."""
    if room == "no room":
        monkeypatch.setattr("odeum.gradient.tape.ROOM_BYTES", 0)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Autonomous()

        def forward(self, y0, ts):
            fields = {"module": self.net, "closure": lambda t, y: self.net(t, y)}
            field = fields.get(kind, self.net.forward)
            return odeum.solve(field, y0, ts, **options(method)).ys

    model = Model()
    y0, ts = torch.randn(3, 2), torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.7, 1.0]])
    lent = {name: torch.randn_like(p).requires_grad_() for name, p in model.named_parameters()}
    loss = torch.func.functional_call(model, lent, (y0, ts)).square().sum()
    found = torch.autograd.grad(loss, list(lent.values()))
    model.load_state_dict({name: p.detach() for name, p in lent.items()})
    wanted = torch.autograd.grad(model(y0, ts).square().sum(), list(model.parameters()))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


class Autonomous(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, t, y):
        return torch.tanh(self.linear(y))


@pytest.mark.parametrize("room", ROOM)
def test_rows_that_reject_their_first_step(room, monkeypatch):
    if room == "no room":
        monkeypatch.setattr("odeum.gradient.tape.ROOM_BYTES", 0)
    speed = torch.tensor([[0.01], [3.0], [0.02], [8.0]])

    def grads(gradient):
        y0 = torch.linspace(0.5, 1.5, 4)[:, None].requires_grad_()
        ts = torch.tensor([0.0, 0.7, 1.5]).requires_grad_()
        rates = speed.clone().requires_grad_()
        sol = odeum.solve(
            lambda t, y, rate: torch.sin(rate * y) * torch.cos(t),
            y0,
            ts,
            odeum.per_row(rates),
            gradient=gradient,
            step=odeum.StepOptions(first=1.0),
        )
        assert 0 < int((sol.stats.n_rejected > 0).sum()) < 4
        return torch.autograd.grad(sol.ys.square().sum(), [y0, ts, rates])

    for a, b in zip(grads("discrete"), grads("autograd"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
