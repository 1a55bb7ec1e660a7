"""Fields that jump at known times: a step ends on each break, the next starts on the other side."""

import math

import pytest
import torch
from problems import rotation

import odeum
from odeum import Event, Status, StepOptions

BREAKS = [1.0, 2.5, 2.75]
TIGHT = {"rtol": 1e-9, "atol": 1e-11}
TS = torch.linspace(0, 4, 9, dtype=torch.float64)
FAMILIES = [
    ("tsit5", TIGHT, 1e-8),
    ("dopri8", TIGHT, 1e-8),
    ("vern7", TIGHT, 1e-8),
    ("auto", TIGHT, 1e-8),
    ("kvaerno5", {"rtol": 1e-7, "atol": 1e-9}, 1e-6),
    ("rodas5p", {"rtol": 1e-7, "atol": 1e-9}, 1e-6),
    ("rk4", {"step": StepOptions(fixed=0.07)}, 1e-5),
    ("gauss4", {"step": StepOptions(fixed=0.07)}, 1e-5),
    ("explicit_adams", {"step": StepOptions(fixed=0.03)}, 1e-4),
    ("implicit_adams", {"step": StepOptions(fixed=0.03)}, 1e-4),
]


def force(t):
    """1, -2, 5, 0: it jumps at each break, and holds the later value there."""
    one = torch.ones_like(t)
    return torch.where(
        t < BREAKS[0],
        one,
        torch.where(t < BREAKS[1], -2 * one, torch.where(t < BREAKS[2], 5 * one, 0 * one)),
    )


def forced(t, y, *args):
    return force(t) - y


def exact(t, y0):
    """Of ``y' = force(t) - y`` from time 0: exponentials between the breaks."""
    y, start = y0, torch.zeros_like(t)
    for value, end in zip((1.0, -2.0, 5.0, 0.0), (*BREAKS, math.inf), strict=True):
        stop = t.clamp(max=end)
        passed = t > start
        y = torch.where(passed, value + (y - value) * torch.exp(start - stop), y)
        start = stop
    return y


@pytest.mark.parametrize(("method", "options", "atol"), FAMILIES)
def test_the_solution_is_that_of_the_pieces(method, options, atol):
    y0 = torch.tensor([[0.0], [3.0]])
    sol = odeum.solve(forced, y0, TS, method=method, breaks=BREAKS, gradient="none", **options)
    expected = exact(TS[:, None, None], y0)
    torch.testing.assert_close(sol.ys, expected, rtol=0, atol=atol)
    assert sol.status.tolist() == [Status.SUCCESS] * 2


def test_breaks_make_it_exact_and_cheap():
    y0 = torch.tensor([[0.0]])
    with_breaks = odeum.solve(forced, y0, TS, breaks=BREAKS, **TIGHT)
    without = odeum.solve(forced, y0, TS, **TIGHT)
    error = (with_breaks.ys - exact(TS[:, None, None], y0)).abs().max()
    assert float(error) < 1e-9
    assert int(with_breaks.stats.n_evaluations) < 0.7 * int(without.stats.n_evaluations)
    assert int(with_breaks.stats.n_rejected) < int(without.stats.n_rejected)


def test_many_breaks_in_a_piecewise_constant_field_cost_no_rejections():
    breaks = torch.linspace(0.1, 10, 100)  # rounded otherwise than 10 t is

    def field(t, y):
        return torch.floor(10 * t) + 0 * y

    sol = odeum.solve(field, torch.zeros(1, 1), torch.tensor([0.0, 10.0]), breaks=breaks)
    assert float(sol.ys[-1]) == pytest.approx(0.1 * sum(range(100)), abs=1e-9)
    assert int(sol.stats.n_rejected) == 0


@pytest.mark.parametrize("method", ["tsit5", "rk4", "kvaerno5", "rodas5p", "auto", "dopri8"])
@pytest.mark.parametrize("decreasing", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_field_is_seen_on_one_side_in_every_piece(method, decreasing, dtype):
    """The field at a break belongs to neither piece: no time it is asked for lies on one."""
    ts = torch.linspace(0, 4, 3, dtype=dtype)
    ts = ts.flip(0) if decreasing else ts
    breaks = [1.0, 2.0, 2.5]
    seen = []

    def field(t, y):
        seen.append(t.detach().flatten().double())
        return torch.cos(t) * torch.ones_like(y)

    odeum.solve(
        field,
        torch.zeros(1, 1, dtype=dtype),
        ts,
        method=method,
        breaks=breaks,
        gradient="none",
        dense=True,
    )
    times = torch.cat(seen)
    for moment in breaks:
        assert not (times == moment).any()
        near = (times - moment).abs() < 50 * torch.finfo(dtype).eps
        assert (times[near] < moment).any()
        assert (times[near] > moment).any()
    # Once past a break the field is never asked for times before it.
    order = times.flip(0) if decreasing else times
    for moment in breaks:
        before = order < moment
        assert before.int().diff().count_nonzero() == 1


@pytest.mark.parametrize("moment", [-1.0, 0.0, 4.0, 7.0])
def test_breaks_at_the_ends_and_outside_change_nothing(moment):
    y0 = torch.tensor([[0.3, 1.0]])
    plain = odeum.solve(rotation, y0, TS)
    sol = odeum.solve(rotation, y0, TS, breaks=[moment])
    torch.testing.assert_close(sol.ys, plain.ys, rtol=0, atol=1e-12)
    assert sol.status.tolist() == [Status.SUCCESS]
    assert int(sol.stats.n_evaluations) == int(plain.stats.n_evaluations)


@pytest.mark.parametrize("at_start", [False, True])
def test_a_jump_of_the_field_at_an_end_is_not_felt(at_start):
    """Inside the span the field is 1; at its ends, and outside, something else."""

    def field(t, y):
        inside = t > 0 if at_start else t < 4
        return torch.where(inside, torch.ones_like(y), torch.full_like(y, 100.0))

    sol = odeum.solve(field, torch.zeros(1, 1), TS, breaks=[0.0, 4.0])
    torch.testing.assert_close(sol.ys[:, 0, 0], TS, rtol=0, atol=1e-9)


@pytest.mark.parametrize("breaks", [[2.5, 1.0, 2.75], torch.tensor(BREAKS), [*BREAKS, 1.0]])
def test_any_order_and_any_kind_of_breaks(breaks):
    y0 = torch.tensor([[0.5]])
    sol = odeum.solve(forced, y0, TS, breaks=breaks, **TIGHT)
    torch.testing.assert_close(sol.ys, exact(TS[:, None, None], y0), rtol=0, atol=1e-8)


def test_decreasing_time():
    y0 = torch.tensor([[0.5], [1.5]])
    end = exact(TS[-1:, None], y0)
    sol = odeum.solve(forced, end, TS.flip(0), breaks=BREAKS, **TIGHT)
    torch.testing.assert_close(sol.ys.flip(0), exact(TS[:, None, None], y0), rtol=0, atol=1e-7)


def test_times_per_row():
    """Rows start and end on different sides of the breaks, one of them on one."""
    y0 = torch.tensor([[0.5], [0.5], [0.5], [0.5]])
    spans = torch.tensor([[0.0, 4.0], [0.0, 0.9], [0.0, 2.5], [0.0, 2.6]])
    ts = torch.stack([torch.linspace(*span, 6) for span in spans.tolist()], -1)
    sol = odeum.solve(forced, y0, ts, breaks=BREAKS, **TIGHT)
    torch.testing.assert_close(sol.ys, exact(ts[..., None], y0), rtol=0, atol=1e-8)
    late = torch.stack([torch.linspace(a, 4.0, 6) for a in (0.0, 1.0, 2.6, 3.0)], -1)
    start = exact(late[0, :, None], y0)
    sol = odeum.solve(forced, start, late, breaks=BREAKS, **TIGHT)
    torch.testing.assert_close(sol.ys, exact(late[..., None], y0), rtol=0, atol=1e-8)


def test_rows_do_not_depend_on_those_beside():
    y0 = torch.randn(5, 1, generator=torch.Generator().manual_seed(2))
    together = odeum.solve(forced, y0, TS, breaks=BREAKS)
    for i in range(5):
        alone = odeum.solve(forced, y0[i : i + 1], TS, breaks=BREAKS)
        assert torch.equal(alone.ys, together.ys[:, i : i + 1])


@pytest.mark.parametrize("coupling", ["independent", "joint"])
def test_states_of_any_structure(coupling):
    y0 = {"a": torch.tensor([[0.5], [1.0]]), "b": torch.tensor([[0.0, 1.0], [2.0, 3.0]])}
    sol = odeum.solve(
        lambda t, y: {name: force(t) - x for name, x in y.items()},
        y0,
        TS,
        coupling=coupling,
        breaks=BREAKS,
        **TIGHT,
    )
    for name, start in y0.items():
        expected = exact(TS[:, None, None], start)
        torch.testing.assert_close(sol.ys[name], expected, rtol=0, atol=1e-8)
    single = odeum.solve(forced, torch.tensor([0.5, 1.0]), TS, breaks=BREAKS, **TIGHT)
    expected = exact(TS[:, None], torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(single.ys, expected, rtol=0, atol=1e-8)


def test_dense_output_across_breaks():
    y0 = torch.tensor([[0.5], [2.0]])
    sol = odeum.solve(forced, y0, TS[[0, -1]], breaks=BREAKS, dense=True, **TIGHT)
    t = torch.cat([torch.linspace(0, 4, 101), torch.tensor(BREAKS)])
    torch.testing.assert_close(sol(t), exact(t[:, None, None], y0), rtol=0, atol=1e-8)


def test_with_events():
    """Jumps and stops on both sides of a break, and one exactly at a break."""
    y0 = torch.tensor([[0.0], [0.5]])
    down = Event(lambda t, y: y[:, 0], direction=-1, jump=lambda t, y: y + 1)
    sol = odeum.solve(forced, y0, TS, breaks=BREAKS, events=down, **TIGHT)
    # After t = 1: y' = -2 - y falls from y(1) to zero after log(1 + y(1) / 2).
    at_one = exact(torch.ones(1, 1), y0)[:, 0]
    first = 1 + torch.log1p(at_one / 2)
    torch.testing.assert_close(sol.events[0].time, first, rtol=0, atol=1e-8)
    assert (sol.events[0].count > 1).all()
    gap = sol.events[0].times[1] - first
    torch.testing.assert_close(gap, torch.full_like(gap, math.log(1.5)), rtol=0, atol=1e-8)
    alarm = Event(lambda t, y: (t - 1.0)[:, 0], jump=lambda t, y: 2 * y)
    sol = odeum.solve(forced, y0, TS, breaks=BREAKS, events=alarm, **TIGHT)
    assert sol.events[0].count.tolist() == [1, 1]
    since = torch.tensor(1.5)
    expected = -2 + (2 * at_one + 2) * torch.exp(1 - since)
    torch.testing.assert_close(sol.ys[3, :, 0], expected, rtol=0, atol=1e-8)


@pytest.mark.sweep(2)
@pytest.mark.parametrize(
    ("method", "gradient"),
    [
        ("tsit5", "discrete"),
        ("tsit5", "autograd"),
        ("rk4", "autograd"),
        ("rodas5p", "discrete"),
        ("gauss4", "discrete"),
    ],
)
def test_gradients(method, gradient):
    explicit = {"rtol": 1e-7, "atol": 1e-9}
    options = explicit if method == "tsit5" else {"step": StepOptions(fixed=0.4)}

    def solved(y0, ts, strength):
        sol = odeum.solve(
            lambda t, y, a: a * force(t) - y - 0.1 * y**3,
            y0,
            ts,
            strength,
            method=method,
            gradient=gradient,
            breaks=BREAKS,
            **options,
        )
        return sol.ys

    y0 = torch.tensor([[0.5], [1.2]], requires_grad=True)
    ts = torch.tensor([0.1, 0.8, 1.9, 3.1], requires_grad=True)
    strength = torch.tensor(0.7, requires_grad=True)
    # Finite differences see the step sizes change, the gradient of the steps taken does not.
    assert torch.autograd.gradcheck(
        solved, (y0, ts, strength), eps=1e-5, atol=2e-5, rtol=1e-4, fast_mode=True
    )


def test_gradients_in_closed_form():
    y0 = torch.tensor([[0.5], [1.2]], requires_grad=True)
    ts = torch.tensor([0.25, 1.0, 3.1], requires_grad=True)
    sol = odeum.solve(forced, y0, ts, breaks=BREAKS, **TIGHT)
    sol.ys[-1].sum().backward()
    found = (y0.grad, ts.grad)
    # y(t1) of y(t0) = y0: dy(t1)/dy0 = exp(t0 - t1), dy(t1)/dt0 = -f(t0, y0) exp(t0 - t1).
    decay = torch.exp(ts.detach()[0] - ts.detach()[-1])
    torch.testing.assert_close(found[0], decay.expand(2, 1), rtol=1e-7, atol=0)
    by_start = -((1 - y0.detach()) * decay).sum()
    by_end = (0 - sol.ys[-1].detach()).sum()
    expected = torch.stack([by_start, torch.zeros(()), by_end])
    torch.testing.assert_close(found[1], expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("breaks", [[math.nan], [math.inf], [[1.0, 2.0]], "soon", 1.5, {1.0: 2}])
def test_wrong_input_says_so(breaks):
    with pytest.raises(odeum.InputError, match="breaks"):
        odeum.solve(rotation, torch.ones(1, 2), TS, breaks=breaks)
