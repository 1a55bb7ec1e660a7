"""The reversible gradient against the same scheme written out under autograd, and other truths."""

import math

import pytest
import torch
from torch import nn

import odeum
import odeum.tableaus
from odeum.errors import InputError, SolveError
from odeum.gradient import reversible, way_back
from odeum.gradient.reversible import Reversible

EXPLICIT = list(odeum.tableaus.EXPLICIT)


@pytest.fixture(autouse=True)
def _doubles():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Field(nn.Module):
    """Nonlinear, time-dependent, with parameters and per-row arguments."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        self.unused = nn.Parameter(torch.zeros(3))

    def forward(self, t, y, args):
        scale, shift = args
        time = t.expand(len(y), 1)
        return self.net(torch.cat([y, time], -1)) * scale + torch.sin(shift) * y


def explicit_step(tableau, f, t, h, x):
    """One step of a tableau, from the textbook."""
    ks = []
    for row, c in zip(tableau.a, tableau.c, strict=True):
        stage = x + h * sum((float(a) * k for a, k in zip(row, ks, strict=False)), torch.zeros(()))
        ks.append(f(t + float(c) * h, stage))
    return x + h * sum(float(b) * k for b, k in zip(tableau.b, ks, strict=True))


def written_out(tableau, f, y0, t0, hs, coupling, joined=()):
    """The state after steps of sizes ``hs``, by the scheme as it is published, for autograd.

    ``joined`` are the numbers of steps, counted from 1, after which both solutions are one.
    """
    y, z, t = y0, y0, t0
    for n, h in enumerate(hs, 1):
        y = coupling * y + (1 - coupling) * z + (explicit_step(tableau, f, t, h, z) - z)
        z = z - (explicit_step(tableau, f, t + h, -h, y) - y)
        t = t + h
        if n in joined:
            z = y
    return y


def case(*, coupling="independent"):
    field = Field()
    y0 = torch.randn(4, 2, requires_grad=True)
    scale = torch.tensor(0.7, requires_grad=True)
    shift = torch.randn(4, 1, requires_grad=True)
    args = (scale, shift if coupling == "joint" else odeum.per_row(shift))
    return field, y0, args, [y0, scale, shift, *field.net.parameters()]


def loss_of(ys):
    return (ys**2 * torch.arange(1, len(ys) + 1).view(-1, 1, 1)).sum()


def assert_same(found, wanted, rtol=1e-11):
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * float(b.abs().max()))


def plain(field, args, shift):
    return lambda t, y: field(t, y, (args[0], shift))


@pytest.mark.parametrize("sign", [1, -1], ids=["forwards", "backwards"])
@pytest.mark.parametrize("coupling", ["independent", "joint"])
@pytest.mark.parametrize("method", EXPLICIT)
def test_equals_the_scheme_written_out(method, coupling, sign):
    field, y0, args, inputs = case(coupling=coupling)
    ts = sign * torch.tensor([0.3, 1.2])
    how = {"method": method, "coupling": coupling, "step": odeum.StepOptions(fixed=0.18)}
    gradient = Reversible(coupling=0.9, interval=3)
    # Tolerances that never let the solutions come too far apart: joined by the interval alone.
    sol = odeum.solve(field, y0, ts, args, gradient=gradient, rtol=1.0, atol=1.0, **how)
    tableau, f = odeum.tableaus.EXPLICIT[method], plain(field, args, inputs[2])
    y1 = written_out(tableau, f, y0, ts[0], [sign * 0.18] * 5, 0.9, joined=(3,))
    torch.testing.assert_close(sol.ys[-1], y1, rtol=1e-13, atol=1e-13)
    found = torch.autograd.grad((sol.ys[-1] ** 2).sum(), inputs)
    assert_same(found, torch.autograd.grad((y1**2).sum(), inputs))
    assert torch.equal(sol.stats.backward.n_accepted, torch.full((4,), 5))
    stages = 10 * (tableau.n_stages - tableau.first_same_as_last)
    assert torch.equal(sol.stats.backward.n_evaluations, torch.full((4,), stages))


@pytest.mark.parametrize("per_row", [False, True], ids=["shared", "per row"])
@pytest.mark.parametrize("sign", [1, -1], ids=["forwards", "backwards"])
@pytest.mark.parametrize("method", EXPLICIT)
def test_gradcheck_with_outputs_inside_steps(method, sign, per_row):
    """Finite differences: a fixed step size, outputs by the dense output, times too."""
    field, y0, _, inputs = case()
    ts = sign * torch.tensor([0.3, 0.37, 0.61, 0.62, 1.15])
    if per_row:
        ts = ts[:, None] * torch.tensor([1.0, 1.3, 0.7, 2.0])
    ts = ts.clone().requires_grad_()

    def outputs(y0, ts, scale, shift, *weights):
        return odeum.solve(
            field,
            y0,
            ts,
            (scale, odeum.per_row(shift)),
            method=method,
            step=odeum.StepOptions(fixed=0.2),
            gradient=Reversible(interval=2),
            rtol=1.0,
        ).ys

    torch.autograd.gradcheck(outputs, (y0, ts, *inputs[1:]), fast_mode=True, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", ["tsit5", "rk4"])
def test_gradcheck_from_output_to_output(method):
    field, y0, args, _ = case()
    ts = torch.tensor([0.3, 0.37, 0.61, 0.62, 1.15]).requires_grad_()
    step = odeum.StepOptions(fixed=0.2) if method == "tsit5" else None

    def outputs(y0, ts):
        return odeum.solve(field, y0, ts, args, method=method, step=step, gradient="reversible").ys

    torch.autograd.gradcheck(outputs, (y0, ts), rtol=1e-6, atol=1e-7)


def watched(monkeypatch):
    """The steps that the next solve takes, as it goes."""
    trails = []

    class Watched(way_back.Trail):
        def __init__(self, y0):
            super().__init__(y0)
            trails.append(self)

    monkeypatch.setattr(reversible, "Trail", Watched)
    return trails


@pytest.mark.parametrize("coupling", [0.9, 0.99, 0.999])
def test_steps_that_adapt_are_replayed_exactly(coupling, monkeypatch):
    """Rejections, rows with steps of their own, joints where the solutions came apart."""
    trails = watched(monkeypatch)
    rates = torch.tensor([1.0, 4.0, 9.0])[:, None].requires_grad_()
    y0 = torch.tensor([[1.0], [0.3], [-0.5]], requires_grad=True)
    ts = torch.tensor([0.0, 6.0])
    f = lambda t, y, rate: -rate * (y - torch.cos(3 * t)) - y**3  # noqa: E731
    how = {"rtol": 1e-5, "atol": 1e-7, "step": odeum.StepOptions(first=0.6)}
    args = odeum.per_row(rates)
    sol = odeum.solve(f, y0, ts, args, gradient=Reversible(coupling), **how)
    assert (sol.stats.n_rejected > 0).all()
    found = torch.autograd.grad(sol.ys[-1].sum(), [y0, rates])
    (trail,) = trails
    n_joints = 0
    for row in range(3):
        hs, joined = [], []
        for record, joint in trail.way:
            at = (record.rows == row).nonzero()
            if len(at):
                hs.append(record.h[at[0]].squeeze())
                if joint is not None and bool((joint.rows == row).any()):
                    joined.append(len(hs))
        n_joints += len(joined)
        g = lambda t, y, row=row: f(t, y, rates[row])  # noqa: E731
        y1 = written_out(odeum.tableaus.TSIT5, g, y0[row], ts[0], hs, coupling, joined)
        torch.testing.assert_close(sol.ys[-1, row], y1, rtol=1e-12, atol=1e-12)
        wanted = torch.autograd.grad(y1.sum(), [y0, rates])
        assert_same([x[row] for x in found], [x[row] for x in wanted], rtol=1e-9)
    assert n_joints > 3
