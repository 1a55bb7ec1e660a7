"""The discrete gradient with few states stored: the same gradient, steps taken again."""

import gc
import math

import pytest
import torch
from torch import nn

import odeum
from odeum.gradient import Discrete
from odeum.gradient.checkpoints import Slots, stride


class Field(nn.Module):
    """Nonlinear, time-dependent, with parameters and per-row arguments."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, t, y, rate):
        time = t.expand(len(y), 1)
        return self.net(torch.cat([y, time], -1)) * 3 + torch.sin(rate * time) * y


def gradients(gradient, *, dense=False, coupling="independent", decreasing=False, **options):
    torch.manual_seed(1)
    field = Field()
    y0 = torch.randn(4, 2, requires_grad=True)
    ts = torch.linspace(0.3, 2.1, 7)
    ts = ts[:, None] * torch.tensor([1.0, 1.3, 0.7, 2.0]) + torch.tensor([0.0, 0.2, -0.4, 0.1])
    if coupling == "joint":
        ts = ts[:, 0]
    ts = (ts.flip(0) if decreasing else ts).clone().requires_grad_()
    rate = torch.tensor([[0.5], [3.0], [9.0], [1.0]], requires_grad=True)
    sol = odeum.solve(
        field,
        y0,
        ts,
        rate if coupling == "joint" else odeum.per_row(rate),
        gradient=gradient,
        coupling=coupling,
        dense=dense,
        **options,
    )
    loss = (sol.ys**2 * torch.arange(1, 8).view(-1, 1, 1)).sum()
    if dense:
        between = ts[0] * 0.6 + ts[-1] * 0.4
        loss = loss + (sol(between[None]) ** 3).sum()
    loss.backward()
    return [y0.grad, ts.grad, rate.grad, *(p.grad for p in field.parameters())], sol


TIGHT = {"rtol": 1e-6, "atol": 1e-8}
FIXED = {"step": odeum.StepOptions(fixed=0.15)}
CASES = [
    ("tsit5", {**TIGHT, "dense": True}),
    ("dopri8", {**TIGHT, "decreasing": True}),
    ("bosh3", {"rtol": 1e-4, "coupling": "joint"}),
    ("rk4", {**FIXED, "dense": True}),
    ("euler", {}),
    ("kvaerno3", {"rtol": 1e-2}),
    ("radau5", {"rtol": 1e-2, "dense": True}),
    ("rodas5p", {"rtol": 1e-2, "decreasing": True}),
    ("trapezoid", {"rtol": 1e-2}),
]


def assert_same(few, every):
    for a, b in zip(few[0], every[0], strict=True):
        assert torch.equal(a, b)
    assert torch.equal(few[1].ys, every[1].ys)
    few, every = few[1].stats.backward, every[1].stats.backward
    assert torch.equal(few.n_accepted, every.n_accepted)
    assert (few.n_evaluations >= every.n_evaluations).all()


@pytest.mark.sweep(2)
@pytest.mark.parametrize(("method", "how"), CASES, ids=[name for name, _ in CASES])
def test_the_same_gradient_bit_for_bit(method, how, monkeypatch):
    monkeypatch.setattr("odeum.gradient.tape.ROOM_BYTES", 0)
    every = gradients(Discrete(), method=method, **how)
    for checkpoints in (2, 5):
        assert_same(gradients(Discrete(checkpoints), method=method, **how), every)


@pytest.mark.parametrize("checkpoints", [1, 1000])
def test_one_state_or_room_for_all(checkpoints, monkeypatch):
    monkeypatch.setattr("odeum.gradient.tape.ROOM_BYTES", 0)
    how = {"method": "tsit5", "rtol": 1e-4}
    assert_same(gradients(Discrete(checkpoints), **how), gradients(Discrete(), **how))


def test_rows_that_change_their_method(monkeypatch):
    """Rows wait for others before they go on by another method."""
    monkeypatch.setattr("odeum.gradient.tape.ROOM_BYTES", 0)

    def grads(gradient):
        y0 = torch.tensor([[2.0, 0.0], [1.5, 0.1], [1.0, 1.0]]).requires_grad_()
        mu = torch.tensor([[60.0], [1.0], [30.0]], requires_grad=True)

        def field(t, y, mu):
            return torch.cat([y[:, 1:], mu * (1 - y[:, :1] ** 2) * y[:, 1:] - y[:, :1]], -1)

        ts = torch.linspace(0, 15, 4)
        sol = odeum.solve(
            field, y0, ts, odeum.per_row(mu), method="auto", rtol=1e-3, gradient=gradient
        )
        assert int(sol.stats.n_jacobians[0]) > 0
        assert int(sol.stats.n_jacobians[1]) == 0
        return torch.autograd.grad(sol.ys.square().sum(), [y0, mu])

    for a, b in zip(grads(Discrete(6)), grads(Discrete()), strict=True):
        assert torch.equal(a, b)


def test_rows_that_fail_and_events(monkeypatch):
    monkeypatch.setattr("odeum.gradient.tape.ROOM_BYTES", 0)

    def grads(gradient):
        y0 = torch.tensor([[1.0, 0.0], [2.0, 1.0], [0.3, 5.0], [1.0, 0.0]]).requires_grad_()
        g = torch.tensor([[9.8], [9.0], [3.0], [torch.nan]], requires_grad=True)
        bounce = odeum.Event(
            lambda t, y: y[..., 0], direction=-1, jump=lambda t, y: y * torch.tensor([1.0, -0.8])
        )
        sol = odeum.solve(
            lambda t, y, g: torch.cat([y[:, 1:], -g - 0.1 * y[:, 1:] ** 3], -1),
            y0,
            torch.linspace(0, 1.5, 5),
            odeum.per_row(g),
            events=bounce,
            breaks=[0.7],
            on_failure="mask",
            gradient=gradient,
        )
        assert int(sol.status[3]) != 0
        return torch.autograd.grad(sol.ys[:, :3].square().sum(), [y0, g])

    for a, b in zip(grads(Discrete(2)), grads(Discrete()), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_a_backward_pass_twice():
    y0 = torch.randn(2, 2, requires_grad=True)
    ts = torch.linspace(0, 3, 3)
    ys = odeum.solve(lambda t, y: torch.sin(y * t), y0, ts, gradient=Discrete(3), **TIGHT).ys
    (first,) = torch.autograd.grad(ys.sum(), y0, retain_graph=True)
    (second,) = torch.autograd.grad(ys.sum(), y0)
    assert torch.equal(first, second)


@pytest.mark.parametrize("wrong", [0, -3, 2.0, True, "4"])
def test_a_number_that_cannot_be(wrong):
    with pytest.raises(odeum.InputError, match="whole number of at least 1"):
        Discrete(checkpoints=wrong)


def test_adams_methods_take_no_checkpoints():
    y0 = torch.ones(1, 1, requires_grad=True)
    ts = torch.linspace(0, 1, 9)
    method = odeum.methods.Adams(order=3, implicit=False)
    with pytest.raises(odeum.InputError, match="Adams"):
        odeum.solve(lambda t, y: -y, y0, ts, method=method, gradient=Discrete(4))


def retaken(n_steps, n_slots):
    """How often each step is taken again, and the most states kept at a time."""
    slots, most = Slots(n_slots), 0
    counts = [0] * n_steps
    for position in range(n_steps):
        slots.offer(position, position)
        most = max(most, len(slots))

    def advance(state, position):
        assert state == position
        counts[position] += 1
        return state + 1

    for position in reversed(range(n_steps)):
        assert slots.recall(position, advance) == position
        most = max(most, len(slots))
    assert slots.n_retaken == sum(counts)
    return counts, most


def fewest_repetitions(n_steps, n_slots):
    r = 0
    while math.comb(n_slots + r, r) < n_steps:
        r += 1
    return r


@pytest.mark.parametrize("n_slots", [1, 2, 3, 4, 7, 16, 40])
def test_no_step_is_taken_again_more_often_than_binomial(n_slots):
    for n_steps in [*range(1, 60), 153, 154, 250, 969, 970, 1000]:
        if n_slots == 1 and n_steps > 300:
            continue
        counts, most = retaken(n_steps, n_slots)
        assert most <= n_slots
        assert max(counts) <= fewest_repetitions(n_steps, n_slots)


def test_a_thousand_steps_from_sixteen_states():
    """Revolve, told their number beforehand, would take 1861 again; see its formula."""
    counts, _ = retaken(1000, 16)
    r = fewest_repetitions(1000, 16)
    known_beforehand = r * 1000 - math.comb(16 + r, r - 1) - 999
    assert known_beforehand == 1861
    assert max(counts) == 3
    assert known_beforehand <= sum(counts) <= 1.4 * known_beforehand


def test_strides_are_the_best_there_are():
    """Against dynamic programming over all of them."""
    most = 60
    cost = [[n * (n - 1) // 2 for n in range(most + 1)]] * 2
    for n_slots in range(2, 6):
        row = [0, 0]
        for n in range(2, most + 1):
            options = [m + cost[n_slots - 1][n - m] + row[m] for m in range(1, n)]
            row.append(min(options))
            assert options[stride(n, n_slots) - 1] == row[n]
        cost.append(row)


def test_memory_does_not_grow_with_the_steps(monkeypatch):
    """States alive at any evaluation of the field, in both passes."""
    monkeypatch.setattr("odeum.eager.outputs.FLUSH_BYTES", 0)
    dim = 1019  # like nothing that another test left behind

    class Counting:
        def __init__(self):
            self.most, self.n_calls = 0, 0

        def __call__(self, t, y):
            self.n_calls += 1
            if self.n_calls % 17 == 0:
                storages = {
                    x.untyped_storage().data_ptr()
                    for x in gc.get_objects()
                    if type(x) is torch.Tensor and x.shape[-1:] == (dim,)
                }
                self.most = max(self.most, len(storages))
            return torch.sin(y)

    def most(n_steps):
        y0 = torch.ones(1, dim, requires_grad=True)
        field = Counting()
        step = odeum.StepOptions(fixed=1 / n_steps)
        ts = torch.tensor([0.0, 1.0])
        sol = odeum.solve(field, y0, ts, method="euler", step=step, gradient=Discrete(6))
        sol.ys[-1].sum().backward()
        return field.most

    assert most(120) <= most(40) + 2


@pytest.mark.parametrize("gradient", ["discrete", "autograd", "adjoint"])
def test_weights_lent_with_a_history_count_once(gradient):
    """What a lent weight came from gets its gradient through the weight, and not once more."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = nn.Linear(1, 1, bias=False)

        def forward(self, y0, ts):
            how = {"rtol": 1e-9, "atol": 1e-9, "gradient": gradient}
            return odeum.solve(lambda t, y: self.rate(y), y0, ts, **how).ys[-1].sum()

    half = torch.tensor([[0.4]], requires_grad=True)
    lent = {"rate.weight": 2 * half}
    loss = torch.func.functional_call(Model(), lent, (torch.ones(1, 1), torch.tensor([0.0, 1.0])))
    (found,) = torch.autograd.grad(loss, half)
    torch.testing.assert_close(found, 2 * torch.exp(2 * half.detach()), rtol=1e-7, atol=0)


@pytest.mark.parametrize("gradient", ["discrete", Discrete(2), "autograd", "adjoint"], ids=str)
def test_autocast_is_for_the_field_in_both_passes(gradient, monkeypatch):
    monkeypatch.setattr("odeum.gradient.tape.ROOM_BYTES", 0)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).float()
    y0 = torch.ones(3, 2, dtype=torch.float32, requires_grad=True)
    ts = torch.tensor([0.0, 1.0])
    seen = set()

    def field(t, y):
        found = net(y)
        seen.add(found.dtype)
        return found.to(y.dtype)

    def solve(y0):
        return odeum.solve(field, y0, ts, rtol=1e-3, gradient=gradient).ys[-1]

    with torch.autocast("cpu", torch.bfloat16):
        ys = solve(y0)
    assert ys.dtype == torch.float32
    found = torch.autograd.grad(ys.square().sum(), [y0, *net.parameters()])
    assert seen == {torch.bfloat16}
    wanted = torch.autograd.grad(solve(y0).square().sum(), [y0, *net.parameters()])
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.02 * float(b.abs().max()))


def test_a_solve_under_autocast_rounds_nothing_of_its_own():
    """The field's values are exact in bfloat16: so is the solution."""
    y0, ts = torch.tensor([[1.0 + 2**-12]], dtype=torch.float32), torch.tensor([0.0, 1.0])
    with torch.autocast("cpu", torch.bfloat16):
        ys = odeum.solve(lambda t, y: torch.ones_like(y) * 3, y0, ts).ys
    torch.testing.assert_close(ys[-1], y0 + 3, rtol=1e-6, atol=0)


def test_records_of_many_small_operations_are_not_kept_without_end(monkeypatch):
    """They take memory by the operation, however few numbers each stores."""
    monkeypatch.setattr("odeum.gradient.tape.ROOM_BYTES", 2**22)
    _, sol = gradients(Discrete(), method="rk4", step=odeum.StepOptions(fixed=1e-2))
    # Steps that are not kept are evaluated anew on the way back.
    assert (sol.stats.backward.n_evaluations > 2 * sol.stats.backward.n_accepted).all()
