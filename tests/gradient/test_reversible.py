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


@pytest.mark.parametrize(("coupling", "sign"), [("independent", 1), ("joint", -1)])
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


@pytest.mark.sweep(3)
@pytest.mark.parametrize(
    ("method", "per_row", "sign"),
    [
        *((m, False, 1) for m in EXPLICIT[::2]),
        *((m, True, -1) for m in EXPLICIT[1::2]),
        ("tsit5", True, -1),
    ],
)
def test_gradcheck_with_outputs_inside_steps(method, sign, per_row):
    """Finite differences: a fixed step size, outputs by the dense output, times too."""
    field, y0, _, inputs = case()
    ts = sign * torch.tensor([0.3, 0.37, 0.55, 0.56, 0.78])
    if per_row:
        ts = ts[:, None] * torch.tensor([1.0, 1.3, 0.7, 1.6])
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

    torch.autograd.gradcheck(outputs, (y0, ts), fast_mode=True, rtol=1e-6, atol=1e-7)


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
    ts = torch.tensor([0.0, 4.0])
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


def decay(t, y):
    return -y


@pytest.mark.parametrize("method", [m for m in EXPLICIT if m not in ("vern9", "dopri8", "vern7")])
def test_keeps_the_order_of_its_method(method):
    """Slope of the error between two step sizes, on a nonlinear non-autonomous problem."""
    f = lambda t, y: torch.cos(t) * y - y**2 / 4  # noqa: E731
    y0, ts = torch.tensor([[1.0]]), torch.tensor([0.0, 2.4])
    truth = odeum.solve(f, y0, ts, method="dopri8", rtol=1e-13, atol=1e-14, gradient="none").ys
    order = odeum.methods.describe(method).order
    coarse, ratio = (24, 4) if order < 5 else (20, 2)
    errors = []
    for n in (coarse, coarse * ratio):
        step = odeum.StepOptions(fixed=2.4 / n)
        # So loose that the solutions are never joined: it is their order that is asked for.
        sol = odeum.solve(f, y0, ts, method=method, step=step, gradient="reversible", rtol=1.0)
        errors.append(float((sol.ys[-1] - truth[-1]).abs().max()))
    assert math.log(errors[0] / errors[1], ratio) > order - 0.25


def test_dense_output_keeps_its_order():
    y0, errors = torch.tensor([[1.0, 0.0]]), []
    f = lambda t, y: torch.stack([y[:, 1], -y[:, 0]], 1)  # noqa: E731
    t = torch.linspace(0, 2, 41)
    for n in (8, 16):
        step = odeum.StepOptions(fixed=2 / n)
        sol = odeum.solve(f, y0, t[[0, -1]], step=step, dense=True, gradient="reversible")
        errors.append(float((sol(t)[:, 0, 0] - torch.cos(t)).abs().max()))
    assert math.log2(errors[0] / errors[1]) > 3.8  # tsit5's own has order 4


def test_stable_where_the_field_contracts():
    """Unjoined, the solutions would come apart by exp(2 * 20) here."""
    y0, ts = torch.tensor([[1.0]], requires_grad=True), torch.tensor([0.0, 2.0, 20.0])
    f = lambda t, y: -(y - torch.cos(t))  # noqa: E731
    exact = (torch.cos(ts) + torch.sin(ts)) / 2 + torch.exp(-ts) / 2
    for how in ({"rtol": 1e-7, "atol": 1e-7}, {"step": odeum.StepOptions(fixed=0.1)}):
        sol = odeum.solve(f, y0, ts, gradient="reversible", **how)
        torch.testing.assert_close(
            sol.ys[:, 0, 0], exact, rtol=0, atol=2e-6 if "rtol" in how else 2e-4
        )
        (g,) = torch.autograd.grad(sol.ys[1].sum(), y0)
        torch.testing.assert_close(g[0, 0], torch.exp(-ts[1]), rtol=1e-4, atol=0)


def test_refuses_a_gradient_lost_to_rounding():
    y0, ts = torch.tensor([[1.0, 0.0]], requires_grad=True), torch.tensor([0.0, 10.0])
    f = lambda t, y: torch.stack([y[:, 1], -y[:, 0]], 1)  # noqa: E731
    step = odeum.StepOptions(fixed=0.1)
    sol = odeum.solve(f, y0, ts, step=step, gradient=Reversible(0.5, interval=1000))
    with pytest.raises(SolveError, match=r"row 0, rounding grew to .* smaller .*interval"):
        sol.ys[-1].sum().backward()
    sol = odeum.solve(f, y0, ts, step=step, gradient=Reversible(0.5))
    (g,) = torch.autograd.grad(sol.ys[-1, 0, 0], y0)
    torch.testing.assert_close(g[0], torch.stack([ts[1].cos(), ts[1].sin()]), rtol=1e-7, atol=0)


def test_the_row_it_refuses_is_the_users():
    """After an event that only some rows meet, those go on as a batch of their own."""
    y0 = torch.tensor([[1.0, 0.0], [5.0, 0.0]], requires_grad=True)
    f = lambda t, y: torch.stack([y[:, 1], -y[:, 0]], 1)  # noqa: E731
    kick = odeum.Event(lambda t, y: y[:, 0] + 2, direction=-1, jump=lambda t, y: y - 1)
    ts, step = torch.tensor([0.0, 6.0]), odeum.StepOptions(fixed=0.05)
    gradient = Reversible(0.5, interval=1000)
    sol = odeum.solve(f, y0, ts, step=step, events=kick, gradient=gradient)
    assert sol.events[0].count.tolist() == [0, 1]
    with pytest.raises(SolveError, match="row 1, rounding grew"):
        sol.ys[-1, 1].sum().backward()


def test_integrals_neither_are_drift_nor_hide_it():
    y0, ts = torch.tensor([[1.0, 0.0]], requires_grad=True), torch.tensor([0.0, 10.0])
    f = lambda t, y: torch.stack([y[:, 1], -y[:, 0]], 1)  # noqa: E731
    undefined = {"undefined": lambda field, t, y, f: torch.full_like(y[:, 0], math.nan)}
    sol = odeum.solve(f, y0, ts, rtol=1e-9, integrals=undefined, gradient="reversible")
    (g,) = torch.autograd.grad(sol.ys[-1, 0, 0], y0)
    torch.testing.assert_close(g[0], torch.stack([ts[1].cos(), ts[1].sin()]), rtol=1e-5, atol=0)
    huge = {"huge": lambda field, t, y, f: torch.full_like(y[:, 0], 1e12)}
    how = {"step": odeum.StepOptions(fixed=0.1), "gradient": Reversible(0.5, interval=1000)}
    sol = odeum.solve(f, y0, ts, integrals=huge, **how)
    with pytest.raises(SolveError, match="rounding grew"):
        sol.ys[-1].sum().backward()


def test_a_state_of_zeros_is_no_drift():
    y0, ts = torch.zeros(2, 1, requires_grad=True), torch.tensor([0.0, 1.0])
    sol = odeum.solve(lambda t, y: 1 + y, y0, ts, gradient="reversible", rtol=1e-8)
    (g,) = torch.autograd.grad(sol.ys[-1].sum(), y0)
    torch.testing.assert_close(g, torch.full((2, 1), math.e), rtol=1e-7, atol=0)
    sol = odeum.solve(decay, y0, ts, gradient="reversible", rtol=1e-8, atol=1e-10)
    (g,) = torch.autograd.grad(sol.ys[-1].sum(), y0)
    torch.testing.assert_close(g, torch.full((2, 1), math.exp(-1)), rtol=1e-2, atol=0)


def test_single_precision_and_one_system():
    y0 = torch.tensor([1.0, 2.0], dtype=torch.float32, requires_grad=True)
    ts = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float32)
    sol = odeum.solve(decay, y0, ts, gradient="reversible", rtol=1e-5)
    assert sol.ys.dtype == torch.float32
    (g,) = torch.autograd.grad(sol.ys[-1].sum(), y0)
    torch.testing.assert_close(g, torch.full_like(g, math.exp(-3)), rtol=1e-3, atol=0)


def test_a_row_that_fails_leaves_the_others_their_gradient():
    """y' = y^2 blows up at t = 1 / y0: at 0.5 in one row."""
    y0, ts = torch.tensor([[0.5], [2.0]], requires_grad=True), torch.tensor([0.0, 0.25, 1.0])
    how = {"gradient": "reversible", "rtol": 1e-8, "atol": 1e-8, "on_failure": "mask"}
    sol = odeum.solve(lambda t, y: y**2, y0, ts, **how)
    assert sol.ys[-1, 1].isnan().all()
    loss = sol.ys[-1, 0].sum() + sol.ys[1].sum()
    (g,) = torch.autograd.grad(loss, y0)
    slope = lambda y, t: 1 / (1 - y * t) ** 2  # noqa: E731
    wanted = [[slope(0.5, 1.0) + slope(0.5, 0.25)], [slope(2.0, 0.25)]]
    torch.testing.assert_close(g, torch.tensor(wanted), rtol=1e-6, atol=0)


def test_through_events_and_breaks():
    """A ball thrown up, caught and thrown again; its push changes at a break."""
    start = torch.tensor([[0.0, 1.0], [0.0, 1.5]], requires_grad=True)
    push = torch.tensor(1.0, requires_grad=True)
    bounce = odeum.Event(
        lambda t, y: y[:, 0], direction=-1, jump=lambda t, y: y * torch.tensor([0.0, -0.8])
    )
    ts = torch.tensor([0.0, 1.0, 3.3])

    def outputs(start, push):
        def fall(t, y):
            pull = -push * torch.where(t < 0.7, 1.0, 1.4).expand_as(y[:, :1])
            return torch.cat([y[:, 1:], pull], 1)

        sol = odeum.solve(
            fall, start, ts, events=bounce, breaks=[0.7], gradient="reversible", rtol=1e-9
        )
        return sol.ys, sol.events[0].time

    torch.autograd.gradcheck(outputs, (start, push), rtol=1e-5, atol=1e-6)


def test_memory_holds_no_state_per_step(monkeypatch):
    trails = watched(monkeypatch)
    y0, kept = torch.randn(1, 1000, requires_grad=True), []
    f = lambda t, y: torch.roll(y, 1, -1) - torch.roll(y, -1, -1)  # noqa: E731
    for n in (50, 200):
        step = odeum.StepOptions(fixed=1 / n)
        odeum.solve(f, y0, torch.tensor([0.0, 1.0]), step=step, gradient="reversible")
        way = trails[-1].way
        tensors = [getattr(r, name) for r, _ in way for name in ("t", "h", "t1", "y")]
        assert len(way) == n
        kept.append(sum(x.untyped_storage().size() // 8 for x in tensors) / n)
        assert all(joint is None for _, joint in way)
    assert max(kept) <= 4


def test_same_solution_with_and_without_gradient():
    field, y0, args, _ = case()
    ts = torch.linspace(0, 1, 3)
    sol = odeum.solve(field, y0, ts, args, gradient="reversible")
    with torch.no_grad():
        assert torch.equal(odeum.solve(field, y0, ts, args, gradient="reversible").ys, sol.ys)


def test_what_it_cannot_do_it_says():
    y0, ts = torch.ones(1, 2, requires_grad=True), torch.tensor([0.0, 1.0])
    for method in ("kvaerno5", "auto", "leapfrog", "explicit_adams"):
        with pytest.raises(InputError, match="needs an explicit Runge-Kutta method"):
            odeum.solve(decay, y0, ts, method=method, gradient="reversible")
    for wrong in ({"coupling": 1.0}, {"coupling": 0.0}, {"interval": 0}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
            Reversible(**wrong)
    sol = odeum.solve(decay, y0, ts, gradient="reversible", dense=True)
    with pytest.raises(InputError, match="does not reach dense output"):
        sol(0.5).sum().backward()
    (g,) = torch.autograd.grad(odeum.solve(decay, y0, ts, gradient="reversible").ys.sum(), y0)
    assert not g.requires_grad
