"""Which engine runs, why, and that what is compiled is never stale."""

import pytest
import torch
from fields import states
from torch import nn

import odeum
from odeum import engines
from odeum.compile import engine as fused_engine
from odeum.compile.runtime import kernels
from odeum.errors import TraceError

pytestmark = pytest.mark.usefixtures("unasked")

TS = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)


@pytest.fixture
def unasked(monkeypatch):
    """``engine="auto"`` may compile."""
    monkeypatch.delenv("ODEUM_ENGINE")


def decaying(rate: float = 0.7):
    gain = torch.tensor(1.3)

    def field(t, y):
        return -rate * gain * torch.tanh(y)

    return field


def solve(field, n_rows=5, ts=TS, **options):
    return odeum.solve(field, states(n_rows, 2), ts, **options)


# When a field is compiled


def test_the_second_time(compilations):
    first, second, third = (solve(decaying()) for _ in range(3))
    assert (first.engine, second.engine, third.engine) == ("eager", "fused", "fused")
    assert "second time" in first.engine_reason
    assert second.engine_reason == third.engine_reason == "the field is compiled"
    assert compilations.n == 1
    torch.testing.assert_close(second.ys, first.ys, rtol=1e-12, atol=1e-12)
    # Another field is met for the first time again.
    assert solve(lambda t, y: torch.cos(y)).engine == "eager"


def test_what_is_on_disk_at_once(compilations):
    solve(decaying(), engine="fused")
    compilations.forget()
    assert solve(decaying()).engine == "fused"
    assert compilations.n == 1


@pytest.mark.slow
@pytest.mark.parametrize("wants_gradient", [False, True])
def test_a_first_solve_that_is_long(compilations, monkeypatch, wants_gradient):
    monkeypatch.setattr(engines, "LONG", 64)
    field, step = decaying(), odeum.StepOptions(fixed=1e-3)
    y0 = states(5, 2).requires_grad_(wants_gradient)
    sol = odeum.solve(field, y0, TS, step=step)
    assert sol.engine == "fused"
    assert "64 steps" in sol.engine_reason
    assert sol.stats.n_accepted.tolist() == [1000] * 5
    expected = odeum.solve(field, y0, TS, step=step, engine="eager")
    torch.testing.assert_close(sol.ys, expected.ys, rtol=1e-11, atol=1e-12)
    if wants_gradient:
        (given,) = torch.autograd.grad(sol.ys.sum(), y0)
        torch.testing.assert_close(given, torch.autograd.grad(expected.ys.sum(), y0)[0])


@pytest.mark.slow
def test_training_starts_eagerly_and_goes_on_compiled(compilations):
    torch.manual_seed(0)
    net = nn.Linear(2, 2)
    seen = []
    for _ in range(3):
        y0 = states(5, 2)
        sol = odeum.solve(lambda t, y: net(y), y0, TS)
        sol.ys.sum().backward()
        seen.append((sol.engine, net.weight.grad.clone()))
        net.zero_grad()
    assert [name for name, _ in seen] == ["eager", "fused", "fused"]
    for _, g in seen[1:]:
        torch.testing.assert_close(g, seen[0][1], rtol=1e-10, atol=1e-12)


def test_asked_for():
    eager, fused = solve(decaying(), engine="eager"), solve(decaying(), engine="fused")
    assert (eager.engine, fused.engine) == ("eager", "fused")
    assert 'engine="eager"' in eager.engine_reason
    assert 'engine="fused"' in fused.engine_reason


def test_the_environment_says_no(monkeypatch):
    monkeypatch.setenv("ODEUM_ENGINE", "eager")
    for _ in range(3):
        sol = solve(decaying())
        assert sol.engine == "eager"
        assert "ODEUM_ENGINE=eager" in sol.engine_reason
    assert solve(decaying(), engine="fused").engine == "fused"


def test_a_compiler_that_fails(compilations, monkeypatch):
    def broken(*_):
        raise RuntimeError("no registers left")

    monkeypatch.setattr(kernels, "compiled", broken)
    solve(decaying())
    sol = solve(decaying())
    assert sol.engine == "eager"
    assert "no registers left" in sol.engine_reason
    assert (sol.status == 0).all()
    with pytest.raises(RuntimeError, match="no registers left"):
        solve(decaying(), engine="fused")


@pytest.mark.slow
def test_large_fields_are_torchs(compilations, monkeypatch):
    monkeypatch.setattr(fused_engine, "LARGE", 4)
    for _ in range(2):
        sol = solve(decaying(), n_rows=40)
        assert sol.engine == "eager"
        assert "large" in sol.engine_reason
    assert solve(decaying(), n_rows=40, engine="fused").engine == "fused"


# What is not compiled


def convolving(t, y):
    kernel = torch.ones(1, 1, 3)
    return nn.functional.conv1d(y[:, None], kernel, padding=1)[:, 0]


def mixing(t, y):
    return y - y.mean(0)


@pytest.mark.parametrize(
    ("field", "options", "words"),
    [
        (convolving, {}, "convolution"),
        (mixing, {}, "rows are not independent"),
        (decaying(), {"method": "kvaerno5"}, "explicit Runge-Kutta"),
        (decaying(), {"gradient": "interpolated"}, "discrete"),
        (decaying(), {"gradient": "reversible"}, "discrete"),
        (decaying(), {"breaks": [0.5]}, "breaks"),
        (decaying(), {"events": odeum.Event(lambda t, y: y[:, 0] - 5.0)}, "events"),
        (decaying(), {"coupling": "joint"}, "joint"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_is_not_compiled_says_why(field, options, words):
    for _ in range(3):
        sol = solve(field, **options)
        assert sol.engine == "eager"
        assert words in sol.engine_reason
    with pytest.raises(TraceError, match=words):
        solve(field, engine="fused", **options)


def test_errors_name_the_operation_and_the_line():
    for _ in range(2):
        with pytest.raises(TraceError) as raised:
            solve(convolving, engine="fused")
        error = raised.value
        line = convolving.__code__.co_firstlineno + 2
        assert "convolution" in error.operation
        assert error.source is not None
        assert error.source.endswith(f"test_engines_auto.py:{line}")
        assert error.source.rsplit("/", 1)[-1] in str(error)
        assert "\n" not in str(error)


def test_a_field_that_fails_fails_as_it_would_eagerly():
    def wrong(t, y):
        return y @ torch.ones(3, 3)

    messages = []
    for engine in ("eager", "auto", "auto"):
        with pytest.raises(RuntimeError) as raised:
            solve(wrong, engine=engine)
        messages.append(str(raised.value))
    assert messages[1] == messages[2] == messages[0]


# Never stale


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale = 1.0
        self.net = nn.Sequential(nn.Linear(2, 2), nn.Tanh())

    def forward(self, t, y):
        return self.scale * self.net(y)


def assert_fresh(field, **options):
    """Whatever ``engine="auto"`` and "fused" give is what the field says now."""
    options = {"gradient": "none", **options}
    expected = solve(field, engine="eager", **options)
    for engine in ("auto", "fused", "fused"):
        given = solve(field, engine=engine, **options)
        torch.testing.assert_close(given.ys, expected.ys, rtol=1e-11, atol=1e-12)
    return expected.ys.detach()


def test_modules_that_change():
    field = Scaled()
    seen = [assert_fresh(field)]
    field.scale = 0.5
    seen.append(assert_fresh(field))
    field.net[1] = nn.Sigmoid()
    seen.append(assert_fresh(field))
    field.scale = 1.0
    field.net[1] = nn.Tanh()
    assert torch.equal(assert_fresh(field), seen[0])
    with torch.no_grad():
        field.net[0].weight.mul_(2.0)
    seen.append(assert_fresh(field))
    field.net[0].weight = nn.Parameter(torch.ones(2, 2))
    seen.append(assert_fresh(field))
    field.net[0].bias = None
    seen.append(assert_fresh(field))
    for i, ys in enumerate(seen):
        assert not any(torch.equal(ys, other) for other in seen[:i])


def test_closures_that_change():
    rate, shift = 0.5, torch.zeros(2)

    def field(t, y):
        return -rate * y + shift

    first = assert_fresh(field)
    rate = 1.5
    second = assert_fresh(field)
    shift = torch.ones(2)
    third = assert_fresh(field)
    shift += 1.0
    fourth = assert_fresh(field)
    assert len({float(ys[-1, 0, 0]) for ys in (first, second, third, fourth)}) == 4


@pytest.mark.slow
def test_gradients_that_come_and_go():
    """What wants a gradient decides which kernel runs."""
    field = Scaled()
    weight, bias = field.net[0].weight, field.net[0].bias
    for wants in ((True, True), (False, True), (True, True)):
        weight.requires_grad_(wants[0])
        bias.requires_grad_(wants[1])
        for _ in range(2):
            ys = solve(field, engine="fused").ys
            ys.sum().backward()
            assert (weight.grad is not None, bias.grad is not None) == wants
            weight.grad = bias.grad = None


@pytest.mark.slow
def test_options_that_change():
    """Solves alike are told from those that are not, one after the other."""
    field = decaying()
    assert_fresh(field)
    for options in (
        {"rtol": 1e-9},
        {"atol": 1e-2, "rtol": 1e-2},
        {"step": odeum.StepOptions(max=0.1)},
        {"step": odeum.StepOptions(fixed=0.25)},
        {"method": odeum.methods.get("bosh3", controller=odeum.control.PI)},
        {"ts": -TS},
        {"ts": torch.linspace(0, 1, 7)},
        {"n_rows": 3},
        {"n_rows": 1},
    ):
        n_accepted = []
        for engine in ("eager", "fused", "fused"):
            sol = solve(field, engine=engine, gradient="none", **options)
            n_accepted.append(sol.stats.n_accepted.tolist())
        assert n_accepted[1] == n_accepted[2] == n_accepted[0]
        assert_fresh(field, **options)
