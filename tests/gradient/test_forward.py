"""Forward sensitivities against the exact gradient of the same steps, and finite differences."""

import pytest
import torch

import odeum
from odeum.errors import InputError
from odeum.gradient import Forward

DTYPE = torch.float64
METHODS = ["tsit5", "dopri8", "rodas5p", "radau5", "auto"]


class Driven(torch.nn.Module):
    """A network that depends on time, with a rate per row and a shared tensor besides."""

    def __init__(self, shift: torch.Tensor) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)
        self._shift = [shift]  # closed over, not registered
        self.double()

    def forward(self, t, y, args):
        at = torch.cat([y, t.expand(len(y), 1)], -1)
        return args["rate"] * self.last(torch.tanh(self.first(at))) - y + self._shift[0]


def driven_problem():
    torch.manual_seed(0)
    shift = torch.randn(2, dtype=DTYPE, requires_grad=True)
    field = Driven(shift)
    y0 = torch.randn(3, 2, dtype=DTYPE, requires_grad=True)
    ts = torch.linspace(0, 1.5, 4, dtype=DTYPE).requires_grad_()
    rate = torch.rand(3, 1, dtype=DTYPE).requires_grad_()
    scale = torch.tensor(0.7, dtype=DTYPE, requires_grad=True)
    wanted = [y0, ts, rate, scale, shift, *field.parameters()]
    args = {"rate": odeum.per_row(rate), "scale": scale}

    def scaled(t, y, args):
        return field(t, y, args) * args["scale"]

    return scaled, y0, ts, args, wanted


def gradients(problem, *, rtol=1e-5, **options):
    field, y0, ts, args, wanted = problem
    sol = odeum.solve(field, y0, ts, args, rtol=rtol, atol=rtol / 10, **options)
    torch.manual_seed(1)
    value = (sol.ys * torch.randn_like(sol.ys)).nan_to_num().sum()
    for event in sol.events:
        value = value + (event.times.nan_to_num() ** 2).sum() + event.states.nan_to_num().sum()
    return torch.autograd.grad(value, wanted, allow_unused=True)


def assert_same(ones, others, tolerance=1e-10):
    for one, other in zip(ones, others, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_forward_agrees_with_discrete(method):
    problem = driven_problem()
    options = {"method": method, "rtol": 1e-7}  # as well as implicit equations are solved
    discrete = gradients(problem, gradient="discrete", **options)
    assert_same(gradients(problem, gradient="forward", **options), discrete)


def test_chunks_change_nothing():
    problem = driven_problem()
    whole = gradients(problem, gradient=Forward(chunk=100))
    assert_same(gradients(problem, gradient=Forward(chunk=7)), whole, 1e-12)


def test_forward_agrees_with_finite_differences():
    field, y0, ts, args, wanted = driven_problem()
    fixed = odeum.StepOptions(fixed=0.2)

    def loss():
        return (
            odeum.solve(field, y0, ts, args, method="rk4", gradient="forward", step=fixed)
            .ys.square()
            .sum()
        )

    found = torch.autograd.grad(loss(), wanted)
    eps = 1e-6
    for tensor, gradient in zip(wanted, found, strict=True):
        flat = tensor.detach().view(-1)
        expected = torch.empty_like(flat)
        for i in range(len(flat)):
            values = []
            for sign in (1, -1):
                flat[i] += sign * eps
                with torch.no_grad():
                    values.append(loss())
                flat[i] -= sign * eps
            expected[i] = (values[0] - values[1]) / (2 * eps)
        torch.testing.assert_close(gradient.reshape(-1), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("decreasing", [False, True])
def test_times_per_row(decreasing):
    field, y0, _, args, (_, _, *others) = driven_problem()
    ts = torch.tensor([[0.0, 0.1, 0.2], [0.5, 0.4, 1.2], [1.0, 1.5, 1.4]], dtype=DTYPE)
    ts = (ts.flip(0) if decreasing else ts).clone().requires_grad_()
    problem = field, y0, ts, args, [y0, ts, *others]
    discrete = gradients(problem, gradient="discrete")
    assert_same(gradients(problem, gradient="forward"), discrete)


def test_joint_coupling_and_a_single_system():
    matrix = torch.tensor([[-0.3, 2.0], [-1.0, -0.1]], dtype=DTYPE, requires_grad=True)
    ts = torch.tensor([0.0, 0.4, 1.0], dtype=DTYPE, requires_grad=True)
    for shape, coupling in (((3, 2), "joint"), ((2,), "independent")):
        y0 = torch.ones(shape, dtype=DTYPE, requires_grad=True)
        problem = lambda t, y: torch.tanh(y @ matrix) + y.mean() * t, y0, ts, None, [y0, ts, matrix]
        discrete = gradients(problem, gradient="discrete", coupling=coupling)
        assert_same(gradients(problem, gradient="forward", coupling=coupling), discrete)


def bouncing_problem():
    gravity = torch.tensor(9.81, dtype=DTYPE, requires_grad=True)
    y0 = torch.tensor([[1.0, 0.0], [2.0, 0.5], [4.0, 0.0]], dtype=DTYPE, requires_grad=True)
    ts = torch.tensor([0.0, 0.3, 0.8, 1.1], dtype=DTYPE, requires_grad=True)
    bounce = odeum.Event(
        lambda t, y: y[:, 0],
        direction=-1,
        jump=lambda t, y: torch.stack([torch.zeros_like(y[:, 0]), -0.7 * y[:, 1]], -1),
    )

    def falling(t, y):
        return torch.stack([y[:, 1], -gravity - 0.1 * y[:, 1] ** 2 * y[:, 1].sign()], -1)

    return (falling, y0, ts, None, [y0, ts, gravity]), bounce


def test_events_and_breaks():
    problem, bounce = bouncing_problem()
    options = {"events": bounce, "breaks": [0.55]}
    recorded = gradients(problem, gradient="autograd", **options)
    assert_same(gradients(problem, gradient="forward", **options), recorded, 1e-9)


def test_a_row_that_fails_leaves_the_others_their_gradients():
    y0 = torch.tensor([[1.0], [-1.0], [0.5]], dtype=DTYPE, requires_grad=True)
    power = torch.tensor(2.0, dtype=DTYPE, requires_grad=True)
    ts = torch.tensor([0.0, 0.5, 1.5], dtype=DTYPE)
    problem = lambda t, y: y.sign() * y.abs() ** power, y0, ts, None, [y0, power]
    options = {"on_failure": "mask", "step": odeum.StepOptions(max_steps=25)}
    discrete = gradients(problem, gradient="discrete", **options)
    found = gradients(problem, gradient="forward", **options)
    assert all(bool(x.isfinite().all()) for x in found)
    assert_same(found, discrete, 1e-8)


def test_frozen_and_unused_parameters_have_no_gradient():
    _field, y0, ts, args, _ = driven_problem()
    y0 = y0.detach()
    frozen = Driven(torch.zeros(2, dtype=DTYPE)).requires_grad_(False)
    ts = ts.detach()
    args = {"rate": odeum.per_row(torch.ones(3, 1, dtype=DTYPE))}
    sol = odeum.solve(frozen, y0, ts, args, gradient="forward")
    assert not sol.ys.requires_grad


@pytest.mark.parametrize("inside", ["autograd", "decision"])
def test_fields_that_no_transform_gets_through(inside):
    """They are taken a direction at a time."""
    rate = torch.tensor(0.6, dtype=DTYPE, requires_grad=True)

    def slope(t, y):
        if inside == "decision":
            return rate * torch.sin(y) if float(y.detach().sum()) > 0 else -rate * y
        with torch.enable_grad():
            y = y if y.requires_grad else y.detach().requires_grad_()
            return torch.autograd.grad((rate * y.cos() + y**3 / 9).sum(), y, create_graph=True)[0]

    y0 = torch.tensor([[0.4, 0.2], [1.0, 0.5]], dtype=DTYPE, requires_grad=True)
    ts = torch.tensor([0.0, 0.4, 1.0], dtype=DTYPE, requires_grad=True)
    problem = slope, y0, ts, None, [y0, ts, rate]
    discrete = gradients(problem, gradient="discrete")
    assert_same(gradients(problem, gradient="forward"), discrete)


class Opaque(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sin()

    @staticmethod
    def backward(ctx, g):
        return g


def test_a_field_without_tangents_is_told_so():
    y0 = torch.ones(1, 1, dtype=DTYPE, requires_grad=True)
    ts = torch.tensor([0.0, 1.0], dtype=DTYPE)
    with pytest.raises(InputError, match="does not get through the field"):
        odeum.solve(lambda t, y: Opaque.apply(y), y0, ts, gradient="forward")


def test_nothing_grows_with_the_steps():
    y0 = torch.ones(2, 2, dtype=DTYPE, requires_grad=True)
    ts = torch.tensor([0.0, 1.0], dtype=DTYPE)

    def kept(step):
        kinds = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: kinds.append(x.numel()) or x, lambda x: x
        ):
            odeum.solve(
                lambda t, y: -(y**3),
                y0,
                ts,
                gradient="forward",
                method="rk4",
                step=odeum.StepOptions(fixed=step),
            )
        return sum(kinds)

    assert kept(0.25) == kept(0.01)


def test_what_forward_cannot_do():
    y0 = torch.ones(1, 1, dtype=DTYPE, requires_grad=True)
    ts = torch.tensor([0.0, 1.0], dtype=DTYPE)
    with pytest.raises(InputError, match="between the outputs"):
        odeum.solve(lambda t, y: -y, y0, ts, gradient="forward", dense=True)
    with pytest.raises(InputError, match="steps that torch does not see"):
        odeum.solve(lambda t, y: -y, y0, ts, gradient="forward", method="scipy:RK45")
    with pytest.raises(InputError, match="at least 1"):
        Forward(chunk=0)
