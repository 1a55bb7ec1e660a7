"""A solve by the fused engine is the eager engine's: its steps, states, gradients and failures."""

import gc
import math
import os
import re
import signal
import time
import weakref

import pytest
import torch
from agreement import assert_near, assert_same, assert_same_solution, solved
from fields import states
from torch import nn

import odeum
from odeum import methods
from odeum.compile import layouts
from odeum.compile.runtime import calls
from odeum.control import PI, PID
from odeum.errors import TraceError
from odeum.systems import lorenz

EXPLICIT = [
    name for name in methods.names() if isinstance(methods.get(name), methods.ExplicitRungeKutta)
]


USUAL = ("euler", "rk4", "bosh3", "tsit5", "dopri8")
"""Fixed, adaptive, first same as last or not, with stages that only outputs need."""


def slow(values, usual):
    """Values of a parameter; those that are not usual belong to slow tests."""
    return [
        x
        if x in usual
        else pytest.param(*x if isinstance(x, tuple) else [x], marks=pytest.mark.slow)
        for x in values
    ]


class Driven(nn.Module):
    """A damped pendulum that is pushed: small, nonlinear, and not autonomous."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[-0.3, 1.1], [-1.2, -0.1]]))
        self.push = nn.Parameter(torch.tensor(0.4))

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.sin(y @ self.weight.T) + self.push * torch.cos(3 * t)


TS = torch.tensor([0.0, 0.3, 0.31, 1.1, 2.0], dtype=torch.float64)


def per_row(ts: torch.Tensor, n_rows: int) -> torch.Tensor:
    return ts[:, None] * torch.linspace(0.5, 1.0, n_rows, dtype=ts.dtype)


# Methods and steps


@pytest.mark.parametrize("method", slow(EXPLICIT, USUAL))
def test_methods(method):
    fixed = not methods.get(method).adaptive
    ts = torch.linspace(0, 2, 9) if fixed else TS
    # A first step so small that the error of a high order is all rounding would decide the others.
    step = None if fixed else odeum.StepOptions(first=0.2)
    rtol = 1e-3 if methods.describe(method).order < 3 else 1e-5
    tolerances = {"rtol": rtol, "atol": 1e-2 * rtol}
    sol = assert_same(Driven(), states(5, 2), ts, method=method, step=step, **tolerances)
    assert (sol.stats.n_accepted > 2).all()


@pytest.mark.parametrize(
    "step",
    [
        odeum.StepOptions(first=0.5),
        odeum.StepOptions(first=1e-3, max=0.07),
        odeum.StepOptions(min=1e-3),
        odeum.StepOptions(max_steps=40),
    ],
    ids=str,
)
def test_step_options(step):
    assert_same(Driven(), states(5, 2), TS, rtol=1e-6, atol=1e-8, step=step)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rk4", "tsit5"])
def test_fixed_steps(method):
    step = odeum.StepOptions(fixed=0.07)
    sol = assert_same(Driven(), states(5, 2), TS, method=method, step=step)
    assert sol.stats.n_accepted.tolist() == [29] * 5
    assert_same(Driven(), states(5, 2), TS.flip(0), method=method, step=step)


@pytest.mark.slow
@pytest.mark.parametrize("controller", slow([PI, PID], [PID]), ids=str)
def test_controllers(controller):
    method = methods.get("tsit5", controller=controller)
    step = odeum.StepOptions(first=1.0)
    sol = assert_same(Driven(), states(7, 2), TS, method=method, rtol=1e-7, atol=1e-9, step=step)
    assert (sol.stats.n_rejected > 0).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_rows", "own_times"),
    slow(
        [(n_rows, own) for n_rows in (1, 2, 7, 20) for own in (False, True)],
        [(1, False), (7, False), (20, False), (2, True), (7, True)],
    ),
)
def test_rows_and_directions(n_rows, own_times):
    ts = per_row(TS, n_rows) if own_times else TS
    y0 = 2 * states(n_rows, 2)
    for direction in (1.0, -1.0):
        assert_same(Driven(), y0, direction * ts, rtol=1e-6, atol=1e-8)
    assert_same(Driven(), y0, 3.0 - ts, rtol=1e-6, atol=1e-8)


def test_many_times_in_a_step_and_two_times():
    assert_same(Driven(), states(5, 2), torch.linspace(0, 1, 60), rtol=1e-3, atol=1e-3)
    assert_same(Driven(), states(5, 2), torch.linspace(0, 1, 2))


def test_tolerances_per_number():
    rtol, atol = torch.tensor([1e-7, 1e-3]), torch.tensor([1e-9, 1e-4])
    loose = assert_same(Driven(), states(5, 2), TS, rtol=1e-3, atol=1e-4)
    mixed = assert_same(Driven(), states(5, 2), TS, rtol=rtol, atol=atol)
    assert (mixed.stats.n_accepted > loose.stats.n_accepted).all()
    assert_same(Driven(), states(5, 2), TS, rtol=1e-5, atol=atol)


# Kinds of states and numbers


def test_one_system():
    y0 = states(2)
    sol = assert_same(Driven(), y0, TS)
    assert sol.ys.shape == (5, 2)
    assert sol.status.shape == ()


def test_trees_and_shapes():
    weight = states(4, 4, seed=2).requires_grad_()

    def field(t, y):
        mixed = (y["a"].flatten(1) @ weight).view(-1, 2, 2)
        return {
            "a": mixed.tanh(),
            "b": (y["b"][0] * y["a"][:, :1, 0], -y["b"][1] * t.reshape(-1, 1)),
        }

    y0 = {"a": states(3, 2, 2), "b": (states(3, 1), states(3, 4))}
    sol = assert_same(field, y0, TS)
    assert sol.ys["a"].shape == (5, 3, 2, 2)


@pytest.mark.parametrize("time", slow([torch.float32, torch.float64], [torch.float32]))
def test_single_precision(time):
    y0, ts = states(9, 2).float(), TS.to(time)
    options = {"states": 2e-6, "gradients": 1e-5}
    sol = assert_same(Driven().float(), y0, ts, step=odeum.StepOptions(fixed=0.1), **options)
    assert sol.ys.dtype == torch.float32
    # Steps that follow errors of single precision may differ: their results are as good.
    exact = odeum.solve(Driven(), y0.double(), TS, engine="eager", rtol=1e-10, atol=1e-10).ys
    for _ in range(2):
        sol = odeum.solve(Driven().float(), y0, ts, engine="fused", rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(sol.ys.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_double_precision_state_and_single_precision_time():
    ts = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float32)
    assert_same(Driven(), states(5, 2), ts, rtol=1e-6, states=1e-6, gradients=1e-5)


def test_tensors_that_are_views():
    y0 = states(3, 5, 4)[:, 1:].permute(1, 0, 2)[..., ::2][:, 1]  # strided, of a larger tensor
    assert not y0.is_contiguous()
    ts = torch.stack([TS, -TS], 1)[:, 0]
    field = Driven()
    field.weight = nn.Parameter(states(3, 3, seed=4)[:2, :2].T)
    expected = odeum.solve(field, y0, ts, engine="eager")
    given = odeum.solve(field, y0, ts, engine="fused")
    assert_same_solution(given, expected)
    whole = states(3, 4).requires_grad_()
    grads = [
        torch.autograd.grad(
            odeum.solve(field, whole[:, ::2], ts, engine=engine).ys.square().sum(),
            [whole, field.weight],
        )
        for engine in ("eager", "fused")
    ]
    for x, y in zip(*grads, strict=True):
        assert_near(y, x, 1e-10)


@pytest.mark.slow
def test_expanded_state_and_expanded_cotangent():
    y0 = states(1, 2).requires_grad_()
    field = Driven()
    grads = []
    for engine in ("eager", "fused"):
        ys = odeum.solve(field, y0.expand(6, 2), TS, engine=engine).ys
        grads.append(torch.autograd.grad(ys.sum(), [y0, *field.parameters()]))
    for x, y in zip(*grads, strict=True):
        assert_near(y, x, 1e-10)


# Parameters


class Three(nn.Module):
    """Layers of which one is used twice and one not at all."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.twice, self.unused = (nn.Linear(3, 3) for _ in range(3))

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.twice(torch.tanh(self.twice(self.first(y))))


def test_frozen_shared_and_unused_parameters():
    field = Three()
    field.first.weight.requires_grad_(False)
    field.twice.bias.requires_grad_(False)
    assert_same(field, states(5, 3), TS)
    ys = odeum.solve(field, states(5, 3), TS, engine="fused").ys
    ys.sum().backward()
    assert field.unused.weight.grad is None
    assert field.first.weight.grad is None
    assert field.twice.weight.grad is not None
    assert field.first.bias.grad is not None


@pytest.mark.slow
def test_tied_parameters():
    field = Three()
    field.first.weight = field.twice.weight
    assert_same(field, states(5, 3), TS)


def test_only_parameters_want_gradients():
    field = Driven()
    grads = [
        torch.autograd.grad(
            odeum.solve(field, states(5, 2), TS, engine=engine).ys.square().sum(),
            list(field.parameters()),
        )
        for engine in ("eager", "fused")
    ]
    for x, y in zip(*grads, strict=True):
        assert_near(y, x, 1e-10)


# Autograd


def test_gradcheck():
    field, options = Driven(), {"rtol": 1e-3, "atol": 1e-3, "step": odeum.StepOptions(fixed=0.25)}

    def ys(y0, ts, weight, push):
        field_of = {"weight": weight, "push": push}
        return odeum.solve(
            lambda t, y: torch.func.functional_call(field, field_of, (t, y)),
            y0,
            ts,
            engine="fused",
            **options,
        ).ys

    ts = TS.clone().requires_grad_()
    inputs = (states(2, 2).requires_grad_(), ts, *field.parameters())
    assert torch.autograd.gradcheck(ys, inputs)
    own = per_row(TS, 2).requires_grad_()
    assert torch.autograd.gradcheck(ys, (inputs[0], own, *inputs[2:]))


def test_two_backward_passes():
    field, y0 = Driven(), states(5, 2).requires_grad_()
    sol = odeum.solve(field, y0, TS, engine="fused")
    first = torch.autograd.grad(sol.ys[-1].sum(), [y0, field.weight], retain_graph=True)
    other = torch.autograd.grad(sol.ys[2].sum(), [y0, field.weight], retain_graph=True)
    again = torch.autograd.grad(sol.ys[-1].sum(), [y0, field.weight])
    for x, y in zip(first, again, strict=True):
        assert torch.equal(x, y)
    eager = odeum.solve(field, y0, TS, engine="eager")
    expected = torch.autograd.grad(eager.ys[2].sum(), [y0, field.weight])
    for x, y in zip(other, expected, strict=True):
        assert_near(x, y, 1e-10)


@pytest.mark.slow
def test_backward_statistics():
    """The way back takes every step again: all its stages, and at first the one it starts from."""
    for _ in range(2):
        y0 = states(5, 2).requires_grad_()
        sol = odeum.solve(Driven(), y0, TS, engine="fused", method="dopri5")
        assert sol.stats.backward is None
        sol.ys.sum().backward()
        back = sol.stats.backward
        assert torch.equal(back.n_accepted, sol.stats.n_accepted)
        assert torch.equal(back.n_evaluations, 6 * sol.stats.n_accepted + 1)
        assert not back.n_rejected.any()


def test_second_derivatives():
    field = Driven()
    found = []
    for engine in ("eager", "fused", "fused"):
        y0 = states(3, 2).requires_grad_()
        ys = odeum.solve(field, y0, TS, engine=engine, gradient="discrete").ys
        (g,) = torch.autograd.grad(ys[-1].sin().sum(), y0, create_graph=True)
        found.append(torch.autograd.grad(g.square().sum(), [y0, *field.parameters()]))
    for given in found[1:]:
        for x, y in zip(given, found[0], strict=True):
            assert_near(x, y, 1e-10)


def test_without_gradients():
    field, y0 = Driven(), states(5, 2).requires_grad_()
    with torch.no_grad():
        ys = odeum.solve(field, y0, TS, engine="fused").ys
    assert not ys.requires_grad
    none = odeum.solve(field, y0, TS, engine="fused", gradient="none").ys
    assert not none.requires_grad
    assert_near(none, odeum.solve(field, y0, TS, engine="fused").ys, 0.0)
    with torch.inference_mode():
        inferred = odeum.solve(field, states(5, 2), TS, engine="fused").ys
    assert_near(inferred, none, 0.0)


@pytest.mark.parametrize("which", ["y0", "weight", "ts"])
def test_inputs_changed_in_place_are_noticed(which):
    field, y0, ts = Driven(), states(5, 2).requires_grad_(), TS.clone().requires_grad_()
    ys = odeum.solve(field, y0, ts, engine="fused").ys
    with torch.no_grad():
        {"y0": y0, "weight": field.weight, "ts": ts}[which].mul_(1.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        ys.sum().backward()


def test_states_are_new_memory():
    """Kernels write into tensors of their own, and results outlive everything else."""
    field, y0 = Driven(), states(5, 2)
    before = y0.clone()
    first = odeum.solve(field, y0, TS, engine="fused").ys
    kept = first.clone()
    odeum.solve(field, -y0, TS, engine="fused")
    gc.collect()
    assert torch.equal(first, kept)
    assert torch.equal(y0, before)


@pytest.mark.parametrize("backward", [False, True])
def test_solves_are_freed_without_the_garbage_collector(backward):
    """Tapes are large: a training loop would pile them up until the next collection."""
    field, y0 = Driven(), states(5, 2)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            ys = odeum.solve(field, y0, TS, engine="fused").ys
            if backward:
                ys.sum().backward()
            kept = weakref.ref(ys)
            del ys
            assert kept() is None
    finally:
        gc.enable()


# The tape


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(calls, "TRIES_AT_ONCE", 3)


@pytest.mark.parametrize("n_rows", [1, 7])
def test_long_solves(n_rows):
    """More steps than a first tape has room for, and than a second one."""
    step = odeum.StepOptions(fixed=0.005)
    ts = torch.tensor([0.0, 0.013, 0.2, 0.9, 1.3])
    sol = assert_same(Driven(), states(n_rows, 2), ts, step=step, gradients=1e-9)
    assert (sol.stats.n_accepted == 260).all()


@pytest.mark.parametrize("own_times", [False, True])
def test_solves_in_parts(small_parts, own_times):
    ts = per_row(TS, 6) if own_times else TS
    sol = assert_same(Driven(), states(6, 2), 4 * ts, rtol=1e-8, atol=1e-9)
    assert (sol.stats.n_accepted > 20).all()


def test_parts_and_a_full_tape(small_parts, monkeypatch):
    from odeum.compile.runtime import kernels

    monkeypatch.setattr(kernels, "FIRST_STEPS", 5)
    # A row that ends long before the others, and one that goes on.
    y0 = states(6, 2)
    ts = TS[:, None] * torch.tensor([0.1, 1.0, 5.0, 0.3, 2.0, 1.0])
    # Tapes grow with the solves before, and shrink.
    for scale in (1.0, 6.0, 0.01):
        assert_same(Driven(), y0, scale * ts, method="dopri5", rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", ["vern7", "dopri8"])
def test_outputs_on_the_ends_of_steps_need_nothing_that_was_not_evaluated(method):
    """Derivatives for the dense output alone lie in memory that holds whatever was there."""
    y0 = states(8, 3) + 1
    for _ in range(3):
        assert_same(lorenz(), y0, torch.tensor([0.0, 3.0]), method=method, rtol=1e-9, atol=1e-9)


@pytest.fixture(params=slow([1, 2, 3], [2]))
def threads(request, monkeypatch):
    """Threads that share the rows, however little there is to do."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    monkeypatch.setattr(layouts, "WORTH_A_THREAD", 1)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("n_rows", slow([5, 20], [20]))
def test_threads(threads, n_rows):
    assert_same(Driven(), states(n_rows, 2), TS)


def test_threads_of_its_own_where_stacks_may_be_small(threads, monkeypatch):
    monkeypatch.setattr("odeum.compile.runtime.kernels.stack_room", lambda: 0)
    assert_same(Driven(), states(20, 2), TS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_threads_in_a_forked_process(threads):
    """Torch's threads do not live on there: waiting for them would take forever."""
    field, y0 = Driven(), states(20, 2)
    with torch.no_grad():
        expected = odeum.solve(field, y0, TS, engine="fused").ys
        child = os.fork()
        if not child:
            same = torch.equal(odeum.solve(field, y0, TS, engine="fused").ys, expected)
            os._exit(0 if same else 1)
    for _ in range(600):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the process never came back")
    assert status == 0


class Sweep(nn.Module):
    """Each row with a frequency of its own, some far more work than others."""

    def forward(self, t: torch.Tensor, y: torch.Tensor, frequency: torch.Tensor) -> torch.Tensor:
        x, v = y.unbind(-1)
        return torch.stack([v, -frequency.square() * torch.sin(x)], -1)


@pytest.mark.parametrize(
    ("method", "step"),
    slow(
        [
            ("tsit5", odeum.StepOptions(max_steps=150)),
            ("dopri8", odeum.StepOptions(max_steps=50)),
            ("rk4", odeum.StepOptions(fixed=0.05, max_steps=100)),
        ],
        [("tsit5", odeum.StepOptions(max_steps=150))],
    ),
)
def test_rows_take_turns(threads, method, step):
    """Rows of very different lengths, in lanes that they leave at different steps.

    Among them rows that never start, and rows that are given up.
    """
    y0 = states(43, 2, low=0.1, high=0.5)
    y0[[3, 17, 18, 42], 0] = math.inf
    span = torch.linspace(0.1, 6.0, len(y0))[torch.randperm(len(y0))]
    frequency = 8.0 * torch.rand(len(y0))
    frequency[[5, 25]] = 60.0
    sol = assert_same(
        Sweep(),
        y0,
        torch.linspace(0, 1, 9)[:, None] * span,
        odeum.per_row(frequency),
        method=method,
        step=step,
        on_failure="mask",
        gradients=1e-9,
    )
    assert sol.status.unique().tolist() == [
        odeum.Status.SUCCESS,
        odeum.Status.MAX_STEPS,
        odeum.Status.NON_FINITE,
    ]


# Failures


def explosive(rate: torch.Tensor):
    def field(t, y):
        return rate * y * y

    return field


def failing(engine: str, y0: torch.Tensor, ts: torch.Tensor, rate: torch.Tensor, **options):
    y0, rate = y0.clone().requires_grad_(), rate.clone().requires_grad_()
    sol = odeum.solve(explosive(rate), y0, ts, engine=engine, on_failure="mask", **options)
    healthy = sol.status == 0
    loss = (sol.ys * torch.arange(1.0, len(ts) + 1)[:, None, None])[:, healthy].sum()
    if not loss.requires_grad:  # no row is healthy
        return sol, [torch.zeros_like(y0), torch.zeros_like(rate)]
    found = torch.autograd.grad(loss, [y0, rate], allow_unused=True)
    return sol, [
        torch.zeros_like(x) if g is None else g for g, x in zip(found, (y0, rate), strict=True)
    ]


@pytest.mark.parametrize(
    ("n_rows", "own_times"),
    slow(
        [(n_rows, own) for n_rows in (1, 4, 9) for own in (False, True)],
        [(1, False), (4, False), (9, True)],
    ),
)
def test_a_row_that_blows_up(n_rows, own_times):
    """y' = y^2 from 2 ends at t = 0.5; its neighbours in a register go on."""
    y0 = torch.linspace(-1.0, 0.4, n_rows)[:, None].repeat(1, 2)
    y0[n_rows // 2] = 2.0
    ts = torch.tensor([0.0, 0.2, 0.45, 1.0])
    ts = ts[:, None].expand(4, n_rows).clone() if own_times else ts
    eager, g_eager = failing("eager", y0, ts, torch.tensor(1.0))
    for _ in range(2):
        fused, g_fused = failing("fused", y0, ts, torch.tensor(1.0))
        assert fused.status.tolist() == eager.status.tolist()
        assert fused.status[n_rows // 2] != 0
        assert fused.status.count_nonzero() == 1
        for name in ("n_accepted", "n_rejected", "n_evaluations"):
            healthy = fused.status == 0
            a, b = getattr(fused.stats, name), getattr(eager.stats, name)
            assert torch.equal(a[healthy], b[healthy])
        assert_near(fused.ys[:3], eager.ys[:3], 1e-11)
        assert fused.ys[3, n_rows // 2].isnan().all()
        assert_near(fused.ys[3], eager.ys[3], 1e-11)
        for x, y in zip(g_fused, g_eager, strict=True):
            assert y.isfinite().all()
            assert_near(x, y, 1e-10)


def test_gradients_of_what_came_before_a_failure():
    """The outputs a failing row reached have gradients as good as any."""
    ts = torch.tensor([0.0, 0.2, 0.45, 1.0])
    found = []
    for engine in ("eager", "fused"):
        y0 = torch.tensor([[2.0], [0.3], [2.0]]).requires_grad_()
        rate = torch.tensor(1.0, requires_grad=True)
        sol = odeum.solve(explosive(rate), y0, ts, engine=engine, on_failure="mask")
        found.append(torch.autograd.grad(sol.ys[:3].square().sum(), [y0, rate]))
    for x, y in zip(*found, strict=True):
        assert_near(y, x, 1e-10)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("n_rows", [1, 6])
def test_a_row_that_cannot_start(n_rows, value):
    y0 = states(n_rows, 2, low=0.1, high=0.5)
    y0[0, 1] = value
    ts = torch.tensor([0.0, 0.2, 1.0])
    eager, g_eager = failing("eager", y0, ts, torch.tensor(1.0))
    fused, g_fused = failing("fused", y0, ts, torch.tensor(1.0))
    assert fused.status.tolist() == [odeum.Status.NON_FINITE] + [0] * (n_rows - 1)
    assert_same_solution(fused, eager)
    for x, y in zip(g_fused, g_eager, strict=True):
        assert_near(x, y, 1e-10)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e200])
def test_many_rows_of_which_some_cannot_start(value):
    """Whatever order rows are put together in, each is itself."""
    y0 = states(41, 2)
    y0[17, 0] = value
    y0[3, 1] = -value
    found = [
        odeum.solve(Driven(), y0, TS, engine=engine, on_failure="mask")
        for engine in ("eager", "fused")
    ]
    assert (found[0].status != 0).sum() == (0 if value == 1e200 else 2)
    healthy = [row for row in range(41) if row not in (3, 17)]
    for name in ("n_accepted", "n_rejected", "n_evaluations"):
        a, b = (getattr(sol.stats, name)[healthy] for sol in found)
        assert torch.equal(a, b)
    assert found[0].status.tolist() == found[1].status.tolist()
    assert_near(found[1].ys[:, healthy], found[0].ys[:, healthy], 1e-12)


def test_a_row_whose_arguments_are_no_numbers():
    """Its neighbours' gradients, and those of what all share, are theirs alone."""
    weight = states(3, 3, seed=7).requires_grad_()
    gain = torch.tensor([1.0, float("nan"), 0.5, 2.0])[:, None].requires_grad_()

    def field(t, y, args):
        return torch.tanh(y @ weight) * args

    found = []
    for engine in ("eager", "fused"):
        y0 = states(4, 3).requires_grad_()
        args = odeum.per_row(gain)
        sol = odeum.solve(field, y0, TS, args, engine=engine, on_failure="mask")
        assert sol.status.tolist() == [0, odeum.Status.NON_FINITE, 0, 0]
        loss = sol.ys[:, sol.status == 0].square().sum()
        found.append((sol, *torch.autograd.grad(loss, [y0, weight, gain])))
    (eager, *g_eager), (fused, *g_fused) = found
    assert_same_solution(fused, eager)
    for x, y in zip(g_fused, g_eager, strict=True):
        assert y.isfinite().all()
        assert_near(x, y, 1e-10)


def test_rows_of_very_different_scales():
    """Rows that have ended are not taken along where their arguments meet others' states."""
    size = torch.tensor([1e-3, 1.0, 30.0])[:, None].requires_grad_()
    weight = states(2, 2, seed=8).requires_grad_()

    def field(t, y, size):
        return -size * torch.sinh((y / size) @ weight)

    ts = torch.linspace(0, 1, 4)[:, None] * torch.tensor([0.2, 1.0, 3.0])
    found = []
    for engine in ("eager", "fused"):
        y0 = (states(3, 2) * size.detach()).requires_grad_()
        sol = odeum.solve(field, y0, ts, odeum.per_row(size), engine=engine, rtol=1e-7, atol=1e-7)
        found.append(torch.autograd.grad(sol.ys.sum(), [y0, weight, size]))
    for x, y in zip(*found, strict=True):
        assert x.isfinite().all()
        assert_near(y, x, 1e-10)


def failures():
    """A field, states, times and options of a solve that fails, by what it fails of."""
    up = torch.tensor([[0.1], [2.0], [0.2]])
    ts = torch.tensor([0.0, 0.2, 1.0])
    return {
        "start": (explosive(torch.tensor(1.0)), torch.tensor([[0.1], [float("nan")]]), ts, {}),
        "blow-up": (explosive(torch.tensor(1.0)), up, ts, {}),
        "steps": (explosive(torch.tensor(0.4)), up, ts, {"rtol": 1e-9, "max_steps": 16}),
        "small": (explosive(torch.tensor(1.0)), up, ts, {"min": 1e-3}),
        "fixed": (explosive(torch.tensor(3.0)), 1e150 * up, ts, {"fixed": 0.1}),
        "leaves its domain": (lambda t, y: (0.5 - t).log() - y, up, ts, {}),
    }


@pytest.mark.parametrize("why", failures())
def test_failures(why):
    field, y0, ts, options = failures()[why]
    options = dict(options)
    rtol = options.pop("rtol", 1e-4)
    step = odeum.StepOptions(**options)
    messages, masked = [], []
    for engine in ("eager", "fused", "fused"):
        masked.append(
            odeum.solve(field, y0, ts, engine=engine, rtol=rtol, step=step, on_failure="mask")
        )
        with pytest.raises(odeum.SolveError) as raised:
            odeum.solve(field, y0, ts, engine=engine, rtol=rtol, step=step)
        messages.append(str(raised.value))
    assert masked[0].status.count_nonzero() > 0
    for given in masked[1:]:
        assert given.status.tolist() == masked[0].status.tolist()
        assert_near(given.ys, masked[0].ys, 1e-10)
    # But for digits: next to a singularity any rounding grows.
    rough = [re.sub(r"\d\.\d+", "#", message) for message in messages]
    assert rough[1] == rough[0]
    assert rough[2] == rough[0]


def test_wrong_times_are_refused_each_time():
    field, y0 = Driven(), states(5, 2)
    odeum.solve(field, y0, TS, engine="fused")
    for wrong in (TS[[0, 2, 1, 3]], torch.tensor([0.0, 0.0, 1.0]), TS * float("nan"), TS[:1]):
        messages = []
        for engine in ("eager", "fused"):
            with pytest.raises(odeum.InputError) as raised:
                odeum.solve(field, y0, wrong, engine=engine)
            messages.append(str(raised.value))
        assert messages[0] == messages[1]
    own = per_row(TS, 5)
    odeum.solve(field, y0, own, engine="fused")
    own[2, 3] = own[1, 3]
    with pytest.raises(odeum.InputError):
        odeum.solve(field, y0, own, engine="fused")
    with pytest.raises(odeum.InputError):
        odeum.solve(field, y0, own, engine="fused", on_failure="mask")


def test_no_rows():
    sol = odeum.solve(Driven(), states(0, 2), TS)
    assert sol.ys.shape == (5, 0, 2)
    with pytest.raises(TraceError, match="no rows"):
        odeum.solve(Driven(), states(0, 2), TS, engine="fused")


# What else goes with it


def test_dense_output():
    field, y0 = Driven(), states(5, 2)
    ts = TS[[0, -1]]
    eager = odeum.solve(field, y0, ts, engine="eager", gradient="none", dense=True)
    fused = odeum.solve(field, y0, ts, engine="fused", gradient="none", dense=True)
    assert fused.engine == "fused"
    assert_same_solution(fused, eager)
    for t in (torch.linspace(0, 2, 17), torch.tensor(0.7), per_row(TS, 5)):
        assert_near(fused(t), eager(t), 1e-12)


def test_the_adjoint_equation():
    """The kernel's forward solve does for it what the eager one's does."""
    field = Driven()
    found = []
    for engine in ("eager", "fused"):
        y0 = states(5, 2).requires_grad_()
        options = {"rtol": 1e-7, "atol": 1e-9, "gradient": "adjoint"}
        sol = odeum.solve(field, y0, TS, engine=engine, **options)
        assert sol.engine == engine
        found.append((sol.ys, *torch.autograd.grad(sol.ys.sum(), [y0, *field.parameters()])))
    for x, y in zip(*found, strict=True):
        assert_near(y, x, 1e-10)


# Ensembles


@pytest.mark.slow
def test_a_network_for_each_row():
    """Weights stacked over rows: as many models as there are rows, trained in one call."""
    n = 6
    weights = states(n, 3, 3, seed=5).requires_grad_()
    shift = states(3, seed=6).requires_grad_()

    def field(t, y, args):
        own, common = args
        return torch.tanh((own @ y.unsqueeze(-1)).squeeze(-1) + common)

    args = (odeum.per_row(weights), shift)
    y0 = states(n, 3)
    assert_same(field, y0, TS, args)
    # Each row is what a solve with its weights alone gives.
    ys = odeum.solve(field, y0, TS, args, engine="fused").ys
    alone = odeum.solve(field, y0[2:3], TS, (odeum.per_row(weights[2:3]), shift), engine="eager").ys
    assert_near(ys[:, 2:3], alone, 1e-12)


@pytest.fixture
def n_compiled(monkeypatch):
    """How many kernels are compiled: a list that grows by one each time."""
    from odeum.compile.runtime import kernels

    calls_of = []
    compiled = kernels.compiled

    def counting(*arguments):
        calls_of.append(None)
        return compiled(*arguments)

    monkeypatch.setattr(kernels, "compiled", counting)
    return calls_of


def test_other_weights_use_the_same_kernel(n_compiled):
    field, y0 = Driven(), states(5, 2)

    def call(weights):
        return lambda t, y: torch.func.functional_call(field, weights, (t, y))

    results = []
    for scale in (1.0, 0.5, -1.0):
        weights = {name: scale * p.detach() for name, p in field.named_parameters()}
        given = odeum.solve(call(weights), y0, TS, engine="fused")
        assert_same_solution(given, odeum.solve(call(weights), y0, TS, engine="eager"))
        results.append(given.ys)
    assert not torch.equal(results[0], results[1])
    assert len(n_compiled) <= 1


def test_training_compiles_once(n_compiled):
    field = Driven()
    optimizer = torch.optim.Adam(field.parameters(), lr=0.05)
    y0 = states(9, 2)
    target = odeum.solve(lambda t, y: -y, y0, TS, engine="eager").ys
    losses, before = [], None
    for _ in range(8):
        optimizer.zero_grad()
        loss = (odeum.solve(field, y0, TS, engine="fused").ys - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        before = len(n_compiled) if before is None else before
    assert losses[-1] < losses[0]
    assert len(n_compiled) == before
    eager = solved("eager", field, y0, TS, None)
    fused = solved("fused", field, y0, TS, None)
    for x, y in zip(fused.gradients, eager.gradients, strict=True):
        assert_near(x, y, 1e-10)
