"""Integrals along a solution: exact values, untouched steps, gradients by every way."""

import math

import pytest
import torch
from torch import nn

import odeum
from odeum.eager.jacobian import load_forward_mode
from odeum.regularisers import Derivative, JacobianFrobenius, kinetic_energy

METHODS = [
    "tsit5",
    "dopri8",
    "vern7",
    "rodas5p",
    "trbdf2",
    "kvaerno5",
    "radau5",
    "auto",
    "implicit_adams",
    "explicit_adams",
    "gauss4",
    "rk4",
]
INTEGRALS = {
    "kinetic": kinetic_energy,
    "jacobian": JacobianFrobenius(),
    "R2": Derivative(2),
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()

    def forward(self, t, y):
        return self.layers(torch.cat([y, t.expand(len(y), 1)], -1))


def states(n=5):
    return torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def grid(t1=2.0, n=6):
    return torch.linspace(0, t1, n, dtype=torch.float64)


def stiff(t, y):
    return torch.stack([-200 * (y[:, 0] - torch.cos(t[:, 0])), y[:, 0] - y[:, 1] ** 3], -1)


def assert_untouched(field, y0, ts, **options):
    plain = odeum.solve(field, y0, ts, **options)
    sol = odeum.solve(field, y0, ts, integrals=INTEGRALS, **options)
    assert torch.equal(plain.ys, sol.ys)
    for name in ("n_accepted", "n_rejected", "n_evaluations"):
        assert torch.equal(getattr(plain.stats, name), getattr(sol.stats, name))
    assert all(bool(x.isfinite().all()) for x in sol.integrals.values())


@pytest.mark.sweep(3)
@pytest.mark.parametrize("gradient", ["none", "discrete", "autograd"])
@pytest.mark.parametrize("method", METHODS)
def test_steps_and_states_are_the_same_to_the_bit(method, gradient):
    options = {"method": method, "gradient": gradient}
    if not odeum.methods.describe(method).adaptive:
        options["step"] = odeum.StepOptions(fixed=0.1)
    # Rows that end at times of their own.
    ts = grid(1.0).unsqueeze(-1) * torch.linspace(0.5, 1, 3).double()
    assert_untouched(Net(), states(3), ts, **options)


@pytest.mark.parametrize("gradient", ["adjoint", "interpolated", "reversible"])
def test_no_gradient_changes_the_steps(gradient):
    assert_untouched(Net(), states(3).requires_grad_(), grid(1.0), gradient=gradient)


@pytest.mark.parametrize("method", ["rodas5p", "kvaerno5", "radau5", "auto"])
def test_stiff_steps_are_the_same_to_the_bit(method):
    assert_untouched(stiff, states(3), grid(0.5, 3), method=method, gradient="none")


def decay(t, y):
    """y = y0 exp(sin t - t)."""
    return (torch.cos(t) - 1) * y


ORDERS = {
    "rk4": 4,
    "heun3": 3,
    "tsit5": 5,
    "rodas4": 4,
    "rodas5p": 5,
    "sdirk2": 2,
    "kvaerno4": 4,
    "gauss4": 4,
    "radau5": 5,
    "implicit_adams": 4,
    "explicit_adams": 4,
}


def exact_integral(y0, t1):
    """Of (cos t - 1)^2 y^2, by Gauss-Legendre quadrature in many parts."""
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(40)
    t = (nodes + 1) * t1 / 2
    y = y0 * np.exp(np.sin(t) - t)
    return float((weights * t1 / 2 * (np.cos(t) - 1) ** 2 * y**2).sum())


@pytest.mark.parametrize("method", ORDERS)
def test_integrals_converge_with_the_order_of_the_method(method):
    y0 = torch.tensor([[1.3]], dtype=torch.float64)
    exact = exact_integral(1.3, 3.0)
    errors = []
    steps = (16, 32)
    for n in steps:
        sol = odeum.solve(
            decay,
            y0,
            grid(3.0, 2),
            method=method,
            step=odeum.StepOptions(fixed=3.0 / n),
            integrals={"kinetic": kinetic_energy},
        )
        errors.append(abs(float(sol.integrals["kinetic"][-1, 0]) - exact))
    slope = math.log2(errors[-2] / errors[-1])
    assert slope > ORDERS[method] - 0.35, errors


def test_integrals_at_every_output_per_row_and_backwards():
    y0 = torch.tensor([[1.3], [0.7]], dtype=torch.float64)
    ts = torch.stack([grid(3.0, 5), grid(1.5, 5)], 1)
    options = {"rtol": 1e-10, "atol": 1e-12, "integrals": {"kinetic": kinetic_energy}}
    sol = odeum.solve(decay, y0, ts, method="dopri8", **options)
    for i in range(5):
        for row in range(2):
            expected = exact_integral(float(y0[row, 0]), float(ts[i, row]))
            assert abs(float(sol.integrals["kinetic"][i, row]) - expected) < 1e-8
    back = odeum.solve(decay, sol.ys[-1], ts.flip(0), method="dopri8", **options)
    forward = sol.integrals["kinetic"]
    torch.testing.assert_close(
        back.integrals["kinetic"].flip(0), forward - forward[-1], rtol=1e-7, atol=1e-8
    )


def test_the_adjoint_does_not_solve_integrals_again():
    """A rough one, on which no gradient depends but by its weight, costs no steps backwards."""
    torch.manual_seed(0)
    net, y0, ts = Net(), torch.randn(3, 2), torch.linspace(0, 3, 4)
    works, found = [], []
    for rough in (0.0, 100.0):
        sol = odeum.solve(
            net,
            y0,
            ts,
            gradient="adjoint",
            rtol=1e-7,
            atol=1e-9,
            integrals={
                "rough": lambda field, t, y, f, rough=rough: (
                    (f**2).sum(-1) + rough * torch.cos(20 * t[:, 0])
                )
            },
        )
        net.zero_grad()
        (sol.ys[-1].sum() + sol.integrals["rough"][-1].sum()).backward()
        works.append(sol.stats.backward.n_evaluations)
        found.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    assert torch.equal(*works)
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-14)


GRADIENTS = ["discrete", "autograd", "adjoint", "interpolated", "reversible", "forward"]


@pytest.mark.sweep(2)
@pytest.mark.parametrize(
    ("gradient", "method"),
    [
        *((gradient, "tsit5") for gradient in GRADIENTS),
        *(("discrete", method) for method in ("rodas5p", "kvaerno5", "radau5", "implicit_adams")),
    ],
)
def test_gradients_are_those_of_finite_differences(gradient, method):
    net, y0, ts = Net(), states(2).requires_grad_(), grid(0.5, 4).requires_grad_()
    noise = torch.ones(2, 2, dtype=torch.float64)
    integrals = {"kinetic": kinetic_energy, "jacobian": JacobianFrobenius(noise=noise)}
    if method == "tsit5":
        integrals["R2"] = Derivative(2)
    inputs = [y0, ts, *net.parameters()]

    def loss():
        sol = odeum.solve(
            net,
            y0,
            ts,
            method=method,
            gradient=gradient,
            rtol=1e-8 if method == "tsit5" else 1e-6,
            atol=1e-9,
            step=odeum.StepOptions(max=0.05),
            integrals=integrals,
        )
        weights = torch.arange(1.0, 5).double().unsqueeze(-1)
        return sol.ys.pow(2).sum() + sum((w * weights).sum() for w in sol.integrals.values())

    gradients = torch.autograd.grad(loss(), inputs)
    generator = torch.Generator().manual_seed(2)
    directions = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in inputs]
    analytic = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    values = []
    for shift in (1e-5, -1e-5):
        with torch.no_grad():
            for x, d in zip(inputs, directions, strict=True):
                x.add_(shift * d)
            values.append(float(loss()))
            for x, d in zip(inputs, directions, strict=True):
                x.sub_(shift * d)
    difference = (values[0] - values[1]) / 2e-5
    assert abs(float(analytic) - difference) < 3e-7 * abs(difference)


def test_they_go_with_structures_joint_and_single_states():
    y0, ts = states(3), grid(1.0, 4)
    net = Net()
    options = {"rtol": 1e-9, "atol": 1e-9, "integrals": INTEGRALS}
    noise = torch.ones_like(y0)
    options["integrals"] = {**INTEGRALS, "jacobian": JacobianFrobenius(noise=noise)}
    expected = odeum.solve(net, y0, ts, **options).integrals
    joint = odeum.solve(net, y0, ts, coupling="joint", **options)
    for name, values in joint.integrals.items():
        assert values.shape == (4, 3)
        torch.testing.assert_close(values, expected[name], rtol=1e-6, atol=1e-8)

    def split(t, y):
        dy = net(t, torch.cat([y["q"], y["p"]], -1))
        return {"q": dy[:, :1], "p": dy[:, 1:]}

    state = {"q": y0[:, :1], "p": y0[:, 1:]}
    options["integrals"]["jacobian"] = JacobianFrobenius(
        noise={"q": noise[:, :1], "p": noise[:, 1:]}
    )
    structured = odeum.solve(split, state, ts, **options)
    for name, values in structured.integrals.items():
        torch.testing.assert_close(values, expected[name], rtol=1e-6, atol=1e-8)

    def single(t, y):
        return net(t.reshape(1, 1), y.unsqueeze(0))[0]

    options["integrals"]["jacobian"] = JacobianFrobenius(noise=noise[0])
    alone = odeum.solve(single, y0[0], ts, **options)
    for name, values in alone.integrals.items():
        assert values.shape == (4,)
        torch.testing.assert_close(values, expected[name][:, 0], rtol=1e-6, atol=1e-8)


def test_integrals_go_through_jumps_and_breaks():
    """A ball that bounces: its kinetic energy integrates |v|^2 + g^2."""

    def fall(t, y):
        return torch.stack([y[:, 1], torch.full_like(y[:, 1], -2.0)], -1)

    event = odeum.Event(
        lambda t, y: y[:, 0], direction=-1, jump=lambda t, y: torch.stack([y[:, 0], -y[:, 1]], -1)
    )
    y0 = torch.tensor([[1.0, 0.0], [0.25, 0.0]], dtype=torch.float64)
    ts = grid(3.0, 7)
    sol = odeum.solve(
        fall, y0, ts, events=event, breaks=[0.7], dense=True, integrals={"kinetic": kinetic_energy}
    )
    plain = odeum.solve(fall, y0, ts, events=event, breaks=[0.7])
    assert torch.equal(sol.ys, plain.ys)
    assert torch.equal(sol.events[0].times.nan_to_num(0), plain.events[0].times.nan_to_num(0))
    assert sol.events[0].states.shape == plain.events[0].states.shape
    # Row 0 bounces at 1 and 3; between bounces |v| is a tent of slope 2.
    for row, period in ((0, 1.0), (1, 0.5)):
        t = ts
        phase = torch.remainder(t + period, 2 * period) - period  # time from the apex
        n_half = torch.floor((t + period) / (2 * period))
        speed = n_half * 2 * 4 * period**3 / 3 + 4 * phase**3 / 3
        torch.testing.assert_close(sol.integrals["kinetic"][:, row], speed + 4 * t)
    torch.testing.assert_close(sol(ts), sol.ys)


def test_dense_output_and_failures():
    def field(t, y):
        return y**2

    y0, ts = torch.tensor([[0.5], [2.0]], dtype=torch.float64), grid(1.0, 5)
    sol = odeum.solve(
        field,
        y0,
        ts,
        rtol=1e-8,
        atol=1e-8,
        dense=True,
        on_failure="mask",
        integrals={"kinetic": kinetic_energy},
    )
    assert sol(0.25).shape == (2, 1)
    values = sol.integrals["kinetic"]
    assert torch.equal(values.isnan(), sol.ys[..., 0].isnan())
    # y' = y^2: the integral of y^4 is (y^3 - y0^3) / 3.
    expected = (sol.ys[:, 0, 0] ** 3 - 0.5**3) / 3
    torch.testing.assert_close(values[:, 0], expected, rtol=1e-5, atol=1e-6)


def test_what_is_not_finite_in_an_integral_stays_there():
    y0, ts = states(), grid()
    for options in ({}, {"method": "rk4", "step": odeum.StepOptions(fixed=0.1)}):
        plain = odeum.solve(Net(), y0, ts, **options)
        broken = odeum.solve(
            Net(),
            y0,
            ts,
            integrals={"nan": lambda field, t, y, f: f[:, 0] / 0 - f[:, 0] / 0},
            **options,
        )
        assert torch.equal(plain.ys, broken.ys)
        assert bool(broken.integrals["nan"][1:].isnan().all())


def test_tolerances_per_component_hold_for_the_state():
    y0, ts = states(3).requires_grad_(), grid(1.0, 3)
    rtol = torch.tensor([1e-5, 1e-7], dtype=torch.float64)
    for gradient in ("discrete", "adjoint", "interpolated"):
        options = {"rtol": rtol, "atol": rtol, "gradient": gradient}
        plain = odeum.solve(Net(), y0, ts, **options)
        sol = odeum.solve(Net(), y0, ts, integrals={"kinetic": kinetic_energy}, **options)
        assert torch.equal(plain.ys, sol.ys)
        sol.integrals["kinetic"][-1].sum().backward()


def test_arguments_and_closures_reach_integrands():
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    y0 = torch.ones(2, 1, dtype=torch.float64)

    def field(t, y, rate):
        return -rate * y

    def cost(field, t, y, f):
        return weight * (field(t, y)[:, 0] * f[:, 0])

    rates = rate * torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    sol = odeum.solve(
        field,
        y0,
        grid(1.0, 2),
        odeum.per_row(rates),
        rtol=1e-9,
        atol=1e-9,
        integrals={"cost": cost},
    )
    k = rates[:, 0]
    expected = weight * k / 2 * (1 - torch.exp(-2 * k))
    torch.testing.assert_close(sol.integrals["cost"][-1], expected, rtol=1e-7, atol=0)
    ours, theirs = (
        torch.autograd.grad(x.sum(), [rate, weight], retain_graph=True)
        for x in (sol.integrals["cost"][-1], expected)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_no_graph_where_none_is_wanted():
    net, y0, ts = Net(), states(), grid()
    integrals = {**INTEGRALS, "R3": Derivative(3)}
    sol = odeum.solve(net, y0, ts, gradient="none", integrals=integrals)
    assert not any(x.requires_grad for x in sol.integrals.values())
    with torch.no_grad():
        sol = odeum.solve(net, y0, ts, integrals=integrals)
    assert not any(x.requires_grad for x in sol.integrals.values())


def test_transforms_of_torch_func_reach_integrals():
    load_forward_mode()
    net, y0, ts = Net(), states(2), grid(0.5, 2)
    integrals = {"jacobian": JacobianFrobenius(noise=torch.ones_like(y0))}

    def integral(y):
        sol = odeum.solve(net, y, ts, rtol=1e-8, atol=1e-8, integrals=integrals)
        return sol.integrals["jacobian"][-1]

    tangent = states(2).flip(0)
    _, rate = torch.func.jvp(integral, (y0,), (tangent,))
    with torch.no_grad():
        difference = (integral(y0 + 1e-5 * tangent) - integral(y0 - 1e-5 * tangent)) / 2e-5
    torch.testing.assert_close(rate, difference, rtol=1e-6, atol=1e-9)
    with pytest.raises(odeum.InputError, match="vmap"):
        torch.func.vmap(integral)(torch.stack([y0, y0]))


def test_a_penalised_field_is_cheaper_to_solve_at_equal_fit():
    """Swinging to and fro on the way changes no end point: only the penalty ends it."""
    y0 = torch.linspace(-1, 1, 4, dtype=torch.float64).unsqueeze(-1)
    ts = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def field(t, y, args):
        drift, swing = args
        return drift + swing * torch.cos(4 * math.pi * t) + 0 * y

    name, weight = "kinetic", 1e-2
    error, evaluations = {}, {}
    for factor in (0.0, weight):
        weights = torch.tensor([0.5, 3.0], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([weights], lr=0.3, betas=(0.5, 0.9))
        for _ in range(20):
            sol = odeum.solve(
                field,
                y0,
                ts,
                weights.unbind(),
                method="rk4",
                step=odeum.StepOptions(fixed=0.125),
                gradient="autograd",
                integrals={name: INTEGRALS[name]},
            )
            loss = (sol.ys[-1] - y0 - 1).pow(2).mean()
            optimizer.zero_grad()
            (loss + factor * sol.integrals[name][-1].mean()).backward()
            optimizer.step()
        with torch.no_grad():
            sol = odeum.solve(field, y0, ts, weights.unbind(), rtol=1e-6, atol=1e-6)
        error[factor] = float((sol.ys[-1] - y0 - 1).abs().max())
        evaluations[factor] = float(sol.stats.n_evaluations.double().mean())
    assert error[weight] < 0.05, (error, evaluations)
    assert evaluations[weight] < 0.7 * evaluations[0.0], (error, evaluations)


def test_what_cannot_be_integrated_is_refused():
    y0, ts = states(), grid()

    def refused(match, **options):
        with pytest.raises(odeum.InputError, match=match):
            odeum.solve(Net(), y0, ts, **options)

    refused("give a dict", integrals=[kinetic_energy])
    refused("give a function g", integrals={"jacobian": JacobianFrobenius})
    refused("give a function g", integrals={"kinetic": "kinetic"})
    refused("symplectic methods", integrals=INTEGRALS, method="leapfrog")
    refused("SciPy|odeum's own", integrals=INTEGRALS, method="scipy:LSODA")
    refused("one number per row", integrals={"whole": lambda field, t, y, f: f.sum()})
    refused("one number per row", integrals={"float": lambda field, t, y, f: 1.0})
