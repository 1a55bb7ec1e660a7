"""Gradients: those of torchdiffeq, through the steps and by the adjoint equation."""

import pytest
import torch
from peers import FIXED, Swing, ours, start, theirs, truth
from torch.testing import assert_close

# Both libraries say so of the tight default tolerances, and both go on.
pytestmark = pytest.mark.filterwarnings("ignore:.*did not converge")

TIMES = torch.tensor([0.0, 0.4, 1.1, 1.5], dtype=torch.float64)


def gradients(solve, t=TIMES, y0=None, field=None, **kwargs):
    """Of a weighted sum of states: with respect to the start, the times and the parameters."""
    field = field or Swing()
    y0 = (start() if y0 is None else y0).requires_grad_()
    t = t.clone().requires_grad_()
    ys = solve(field, y0, t, **kwargs)
    loss = (ys * torch.linspace(0.5, 1.5, ys.numel()).reshape(ys.shape)).sum()
    if loss.is_complex():
        loss = loss.real
    return torch.autograd.grad(loss, [y0, t, *field.parameters()])


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("method", FIXED)
def test_through_the_steps_of_a_grid_they_agree_to_rounding(method, reverse):
    t = TIMES.flip(0) if reverse else TIMES
    for options in ({}, {"step_size": 0.3, "interp": "cubic"}):
        kwargs = {"method": method, "options": options}
        mine = gradients(ours.odeint, t, **kwargs)
        wanted = gradients(theirs.odeint, t, **kwargs)
        for x, y in zip(mine, wanted, strict=True):
            assert_close(x, y, rtol=1e-10, atol=1e-11)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("solver", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize("method", ["dopri5", "dopri8", "bosh3"])
def test_where_steps_adapt_they_agree_to_the_tolerance(method, solver, reverse):
    t = TIMES.flip(0) if reverse else TIMES
    kwargs = {"method": method, "rtol": 1e-7, "atol": 1e-8}
    mine = gradients(getattr(ours, solver), t, **kwargs)
    wanted = gradients(lambda field, y0, t: truth(theirs.odeint, field, y0, t), t)
    for x, y in zip(mine, wanted, strict=True):
        assert_close(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("method", FIXED)
def test_the_adjoint_on_a_grid_agrees_to_rounding(method, reverse):
    t = TIMES.flip(0) if reverse else TIMES
    kwargs = {"method": method, "options": {"step_size": 0.1}}
    mine = gradients(ours.odeint_adjoint, t, **kwargs)
    wanted = gradients(theirs.odeint_adjoint, t, **kwargs)
    for i, (x, y) in enumerate(zip(mine, wanted, strict=True)):
        assert_close(x, y, rtol=1e-10, atol=1e-11, msg=str(i))


def test_gradients_can_be_differentiated_again():
    """A network of the gradient, as physics-informed losses need."""
    seconds = []
    for library in (ours, theirs):
        field, y0 = Swing(), start().requires_grad_()
        y1 = library.odeint(field, y0, TIMES, method="dopri5", rtol=1e-9, atol=1e-10)[-1]
        (first,) = torch.autograd.grad(y1.sum(), y0, create_graph=True)
        seconds.append(torch.autograd.grad((first**2).sum(), field.damping)[0])
    assert_close(*seconds, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("solver", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_of_a_tuple(solver, method):
    class Pair(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = torch.nn.Parameter(torch.tensor(0.7))

        def forward(self, t, y):
            return -self.rate * y[1].expand(2), self.rate * y[0].sum() + torch.sin(t) * y[1]

    found = []
    for library in (ours, theirs):
        field = Pair()
        y0 = (torch.tensor([1.0, 0.5], requires_grad=True), torch.tensor(0.3, requires_grad=True))
        ys = getattr(library, solver)(field, y0, TIMES, method=method)
        loss = (ys[0] ** 2).sum() + ys[1][-1]
        found.append(torch.autograd.grad(loss, [*y0, field.rate]))
    for x, y in zip(*found, strict=True):
        assert_close(x, y, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("solver", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_of_a_complex_state_they_are_those_of_finite_differences(solver, method):
    class Spin(torch.nn.Module):
        def __init__(self, rate=0.7):
            super().__init__()
            self.rate = torch.nn.Parameter(torch.tensor(rate))

        def forward(self, t, y):
            return 1j * self.rate * y - 0.1 * y * y.abs() ** 2 * (1 + t)

    t = torch.linspace(0, 1, 21)

    def loss(y0, field):
        ys = getattr(ours, solver)(field, y0, t, method=method)
        return (ys[-1] * torch.tensor([1 - 2j, 0.5j])).real.sum()

    y0 = torch.tensor([1 + 0.5j, -0.3j], requires_grad=True)
    field = Spin()
    g_y0, g_rate = torch.autograd.grad(loss(y0, field), [y0, field.rate])
    with torch.no_grad():
        for direction in (1.0, 1j):
            shift = torch.tensor([direction, 0.0]) * 1e-5
            wanted = (loss(y0 + shift, field) - loss(y0 - shift, field)) / 2e-5
            given = g_y0[0].real if direction == 1.0 else g_y0[0].imag
            assert_close(given, wanted, rtol=1e-5, atol=1e-6)
        wanted = (loss(y0, Spin(0.7 + 1e-5)) - loss(y0, Spin(0.7 - 1e-5))) / 2e-5
    assert_close(g_rate, wanted, rtol=1e-5, atol=1e-6)


class TestAdjointArguments:
    def test_parameters_may_be_named(self):
        field = Swing()
        y = ours.odeint_adjoint(field, start(), TIMES, adjoint_params=(field.damping,))
        y.sum().backward()
        assert field.damping.grad is not None
        assert field.drive.grad is None

    def test_a_function_needs_its_parameters_named(self):
        field = Swing()
        for library in (ours, theirs):
            with pytest.raises(ValueError, match="adjoint_params"):
                library.odeint_adjoint(lambda t, y: field(t, y), start(), TIMES)
        y = ours.odeint_adjoint(
            lambda t, y: field(t, y), start(), TIMES, adjoint_params=iter(field.parameters())
        )
        y.sum().backward()
        assert field.drive.grad is not None

    def test_without_parameters_the_start_still_has_its_gradient(self):
        y0 = start().requires_grad_()
        ours.odeint_adjoint(lambda t, y: -y, y0, TIMES, adjoint_params=())[-1].sum().backward()
        assert_close(y0.grad, torch.exp(-TIMES[-1]).expand(3, 2), rtol=1e-6, atol=0)

    def test_frozen_parameters_are_left_out(self):
        field = Swing()
        field.drive.requires_grad_(False)
        shapes = []
        norm = lambda tensors: (shapes.append([x.shape for x in tensors]), tensors[0].abs())[1]  # noqa: E731
        with pytest.warns(UserWarning, match=r"grad"):
            y = ours.odeint_adjoint(field, start(), TIMES, adjoint_options={"norm": norm})
        y.sum().backward()
        assert shapes[0] == [(), (3, 2), (3, 2), ()]

    def test_a_replica_holds_its_parameters_as_attributes(self):
        field = Swing()
        weights = dict(field.named_parameters())
        for name in weights:
            delattr(field, name)
            setattr(field, name, weights[name].detach().clone().requires_grad_())
        field._is_replica = True
        ours.odeint_adjoint(field, start(), TIMES).sum().backward()
        assert field.damping.grad is not None

    def test_another_method_needs_options_of_its_own(self):
        for library in (ours, theirs):
            with pytest.raises(ValueError, match="adjoint_options"):
                library.odeint_adjoint(
                    Swing(), start(), TIMES, method="rk4", adjoint_method="dopri5",
                    options={"step_size": 0.1},
                )  # fmt: skip

    def test_the_backward_solve_may_have_its_own_method_tolerances_and_options(self):
        kwargs = {
            "method": "dopri5", "rtol": 1e-9, "atol": 1e-10, "adjoint_method": "rk4",
            "adjoint_options": {"step_size": 0.5},
        }  # fmt: skip
        mine = gradients(ours.odeint_adjoint, **kwargs)
        wanted = gradients(theirs.odeint_adjoint, **kwargs)
        for x, y in zip(mine, wanted, strict=True):
            assert_close(x, y, rtol=1e-6, atol=1e-7)
        loose = gradients(ours.odeint_adjoint, rtol=1e-9, adjoint_rtol=1e-2, adjoint_atol=1e-2)
        exact = gradients(theirs.odeint, rtol=1e-11, atol=1e-12)
        assert max((x - y).abs().max() for x, y in zip(loose, exact, strict=True)) > 1e-6

    def test_the_options_of_the_forward_solve_are_kept_but_for_its_norm(self):
        seen = []

        def norm(x):
            seen.append(type(x))
            return x.abs().max()

        options = {"norm": norm, "max_step": 0.2}
        gradients(ours.odeint_adjoint, method="dopri5", options=options)
        assert set(seen) == {torch.Tensor}

    @pytest.mark.parametrize("is_tuple", [False, True], ids=["tensor", "tuple"])
    def test_a_norm_is_given_time_state_adjoint_and_parameters(self, is_tuple):
        class Pair(Swing):
            def forward(self, t, y):
                return (super().forward(t, y[0]), -y[1]) if is_tuple else super().forward(t, y)

        shapes = []
        for library in (ours, theirs):

            def norm(tensors):
                shapes.append([tuple(x.shape) for x in tensors])
                return max(x.abs().max() for x in tensors)

            y0 = (start(), torch.ones(2)) if is_tuple else start()
            ys = library.odeint_adjoint(Pair(), y0, TIMES, adjoint_options={"norm": norm})
            (ys[0] if is_tuple else ys).sum().backward()
        assert shapes[0] == shapes[-1]
        assert len(shapes[0]) == (7 if is_tuple else 5)

    def test_the_seminorm_leaves_parameters_out(self):
        """With a parameter whose integrand swings fast, steps of the seminorm are fewer."""

        class Fast(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.tensor(0.0))
                self.n_evaluations = 0

            def forward(self, t, y):
                self.n_evaluations += 1
                return -0.1 * y + self.weight * torch.cos(50 * t)

        counts = {}
        for library in (ours, theirs):
            for options in (None, {"norm": "seminorm"}):
                field = Fast()
                ys = library.odeint_adjoint(
                    field, torch.ones(1), TIMES, rtol=1e-5, atol=1e-7, adjoint_options=options
                )
                field.n_evaluations = 0
                ys.sum().backward()
                counts[library, options is None] = field.n_evaluations
        for library in (ours, theirs):
            assert counts[library, False] < counts[library, True] / 2

    def test_tolerances_of_the_tensors_of_a_tuple_reach_the_backward_solve(self):
        class Pair(Swing):
            def forward(self, t, y):
                return super().forward(t, y[0]), -y[1]

        field = Pair()
        ys = ours.odeint_adjoint(
            field, (start(), torch.ones(2)), TIMES, rtol=(1e-8, 1e-6), atol=(1e-9, 1e-7)
        )
        ys[0].sum().backward()
        wanted = theirs.odeint(other := Swing(), start(), TIMES, rtol=1e-10, atol=1e-11)
        wanted.sum().backward()
        assert_close(field.damping.grad, other.damping.grad, rtol=1e-6, atol=1e-7)
