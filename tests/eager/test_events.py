"""Events against closed forms: balls that fall and bounce, oscillators, exponentials."""

import math

import pytest
import torch
from problems import rotation

import odeum
from odeum import Event, Status, StepOptions

G = 9.81
TIGHT = {"rtol": 1e-10, "atol": 1e-12}
FIXED = {"step": StepOptions(fixed=0.1)}
TS = torch.linspace(0, 10, 11, dtype=torch.float64)


def falling(t, y, *args):
    return torch.stack([y[..., 1], torch.full_like(y[..., 1], -G)], -1)


def height(t, y, *args):
    return y[..., 0]


def bounce(restitution=0.5):
    def jump(t, y, *args):
        return torch.stack([torch.zeros_like(y[..., 0]), -restitution * y[..., 1]], -1)

    return Event(height, direction=-1, jump=jump)


def bounce_time(k, restitution, drop=1.0):
    """Of a ball dropped from ``drop``: ``t1 (1 + 2 r + 2 r^2 + ... + 2 r^k)``."""
    flights = 1 + 2 * sum(restitution**i for i in range(1, k + 1))
    return math.sqrt(2 * drop / G) * flights


def clock(t, y, *args):
    return torch.ones_like(y)


def at_times(*moments, **options):
    """Events at moments of time, whatever the state."""
    return [Event(lambda t, y, moment=moment: (t - moment)[:, 0], **options) for moment in moments]


@pytest.mark.parametrize("start", [-1.0, 1.0])
@pytest.mark.parametrize("direction", [-1, 0, 1])
def test_direction_chooses_crossings(direction, start):
    event = Event(lambda t, y: y[:, 0], terminal=False, direction=direction)
    y0 = torch.tensor([[start, 0.0]])
    sol = odeum.solve(rotation, y0, TS, events=event, **TIGHT)
    # start * cos(t): zeros at pi/2, 3 pi/2, 5 pi/2, the first of them away from the start's sign.
    zeros = [(math.pi / 2 + k * math.pi, -start * (-1) ** k) for k in range(3)]
    expected = [t for t, sign in zeros if direction in (0, sign)]
    assert sol.events[0].times[:, 0].tolist() == pytest.approx(expected, abs=1e-9)
    assert sol.events[0].count.tolist() == [len(expected)]
    assert sol.status.tolist() == [Status.SUCCESS]


@pytest.mark.parametrize("gradient", ["discrete", "autograd", "none"])
def test_a_terminal_event_stops_its_row_and_leaves_what_came_before(gradient):
    y0 = torch.tensor([[1.0, 0.0], [20.0, 0.0], [300.0, 0.0]], requires_grad=True)
    ts = torch.linspace(0, 3, 13)
    sol = odeum.solve(falling, y0, ts, events=Event(height), gradient=gradient, **TIGHT)
    free = odeum.solve(falling, y0, ts, gradient=gradient, **TIGHT)
    expected = torch.sqrt(2 * y0[:, 0] / G)
    assert sol.status.tolist() == [Status.EVENT, Status.EVENT, Status.SUCCESS]
    assert sol.events[0].fired.tolist() == [True, True, False]
    torch.testing.assert_close(sol.events[0].time[:2], expected[:2], rtol=1e-12, atol=0)
    assert sol.events[0].time[2].isnan()
    assert sol.events[0].state[2].isnan().all()
    torch.testing.assert_close(
        sol.events[0].state[:2, 1], -G * expected[:2], rtol=1e-12, atol=1e-12
    )
    for row in range(2):
        before = ts < expected[row]
        torch.testing.assert_close(sol.ys[before, row], free.ys[before, row], rtol=0, atol=1e-12)
        assert sol.ys[~before, row].isnan().all()
    assert sol.ys[:, 2].isfinite().all()
    assert sol.events[0].times.requires_grad == (gradient != "none")


def test_each_row_bounces_as_often_as_it_must():
    restitution = torch.tensor([[0.2], [0.5], [0.7], [0.9]])
    event = Event(
        height,
        direction=-1,
        jump=lambda t, y, r: torch.stack([0 * y[:, 0], -r[:, 0] * y[:, 1]], -1),
    )
    y0 = torch.tensor([[1.0, 0.0]]).repeat(5, 1)
    y0[4, 0] = 100.0  # never arrives
    r = torch.cat([restitution, torch.ones(1, 1)])
    ts = torch.linspace(0, 1.25 * bounce_time(0, 0.0), 4)
    ts = torch.stack([ts * s for s in (1.0, 2.2, 4.0, 5.0, 2.0)], -1)
    sol = odeum.solve(falling, y0, ts, odeum.per_row(r), events=event, **TIGHT)
    for row, ratio in enumerate(restitution[:, 0].tolist()):
        expected = [bounce_time(k, ratio) for k in range(40)]
        expected = [t for t in expected if t <= float(ts[-1, row])]
        assert sol.events[0].count[row] == len(expected)
        found = sol.events[0].times[:, row]
        assert found[: len(expected)].tolist() == pytest.approx(expected, abs=1e-10)
        assert found[len(expected) :].isnan().all()
        # Between the last bounce and the end it flies freely.
        k = len(expected) - 1
        since, speed = ts[-1, row] - expected[k], ratio ** (k + 1) * math.sqrt(2 * G)
        exact = torch.stack([speed * since - G / 2 * since**2, speed - G * since])
        torch.testing.assert_close(sol.ys[-1, row], exact, rtol=0, atol=1e-8)
    assert sol.events[0].count[4] == 0
    assert sol.status.tolist() == [Status.SUCCESS] * 5


@pytest.mark.parametrize("restitution", [0.0, 0.3, 0.7])
def test_zeno_ends_in_bounded_work(restitution):
    """Bounces pile up before t1 (1 + r) / (1 - r): beyond it there is no solution."""
    y0, ts = torch.tensor([[1.0, 0.0], [1000.0, 0.0]]), torch.linspace(0, 10, 3)
    options = {"events": bounce(restitution), "gradient": "none", "rtol": 1e-3}
    sol = odeum.solve(falling, y0, ts, on_failure="mask", **options)
    assert sol.status.tolist() == [Status.ZENO, Status.SUCCESS]
    limit = math.sqrt(2 / G) * (1 + restitution) / (1 - restitution)
    times = sol.events[0].times[:, 0]
    assert float(times[times.isfinite()].max()) == pytest.approx(limit, abs=1e-8)
    assert int(sol.stats.n_accepted[0]) < 1000
    assert sol.ys[1:, 0].isnan().all()


def test_zeno_is_an_error_that_says_so():
    y0, ts = torch.tensor([[1000.0, 0.0], [1.0, 0.0]]), torch.linspace(0, 10, 3)
    options = {"gradient": "none", "rtol": 1e-3}
    with pytest.raises(odeum.SolveError, match=r"row 1 of 2 stopped at .*terminal=True"):
        odeum.solve(falling, y0, ts, events=bounce(0.3), **options)


def test_zeno_is_a_matter_of_each_row():
    event = Event(
        height,
        direction=-1,
        jump=lambda t, y, r: torch.stack([0 * y[:, 0], -r[:, 0] * y[:, 1]], -1),
    )
    r = torch.tensor([[0.3], [1.0], [0.6]])
    y0 = torch.tensor([[1.0, 0.0]]).repeat(3, 1)
    ts = torch.linspace(0, 4, 5)
    options = {"events": event, "gradient": "none", "on_failure": "mask"}
    sol = odeum.solve(falling, y0, ts, odeum.per_row(r), **options)
    assert sol.status.tolist() == [Status.ZENO, Status.SUCCESS, Status.ZENO]
    alone = odeum.solve(falling, y0[1:2], ts, odeum.per_row(r[1:2]), **options)
    assert torch.equal(sol.ys[:, 1:2], alone.ys)
    n = int(alone.events[0].count)
    assert n == 4
    assert torch.equal(sol.events[0].times[:n, 1:2], alone.events[0].times)


def test_event_times_do_not_depend_on_the_rows_beside():
    y0 = torch.rand(6, 2, generator=torch.Generator().manual_seed(1)) + 0.5
    events = [bounce(0.8), Event(lambda t, y: y[:, 1], terminal=False)]
    ts = torch.linspace(0, 1, 5)
    whole = odeum.solve(falling, y0, ts, events=events)
    for i in range(6):
        alone = odeum.solve(falling, y0[i : i + 1], ts, events=events)
        assert torch.equal(whole.ys[:, i : i + 1], alone.ys)
        for together, single in zip(whole.events, alone.events, strict=True):
            n = int(single.count)
            assert int(together.count[i]) == n
            assert torch.equal(together.times[:n, i], single.times[:n, 0])
            assert torch.equal(together.states[:n, i], single.states[:n, 0])


@pytest.mark.sweep(2)
@pytest.mark.parametrize(
    ("method", "options", "atol"),
    [
        ("tsit5", TIGHT, 1e-9),
        ("dopri8", TIGHT, 1e-9),
        ("vern7", TIGHT, 1e-9),
        ("vern9", TIGHT, 1e-9),
        ("kvaerno5", {"rtol": 1e-8, "atol": 1e-10}, 1e-7),
        ("rodas5p", {"rtol": 1e-8, "atol": 1e-10}, 1e-7),
        ("auto", TIGHT, 1e-9),
        ("bosh3", {"rtol": 1e-6, "atol": 1e-8}, 1e-5),
        ("rk4", FIXED, 2e-5),
        ("euler", {"step": StepOptions(fixed=0.02)}, 1e-1),
        ("gauss4", FIXED, 1e-4),
        ("radau5", FIXED, 1e-4),
        ("implicit_midpoint", FIXED, 2e-2),
        ("explicit_adams", FIXED, 1e-3),
        ("implicit_adams", FIXED, 1e-3),
    ],
)
def test_every_family_of_methods(method, options, atol):
    """sin(t) and 2 sin(t) to the second crossing from above; each crossing from below halves."""
    halve = Event(height, direction=1, jump=lambda t, y: 0.5 * y)
    stop = Event(lambda t, y: y[:, 0] - 0.6, direction=-1)
    y0 = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    sol = odeum.solve(
        rotation, y0, TS, method=method, events=[halve, stop], gradient="none", **options
    )
    # Row 0 falls through 0.6 at once; row 1 too, before it is halved.
    expected = [math.pi - math.asin(0.6), math.pi - math.asin(0.3)]
    assert sol.events[1].times[0].tolist() == pytest.approx(expected, abs=atol)
    below = odeum.solve(
        rotation, -y0, TS[:8], method=method, events=halve, gradient="none", **options
    )
    assert below.events[0].time.tolist() == pytest.approx([math.pi] * 2, abs=atol)
    exact = -0.5 * torch.sin(TS[4:7, None]) * y0[:, 1]
    torch.testing.assert_close(below.ys[4:7, :, 0], exact, rtol=0, atol=atol)


@pytest.mark.parametrize("method", ["leapfrog", "yoshida4", "semi_implicit_euler"])
def test_symplectic_methods(method):
    def field(t, state):
        return state[1], -state[0]

    reflect = Event(lambda t, s: s[0][:, 0], direction=-1, jump=lambda t, s: (-s[0], -s[1]))
    state = (torch.zeros(2, 1), torch.tensor([[1.0], [2.0]]))
    sol = odeum.solve(field, state, TS, method=method, events=reflect, step=StepOptions(fixed=0.05))
    expected = torch.tensor([1.0, 2.0, 3.0])[:, None].expand(3, 2) * math.pi
    torch.testing.assert_close(sol.events[0].times, expected, rtol=0, atol=5e-2)
    torch.testing.assert_close(
        sol.ys[0][..., 0], torch.sin(TS)[:, None].abs() * state[1][:, 0], rtol=0, atol=1e-1
    )


def test_pendulum_period_to_ten_digits():
    amplitude = torch.tensor([0.5, 1.5, 3.0])
    # 4 K(sin(a/2)) by the arithmetic-geometric mean.
    a, b = torch.ones(3), torch.cos(amplitude / 2)
    for _ in range(8):
        a, b = (a + b) / 2, torch.sqrt(a * b)
    period = 2 * math.pi / a
    y0 = torch.stack([amplitude, torch.zeros(3)], -1)
    event = Event(lambda t, y: y[:, 1], direction=-1)
    sol = odeum.solve(
        lambda t, y: torch.stack([y[:, 1], -torch.sin(y[:, 0])], -1),
        y0,
        torch.tensor([0.0, 30.0]),
        method="dopri8",
        events=event,
        rtol=1e-12,
        atol=1e-13,
    )
    # The speed is zero at the start, goes negative at once, and comes back after a period.
    torch.testing.assert_close(sol.events[0].time, period, rtol=1e-10, atol=0)


def test_projectile_to_ten_digits():
    speed = torch.tensor([[3.0, 4.0], [1.0, 50.0], [7.0, 0.01]])
    y0 = torch.cat([torch.zeros(3, 2), speed], -1)

    def field(t, y):
        return torch.cat([y[:, 2:], torch.tensor([0.0, -G]).expand(len(y), 2)], -1)

    sol = odeum.solve(
        field,
        y0,
        torch.tensor([0.0, 20.0]),
        events=Event(lambda t, y: y[:, 1], direction=-1),
        rtol=1e-10,
    )
    flight = 2 * speed[:, 1] / G
    torch.testing.assert_close(sol.events[0].time, flight, rtol=1e-10, atol=1e-15)
    torch.testing.assert_close(sol.events[0].state[:, 0], speed[:, 0] * flight, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", ["[dim]", "tuple", "dict", "joint", "per row", "decreasing"])
def test_states_times_and_couplings(name):
    ts = torch.linspace(0, 4, 5)
    y0 = torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    options = {"events": Event(height), **TIGHT}
    if name == "[dim]":
        sol = odeum.solve(rotation, y0[0], ts, **options)
        assert sol.events[0].times.shape == (1,)
        assert sol.status.shape == ()
        times = sol.events[0].times
        assert sol.events[0].state.shape == (2,)
    elif name in ("tuple", "dict"):
        keys = (0, 1) if name == "tuple" else ("q", "p")

        def made(q, p):
            return (q, p) if name == "tuple" else {"q": q, "p": p}

        q, p = keys
        state = made(y0[:, :1], y0[:, 1:])
        event = Event(lambda t, y: y[q][:, 0], direction=-1)
        sol = odeum.solve(lambda t, y: made(y[p], -y[q]), state, ts, **{**options, "events": event})
        times = sol.events[0].time
        torch.testing.assert_close(sol.events[0].state[p], -y0[:, 1:], rtol=0, atol=1e-8)
    elif name == "joint":
        event = Event(lambda t, y: y[1, 0], direction=-1)
        sol = odeum.solve(rotation, y0, ts, coupling="joint", **{**options, "events": event})
        times = sol.events[0].time
        assert times.shape == (2,)
        assert sol.ys[4].isnan().all()
    elif name == "per row":
        shift = torch.tensor([0.0, 100.0])
        sol = odeum.solve(rotation, y0, ts[:, None] + shift, **options)
        times = sol.events[0].time - shift
    else:
        sol = odeum.solve(rotation, y0, -ts, **options)
        times = -sol.events[0].time
    torch.testing.assert_close(times, torch.full_like(times, math.pi), rtol=0, atol=1e-9)


def test_direction_is_that_of_the_way_taken():
    """Backwards in time sin falls through zero where it rises forwards."""
    y0 = torch.tensor([[1.0, 0.0]])  # cos: backwards it falls through zero at -pi/2
    event = Event(height, direction=-1)
    sol = odeum.solve(rotation, y0, -TS, events=event, **TIGHT)
    assert float(sol.events[0].time) == pytest.approx(-math.pi / 2, abs=1e-9)


def test_a_fn_and_a_jump_take_args_and_the_entries_of_their_rows():
    level = torch.tensor([0.5, 2.0, 1.0])
    kick = torch.tensor([0.25, 0.1, 0.5])
    event = Event(
        lambda t, y, a: y[:, 0] - a["level"],
        direction=1,
        jump=lambda t, y, a: y - a["kick"][:, None],
    )
    args = {"level": odeum.per_row(level), "kick": odeum.per_row(kick)}
    ts = torch.tensor([0.0, 2.97])
    sol = odeum.solve(lambda t, y, a: torch.ones_like(y), torch.zeros(3, 1), ts, args, events=event)
    for row in range(3):
        expected = torch.arange(float(level[row]), 2.97, float(kick[row]))
        n = int(sol.events[0].count[row])
        assert n == len(expected)
        torch.testing.assert_close(sol.events[0].times[:n, row], expected, rtol=0, atol=1e-12)


def test_a_default_argument_of_a_fn_is_its_own():
    event = Event(lambda t, y, level=0.5: y[:, 0] - level)
    (sol,) = odeum.solve(clock, torch.zeros(1, 1), torch.tensor([0.0, 1.0]), events=event).events
    assert float(sol.time) == pytest.approx(0.5)


@pytest.mark.parametrize("direction", [0, 1])
def test_a_jump_may_lead_on_past_its_event(direction):
    """Doses at given times, and a gear that shifts as the speed rises through a level."""
    doses = at_times(1.0, 2.5, direction=direction, jump=lambda t, y: y + 1)
    y0, ts = torch.ones(2, 1), torch.linspace(0, 4, 5)
    sol = odeum.solve(lambda t, y: -y, y0, ts, events=doses, **TIGHT)
    exact = sum(torch.exp(-(ts - s)) * (ts > s) for s in (-1e-9, 1.0, 2.5))
    exact[0] = 1
    torch.testing.assert_close(sol.ys[:, 0, 0], exact, rtol=0, atol=1e-8)
    shift = Event(
        lambda t, y: y[:, 0] - 2,
        direction=direction,
        jump=lambda t, y: torch.stack([y[:, 0], y[:, 1] / 4], -1),
    )
    car = torch.tensor([[0.0, 1.0]])  # speed and acceleration
    sol = odeum.solve(
        lambda t, y: torch.stack([y[:, 1], 0 * y[:, 1]], -1), car, ts, events=shift, **TIGHT
    )
    assert sol.events[0].times.tolist() == [[pytest.approx(2.0)]]
    torch.testing.assert_close(sol.ys[:, 0, 0], torch.tensor([0.0, 1.0, 2.0, 2.25, 2.5]))


def test_float32():
    y0 = torch.tensor([[1.0, 0.0], [2.0, 0.0]], dtype=torch.float32)
    ts = torch.linspace(0, 1.3, 4, dtype=torch.float32)
    sol = odeum.solve(falling, y0, ts, events=bounce(), rtol=1e-5)
    assert sol.events[0].times.dtype == sol.ys.dtype == torch.float32
    for row, drop in enumerate((1.0, 2.0)):
        n = int(sol.events[0].count[row])
        expected = [t for t in (bounce_time(k, 0.5, drop) for k in range(30)) if t < 1.3]
        assert n == len(expected) > 1
        assert sol.events[0].times[:n, row].tolist() == pytest.approx(expected, rel=1e-5)


def test_in_the_first_step_and_twice_in_one():
    y0 = torch.zeros(2, 1)
    ts = torch.tensor([0.0, 1000.0])
    events = at_times(1e-9, 400.0, 410.0, terminal=False)
    sol = odeum.solve(clock, y0, ts, events=events)
    assert int(sol.stats.n_accepted.max()) < 20
    for record, moment in zip(sol.events, (1e-9, 400.0, 410.0), strict=True):
        assert record.times[:, 1].tolist() == pytest.approx([moment], rel=1e-12)


def test_the_first_of_two_in_one_step_stops_the_row():
    y0, ts = torch.zeros(2, 1), torch.tensor([0.0, 1000.0])
    later, sooner = at_times(410.0, 400.0)
    sol = odeum.solve(clock, y0, ts, events=[later, sooner])
    assert sol.events[0].count.tolist() == [0, 0]
    assert sol.events[1].time.tolist() == pytest.approx([400.0] * 2, rel=1e-12)


def test_coinciding_events_are_all_seen():
    y0, ts = torch.zeros(1, 1), torch.linspace(0, 2, 5)
    (stop,) = at_times(1.1)
    (pass_,) = at_times(1.1, terminal=False)
    (jump,) = at_times(1.1, jump=lambda t, y: y + 5)
    sol = odeum.solve(clock, y0, ts, events=[pass_, jump])
    assert [int(record.count) for record in sol.events] == [1, 1]
    assert float(sol.ys[-1]) == pytest.approx(7.0)
    sol = odeum.solve(clock, y0, ts, events=[jump, stop])
    assert int(sol.status) == Status.EVENT
    assert sol.ys[3:].isnan().all()


def test_a_double_crossing_inside_one_step_is_seen():
    """Down and up again within less than half of a step."""
    y0, ts = torch.zeros(1, 1), torch.tensor([0.0, 8.0])
    step = StepOptions(fixed=8.0)
    event = Event(lambda t, y: (y[:, 0] - 1.9) * (y[:, 0] - 4.1), terminal=False)
    sol = odeum.solve(clock, y0, ts, method="rk4", step=step, events=event)
    assert sol.events[0].times[:, 0].tolist() == pytest.approx([1.9, 4.1])


def test_a_kink_is_not_a_crossing():
    event = Event(lambda t, y: y[:, 0].abs() + 1e-9, terminal=False)
    sol = odeum.solve(rotation, torch.tensor([[0.0, 1.0]]), TS, events=event)
    assert sol.events[0].count.tolist() == [0]


def test_a_tangent_event_is_harmless():
    """A function that touches zero may fire or not; nothing becomes NaN, gradients neither."""
    y0 = torch.tensor([[0.0, 1.0]], requires_grad=True)
    event = Event(lambda t, y: 1 - y[:, 0], terminal=False)
    sol = odeum.solve(rotation, y0, TS, events=event, **TIGHT)
    found = sol.events[0].times[sol.events[0].times.isfinite()]
    (sol.ys.sum() + found.sum()).backward()
    assert y0.grad.isfinite().all()
    flat = Event(lambda t, y: torch.zeros_like(y[:, 0]), terminal=False)
    sol = odeum.solve(rotation, y0, TS, events=flat)
    assert sol.ys.isfinite().all()
    assert sol.events[0].count.tolist() == [0]


@pytest.mark.parametrize("dense", [False, True])
def test_an_event_at_an_output_and_at_the_end(dense):
    y0, ts = torch.zeros(2, 1), torch.linspace(0, 2, 5)
    for moment in (0.5, 2.0):
        (jump,) = at_times(moment, jump=lambda t, y: y + 5)
        sol = odeum.solve(clock, y0, ts, events=jump, dense=dense)
        assert sol.status.tolist() == [Status.SUCCESS] * 2
        assert sol.events[0].times.tolist() == [[moment] * 2]
        # The output there is the state before the jump.
        expected = ts + 5 * (ts > moment)
        torch.testing.assert_close(sol.ys[:, 0, 0], expected)
        (stop,) = at_times(moment)
        sol = odeum.solve(clock, y0, ts, events=stop, dense=dense)
        assert sol.status.tolist() == [Status.EVENT] * 2
        torch.testing.assert_close(sol.ys[ts <= moment, 0, 0], ts[ts <= moment])
        assert sol.ys[ts > moment].isnan().all()


@pytest.mark.parametrize("direction", [-1, 0, 1])
def test_zero_at_the_start_is_no_event(direction):
    event = Event(height, direction=direction, terminal=False)
    y0 = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    sol = odeum.solve(rotation, y0, TS[:4], events=event)
    assert sol.events[0].count.tolist() == [0, 0]


def test_dense_output_across_jumps_is_left_continuous():
    ts = torch.tensor([0.0, 1.25])
    sol = odeum.solve(falling, torch.tensor([[1.0, 0.0]]), ts, events=bounce(), dense=True, **TIGHT)
    t1, t2 = bounce_time(0, 0.5), bounce_time(1, 0.5)
    found = sol.events[0].times[:2, 0]
    torch.testing.assert_close(sol(found)[:, 0], sol.events[0].states[:2, 0], rtol=0, atol=1e-12)
    t = torch.linspace(0, 1.1, 200)
    since = torch.where(t <= t1, t, t - t1)
    speed = 0.5 * math.sqrt(2 * G)
    exact = torch.where(t <= t1, 1 - G / 2 * t**2, speed * since - G / 2 * since**2)
    exact = exact[t < t2]
    torch.testing.assert_close(sol(t)[t < t2, 0, 0], exact, rtol=0, atol=1e-9)
    after = float(sol(t1 + 1e-9)[0, 1])
    assert after == pytest.approx(speed, abs=1e-6)
    stopped = odeum.solve(
        falling, torch.tensor([[1.0, 0.0]]), ts, events=Event(height), dense=True, **TIGHT
    )
    assert stopped(t1 - 1e-6).isfinite().all()
    assert stopped(t1 + 1e-6).isnan().all()


def test_wrong_input_says_so():
    y0, ts = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([0.0, 1.0])
    for fn in (
        lambda t, y: y,
        lambda t, y: y.sum(),
        lambda t, y: 3.0,
        lambda t, y: (y[:, 0], y[:, 1]),
    ):
        with pytest.raises(odeum.InputError, match="return one number per row"):
            odeum.solve(falling, y0, ts, events=Event(fn))
    for jump, hint in (
        (lambda t, y: y[:, 0], r"jump returned shape \[2\]"),
        (lambda t, y: (y, y), "jump returned a tuple"),
        (lambda t, y: y.float(), "jump returned torch.float32"),
        (lambda t, y: None, "jump returned"),
    ):
        with pytest.raises(odeum.InputError, match=hint):
            odeum.solve(falling, y0, ts, events=Event(height, jump=jump))
    with pytest.raises(odeum.InputError, match=r"give odeum\.Event"):
        odeum.solve(falling, y0, ts, events=[height])
    with pytest.raises(odeum.InputError, match="direction=2"):
        Event(height, direction=2)
    with pytest.raises(odeum.InputError, match="one or the other"):
        Event(height, terminal=True, jump=lambda t, y: y)
