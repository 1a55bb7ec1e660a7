"""torch.func over a solve: transforms against each other, loops of solves, finite differences."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import (
    functional_call,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vmap,
)

import odeum
from odeum.eager.jacobian import load_forward_mode
from odeum.errors import InputError, SolveError
from odeum.gradient.registry import GRADIENTS

DTYPE = torch.float64
STEPS = odeum.StepOptions(fixed=0.25)
TS = torch.linspace(0, 1, 3, dtype=DTYPE)


@pytest.fixture(autouse=True)
def _forward_mode():
    load_forward_mode()
    torch.manual_seed(0)


def swinging(t, y):
    q, p = y
    return p, -torch.sin(q) * (1 + 0.1 * q)


def final(y, method, gradient="discrete", **options):
    """A number from a solve of a nonlinear problem from ``y``, [batch, 2]."""
    options = {"step": STEPS, **options}
    if method == "leapfrog":
        state = (y[:, :1], y[:, 1:])
        q, p = odeum.solve(swinging, state, TS, method=method, gradient=gradient, **options).ys
        return (q[-1] ** 2 + p[-1] ** 3).sum()

    def field(t, y):
        return torch.stack([y[:, 1], -torch.sin(y[:, 0]) + 0.1 * t[:, 0] * y[:, 1] ** 2], -1)

    sol = odeum.solve(field, y, TS, method=method, gradient=gradient, **options)
    return (sol.ys[-1] ** 3).sum()


def differences(function, y, eps=1e-5):
    """Central differences of a function of ``y``, with the axes of ``y`` last."""
    columns = []
    for direction in torch.eye(y.numel(), dtype=DTYPE):
        shift = eps * direction.view_as(y)
        columns.append((function(y + shift) - function(y - shift)) / (2 * eps))
    value = torch.stack(columns, -1)
    return value.view(*value.shape[:-1], *y.shape)


@pytest.mark.parametrize("method", ["tsit5", "dopri8", "rodas5p", "kvaerno3", "leapfrog"])
def test_derivatives_agree(method):
    y = torch.randn(2, 2, dtype=DTYPE)
    reverse = grad(final)(y, method)
    torch.testing.assert_close(reverse, differences(lambda y: final(y, method), y))
    for other in (jacrev(final)(y, method), jacfwd(final)(y, method)):
        torch.testing.assert_close(other, reverse, rtol=1e-11, atol=1e-12)
    direction = torch.randn_like(y)
    _, tangent = jvp(lambda y: final(y, method), (y,), (direction,))
    torch.testing.assert_close(tangent, (reverse * direction).sum(), rtol=1e-11, atol=1e-12)
    with torch.no_grad(), forward_ad.dual_level():  # no_grad does not stop forward mode
        dual = final(forward_ad.make_dual(y, direction), method)
        tangent = forward_ad.unpack_dual(dual).tangent
    torch.testing.assert_close(tangent, (reverse * direction).sum(), rtol=1e-11, atol=1e-12)
    leaf = y.clone().requires_grad_()  # whose equations are solved to another rounding
    (plain,) = torch.autograd.grad(final(leaf, method), leaf)
    torch.testing.assert_close(reverse, plain, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("method", ["tsit5", "radau5", "rodas5p", "implicit_adams"])
def test_second_derivatives(method):
    y = torch.randn(1, 2, dtype=DTYPE)
    expected = differences(lambda y: grad(final)(y, method), y)
    torch.testing.assert_close(hessian(final)(y, method), expected, rtol=1e-6, atol=1e-7)
    twice = jacrev(jacrev(final))(y, method)
    torch.testing.assert_close(twice, expected, rtol=1e-6, atol=1e-7)


def test_adaptive_steps_are_constants_in_both_modes():
    y = torch.randn(3, 2, dtype=DTYPE)
    for method in ("tsit5", "kvaerno5", "auto"):
        options = {"step": odeum.StepOptions(), "rtol": 1e-5}
        forward = jacfwd(lambda y, m=method, o=options: final(y, m, **o))(y)
        reverse = jacrev(lambda y, m=method, o=options: final(y, m, **o))(y)
        torch.testing.assert_close(forward, reverse, rtol=1e-11, atol=1e-12)


def test_tangents_reach_times_args_and_closures():
    y = torch.ones(2, 2, dtype=DTYPE)

    def states(ts, rate, matrix):
        return odeum.solve(
            lambda t, y, rate: torch.tanh(y @ matrix) * rate + t, y, ts, rate, rtol=1e-6
        ).ys

    inputs = (TS, torch.tensor(0.5, dtype=DTYPE), torch.randn(2, 2, dtype=DTYPE))
    for forward, reverse in zip(
        jacfwd(states, argnums=(0, 1, 2))(*inputs),
        jacrev(states, argnums=(0, 1, 2))(*inputs),
        strict=True,
    ):
        torch.testing.assert_close(forward, reverse, rtol=1e-10, atol=1e-11)
        assert bool(forward.any())


def test_none_has_no_derivative():
    y = torch.ones(1, 2, dtype=DTYPE)
    assert not bool(grad(lambda y: final(y, "tsit5", "none") + 0 * y.sum())(y).any())
    assert not bool(jacfwd(lambda y: final(y, "tsit5", "none") + 0 * y.sum())(y).any())


@pytest.mark.parametrize("name", ["adjoint", "interpolated", "reversible", "forward"])
def test_gradients_with_their_own_backward_pass_say_so(name):
    y = torch.ones(1, 2, dtype=DTYPE)
    with pytest.raises(InputError, match=f"gradient='{name}' has a backward pass of its own"):
        grad(final)(y, "tsit5", name)


class Learned(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(2, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2)
        ).double()

    def forward(self, y, method="tsit5"):
        sol = odeum.solve(lambda t, y: self.net(y), y, TS, method=method, rtol=1e-6, atol=1e-8)
        return sol.ys, sol.stats.n_accepted, sol.status


def ensemble():
    models = [Learned() for _ in range(3)]
    with torch.no_grad():
        for factor, model in enumerate(models, start=1):
            for parameter in model.parameters():
                parameter.mul_(factor)  # each takes other steps
    return models, stack_module_state(models)[0]


@pytest.mark.parametrize("method", ["tsit5", "rodas5p"])
def test_an_ensemble_is_a_loop_of_solves(method):
    models, stacked = ensemble()
    y0 = torch.randn(4, 2, dtype=DTYPE)
    ys, n_accepted, status = vmap(lambda p: functional_call(models[0], p, (y0, method)))(stacked)
    each = [model(y0, method) for model in models]
    torch.testing.assert_close(ys, torch.stack([x[0] for x in each]), rtol=1e-12, atol=1e-13)
    assert torch.equal(n_accepted, torch.stack([x[1] for x in each]))
    assert len(n_accepted.unique()) > 1
    assert torch.equal(status, torch.zeros(3, 4, dtype=torch.int64))


def test_an_ensemble_trains_in_one_call():
    models, stacked = ensemble()
    y0 = torch.randn(2, 2, dtype=DTYPE)

    def loss(parameters, y0):
        return functional_call(models[0], parameters, (y0,))[0].square().sum()

    found = vmap(grad(loss), in_dims=(0, None))(stacked, y0)
    total = vmap(loss, in_dims=(0, None))(stacked, y0).sum()
    plain = torch.autograd.grad(total, list(stacked.values()))
    for i, model in enumerate(models):
        expected = torch.autograd.grad(model(y0)[0].square().sum(), list(model.parameters()))
        for one, other, want in zip(found.values(), plain, expected, strict=True):
            torch.testing.assert_close(one[i], want, rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(other[i], want, rtol=1e-9, atol=1e-11)


class Scaled(torch.autograd.Function):
    """An operation that hides from torch's function modes what it is given."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, factor):
        return x * factor

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        x, factor = ctx.saved_tensors
        return g * factor, (g * x).sum()


@pytest.mark.sweep(2)
@pytest.mark.parametrize("shape", [(2,), (3, 2)])
@pytest.mark.parametrize("kind", ["closure", "argument", "returned", "function"])
def test_gradients_of_every_entry_by_what_the_field_captures(kind, shape):
    """The tensor is mapped below the gradient: it is laid open once, or for each evaluation."""

    def field(t, y, args=None):
        factor = matrix.sum() / 4 if args is None else args.sum() / 4
        if kind == "returned":
            return matrix[0].expand(y.shape)
        if kind == "function":
            return Scaled.apply(y.sin(), factor)
        return torch.stack([y, y.cos()]).mean(0) @ (matrix if args is None else args) * factor

    def loss(m):
        nonlocal matrix
        matrix = m
        args = m if kind == "argument" else None
        return (odeum.solve(field, y0, TS, args, rtol=1e-6).ys[-1] ** 2).sum()

    matrix = None
    y0, matrices = torch.randn(shape, dtype=DTYPE), torch.randn(3, 2, 2, dtype=DTYPE)
    wanted = torch.stack([grad(loss)(m) for m in matrices])
    torch.testing.assert_close(vmap(grad(loss))(matrices), wanted, rtol=1e-9, atol=1e-11)
    vectors = torch.randn(3, 2, 2, dtype=DTYPE)
    products = [
        torch.func.vjp(grad(loss), m)[1](v)[0] for m, v in zip(matrices, vectors, strict=True)
    ]
    found = vmap(lambda m, v: torch.func.vjp(grad(loss), m)[1](v)[0])(matrices, vectors)
    torch.testing.assert_close(found, torch.stack(products), rtol=1e-8, atol=1e-10)


def test_vmap_nests_with_everything():
    y = torch.randn(2, 2, 2, dtype=DTYPE)
    wanted = torch.stack([jacrev(final)(x, "tsit5") for x in y])
    for transform in (jacrev, jacfwd):
        found = vmap(lambda y, transform=transform: transform(final)(y, "tsit5"))(y)
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)
        outside = transform(lambda y: vmap(lambda y: final(y, "tsit5"))(y).sum())(y)
        torch.testing.assert_close(outside, wanted, rtol=1e-11, atol=1e-12)
    rows = vmap(vmap(lambda y: final(y[None], "tsit5")))(y)
    torch.testing.assert_close(rows[1, 0], final(y[1, :1], "tsit5"), rtol=1e-12, atol=0)


def test_times_args_and_rows_may_be_mapped():
    def ys(y0, ts, rate):
        return odeum.solve(lambda t, y, rate: -rate * y**2, y0, ts, odeum.per_row(rate)).ys

    y0 = torch.rand(3, 2, 1, dtype=DTYPE) + 0.5
    ts = torch.rand(3, 4, dtype=DTYPE).cumsum(1)
    rate = torch.rand(3, 2, 1, dtype=DTYPE) * 5
    wanted = torch.stack([ys(*x) for x in zip(y0, ts, rate, strict=True)])
    torch.testing.assert_close(vmap(ys)(y0, ts, rate), wanted, rtol=1e-12, atol=1e-13)
    shared = torch.stack([ys(y0[0], x, rate[0]) for x in ts])
    found = vmap(ys, in_dims=(None, 0, None))(y0[0], ts, rate[0])
    torch.testing.assert_close(found, shared, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("coupling", ["independent", "joint"])
def test_mapped_systems_pytrees_and_dense_output(coupling):
    matrix = torch.randn(3, 2, 2, dtype=DTYPE)

    def states(matrix, y):
        def field(t, y):
            return {"a": torch.tanh(y["b"] @ matrix) * t, "b": -y["a"]}

        sol = odeum.solve(field, y, TS, coupling=coupling, dense=True)
        return sol.ys["a"], sol(0.3)["b"], sol.stats.n_accepted

    for shape in ((2,), (4, 2)):
        y = {"a": torch.randn(shape, dtype=DTYPE), "b": torch.randn(shape, dtype=DTYPE)}
        found = vmap(states, in_dims=(0, None))(matrix, y)
        for i in range(3):
            for one, other in zip(found, states(matrix[i], y), strict=True):
                torch.testing.assert_close(one[i], other, rtol=1e-12, atol=1e-13)


def falling(y, gravity):
    bounce = odeum.Event(
        lambda t, y: y[:, 0],
        direction=-1,
        jump=lambda t, y: torch.stack([torch.zeros_like(y[:, 0]), -0.7 * y[:, 1]], -1),
    )
    sol = odeum.solve(
        lambda t, y: torch.stack([y[:, 1], -gravity + 0 * y[:, 1]], -1), y, TS, events=bounce
    )
    return torch.cat([sol.ys[-1].flatten(), sol.events[0].times[0]])


def test_events_go_through_transforms():
    y, gravity = torch.tensor([[1.0, 0.0], [2.0, 0.3]], dtype=DTYPE), torch.tensor(9.0, dtype=DTYPE)
    expected = differences(lambda g: falling(y, g), gravity)
    for transform in (jacrev, jacfwd):
        found = transform(falling, argnums=1)(y, gravity)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    many = torch.tensor([9.0, 8.0], dtype=DTYPE)
    wanted = torch.stack([falling(y, g) for g in many])
    torch.testing.assert_close(vmap(falling, (None, 0))(y, many), wanted, rtol=1e-12, atol=1e-13)
    with pytest.raises(InputError, match="first derivatives only"):
        hessian(lambda g: falling(y, g).sum())(gravity)


class Conservative(torch.nn.Module):
    """Differentiates its energy as users write it, by ``torch.autograd``."""

    def forward(self, t, y):
        with torch.enable_grad():
            y = y if y.requires_grad else y.detach().requires_grad_()
            energy = (y**4).sum() + (y[:, 0] * y[:, 1].sin()).sum()
            slope = torch.autograd.grad(energy, y, create_graph=True)[0]
        return torch.stack([slope[:, 1], -slope[:, 0]], -1)


def energetic(y):
    return (odeum.solve(Conservative(), y, TS).ys[-1] ** 2).sum()


def test_dual_numbers_reach_a_field_that_differentiates_inside():
    y, direction = torch.rand(2, 2, dtype=DTYPE), torch.randn(2, 2, dtype=DTYPE)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(energetic(forward_ad.make_dual(y, direction))).tangent
    leaf = y.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(energetic(leaf), leaf)
    torch.testing.assert_close(found, (wanted * direction).sum(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("transform", [grad, jacfwd, hessian])
def test_a_field_that_differentiates_inside_is_told_how(transform):
    with pytest.raises(InputError, match=r"use torch\.func\.grad there"):
        transform(energetic)(torch.rand(1, 2, dtype=DTYPE))


@pytest.mark.parametrize("gradient", sorted(set(GRADIENTS) - {"none"}))
def test_batched_cotangents(gradient):
    y, matrix = torch.randn(2, 2, dtype=DTYPE), torch.randn(2, 2, dtype=DTYPE).requires_grad_()

    def end(y, matrix):
        ys = odeum.solve(lambda t, y: torch.tanh(y @ matrix), y, TS, gradient=gradient).ys
        return ys[-1]

    inputs = (y.requires_grad_(), matrix)
    wanted = torch.autograd.functional.jacobian(end, inputs)
    vectorized = torch.autograd.functional.jacobian(end, inputs, vectorize=True)
    torch.testing.assert_close(vectorized, wanted, rtol=1e-12, atol=1e-14)
    output = end(*inputs)
    mapped = vmap(lambda g: torch.autograd.grad(output, inputs, g, retain_graph=True))(
        torch.eye(4, dtype=DTYPE).view(4, 2, 2)
    )
    for one, other in zip(mapped, wanted, strict=True):
        torch.testing.assert_close(one.view_as(other), other, rtol=1e-12, atol=1e-14)


def test_a_failure_names_the_entry_of_the_map():
    def blown(y):
        return odeum.solve(lambda t, y: y**2, y, 3 * TS, step=odeum.StepOptions(max_steps=20)).ys

    with pytest.raises(SolveError, match="row 3 of 4") as caught:
        vmap(blown)(torch.tensor([[[-1.0], [-1.0]], [[-1.0], [2.0]]], dtype=DTYPE))
    assert "row i % 2 of entry i // 2" in caught.value.__notes__[0]


def test_tolerances_are_not_mapped():
    y = torch.ones(2, 1, dtype=DTYPE)
    with pytest.raises(InputError, match="all entries share them"):
        vmap(lambda atol: odeum.solve(lambda t, y: -y, y, TS, atol=atol).ys)(torch.ones(2))
