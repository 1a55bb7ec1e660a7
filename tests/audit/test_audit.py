"""The audit against gradients known exactly, wrong ones included, and what it must leave alone."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import odeum
from odeum.audit.table import Row, recommendation
from odeum.gradient.registry import GRADIENTS


class Doubled(torch.autograd.Function):
    """The identity, with twice its gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return 2 * g


def twice(problem):
    """A gradient that is wrong by a factor of two."""
    outcome = GRADIENTS["discrete"](problem)
    return replace(outcome, ys=Doubled.apply(outcome.ys))


def inapplicable(problem):
    raise odeum.InputError("there is no such thing\nat all")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
        self.register_buffer("n_calls", torch.zeros(()))

    def forward(self, t, y):
        self.n_calls += 1
        return self.net(torch.cat([y, t.expand(len(y), 1)], -1))


def squares(ys):
    return ys.square().mean()


def audited(field, y0, ts, loss=squares, args=None, **options):
    return odeum.gradient.audit(field, y0, ts, loss, args, **{"show": False, **options})


def by_name(found):
    return {row.gradient: row for row in found.rows}


def test_errors_are_those_against_the_exact_gradient():
    """Of y' = -a y the loss is y(1)^2; in both inputs its gradient is known."""
    a, y0 = torch.tensor(0.7, requires_grad=True), torch.tensor([[2.0]])
    ts = torch.tensor([0.0, 1.0])
    found = audited(
        lambda t, y: -a * y,
        y0,
        ts,
        lambda ys: ys[-1].square().sum(),
        gradients=["discrete", "adjoint"],
        method="rk4",
        step=odeum.StepOptions(fixed=0.25),
    )
    y = y0.clone().requires_grad_()
    odeum.solve(lambda t, y: -a * y, y, ts, method="rk4", step=odeum.StepOptions(fixed=0.25)).ys[
        -1
    ].square().sum().backward()
    of_y, of_a = 2 * 2.0 * math.exp(-1.4), -2 * 4.0 * math.exp(-1.4)
    errors = [abs(float(y.grad) / of_y - 1), abs(float(a.grad) / of_a - 1)]
    rows = by_name(found)
    assert rows["discrete"].error == pytest.approx(max(errors), rel=1e-4)
    assert rows["discrete"].difference < 1e-10
    assert rows["adjoint"].difference > 1e-8
    assert found.reference_difference > 1e-8
    assert rows["discrete"].n_forward == 4 * 4


def test_a_wrong_gradient_is_found_out():
    torch.manual_seed(0)
    found = audited(
        Net(), torch.randn(3, 2), torch.linspace(0, 1, 4), gradients=["discrete", twice]
    )
    rows = by_name(found)
    assert rows["twice"].error == pytest.approx(1, abs=1e-3)
    assert rows["twice"].difference == pytest.approx(1, abs=1e-3)
    assert rows["discrete"].error < 1e-3
    assert found.reference_difference < 1e-7
    assert "gradient='discrete'" in found.recommendation


def test_all_of_the_registry_take_part():
    # Few parameters: sensitivities to each are carried along by one of them.
    found = audited(odeum.models.LinearField(2), torch.ones(2, 2), torch.tensor([0.0, 0.5]))
    assert [row.gradient for row in found.rows] == [name for name in GRADIENTS if name != "none"]
    for row in found.rows:
        assert row.reason or (row.error < 1e-3 and row.peak > 0 and row.n_forward > 0)


def test_one_that_does_not_apply_says_why():
    found = audited(
        Net(), torch.ones(2, 2), torch.tensor([0.0, 0.5]), gradients=["autograd", inapplicable]
    )
    row = by_name(found)["inapplicable"]
    assert row.reason == "there is no such thing"
    assert math.isnan(row.error)
    assert "inapplicable does not apply: there is no such thing" in str(found)


def test_nothing_is_left_behind():
    torch.manual_seed(0)
    net = Net().train()
    net.net[0].bias.requires_grad_(False)
    net.net[0].weight.grad = torch.ones(6, 3)
    before = {name: x.clone() for name, x in net.state_dict().items()}
    y0 = torch.randn(3, 2, requires_grad=True)
    state = torch.get_rng_state()
    with torch.no_grad():
        audited(net, y0, torch.linspace(0, 1, 4), gradients=["discrete", "adjoint"])
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())
    assert net.training
    assert y0.grad is None
    assert torch.equal(net.net[0].weight.grad, torch.ones(6, 3))
    assert net.net[2].weight.grad is None


def test_times_arguments_and_states_of_any_structure():
    torch.manual_seed(0)
    weight = torch.randn(2, 2, requires_grad=True)

    def field(t, y, args):
        rate, matrix = args
        return {"q": y["p"] * rate, "p": -(y["q"] @ matrix) * torch.cos(t)}

    found = audited(
        field,
        {"q": torch.randn(3, 2), "p": torch.randn(3, 2)},
        torch.linspace(0, 1, 4).requires_grad_(),
        lambda ys: (ys["q"] * ys["p"]).sum(),
        args=(odeum.per_row(torch.rand(3, 1, requires_grad=True)), weight),
        gradients=["discrete", "autograd", "adjoint"],
        rtol=1e-8,
        atol=1e-8,
    )
    assert found.reference_difference < 1e-7
    for row in found.rows:
        assert not row.reason
        assert row.error < 1e-6
        assert row.difference < 1e-6


def test_float32_modules_have_a_reference_in_float64():
    torch.manual_seed(0)
    y0, ts = torch.randn(3, 2).float(), torch.tensor([0.0, 1.0])
    found = audited(Net().float(), y0, ts, rtol=1e-6, gradients=["discrete"])
    assert "float64" in found.reference
    assert found.reference_difference < 1e-7
    assert by_name(found)["discrete"].error < 1e-4


def test_events_are_passed_on():
    """Decay, stopped at half of where it starts: the loss sees the outputs before that."""
    found = audited(
        lambda t, y: -y,
        torch.ones(1, 1),
        torch.tensor([0.0, 0.25, 1.0]),
        lambda ys: ys[:2].sum(),
        events=odeum.Event(lambda t, y: y[:, 0] - 0.5),
        gradients=["discrete", "adjoint"],
    )
    assert [row.reason for row in found.rows] == ["", ""]
    assert all(row.error < 1e-4 for row in found.rows)


def test_wrong_arguments():
    y0, ts = torch.ones(2, 2), torch.tensor([0.0, 0.5])
    with pytest.raises(odeum.InputError, match="did you mean 'discrete'"):
        audited(Net(), y0, ts, gradients=["discreet"])
    with pytest.raises(odeum.InputError, match="one number"):
        audited(Net(), y0, ts, lambda ys: ys)
    with pytest.raises(odeum.InputError, match="no gradient="):
        audited(Net(), y0, ts, gradient="discrete")


def row(name, error, peak, seconds):
    return Row(name, error, error, 10, 10, peak, seconds)


def test_recommendations():
    slow = row("adjoint", 1e-5, 1e5, 3.0)
    big = row("autograd", 1e-6, 1e9, 1.0)
    small = row("discrete", 1e-6, 1e7, 1.1)
    wrong = row("none", 1e-1, 1e4, 0.1)
    assert "gradient='discrete'" in recommendation([slow, big, small, wrong], 1e-3, 1e10)
    assert "gradient='autograd'" in recommendation([slow, big], 1e-3, 1e10)
    assert "gradient='adjoint'" in recommendation([slow, big], 1e-3, 1e8)
    assert "more than" in recommendation([slow, big], 1e-3, 1e3)
    assert "smaller rtol" in recommendation([wrong], 1e-3, 1e10)
    assert "none of them ran" in recommendation([Row("adjoint", reason="no")], 1e-3, 1e10)


def test_the_table_is_printed(capsys):
    y0, ts = torch.ones(2, 2), torch.tensor([0.0, 0.5])
    found = audited(Net(), y0, ts, gradients=["discrete", "adjoint"], show=True)
    assert capsys.readouterr().out == f"{found}\n"
    assert found.recommendation in str(found)


def test_steps_of_another_kind_are_held_against_their_own_differences():
    torch.manual_seed(0)
    found = audited(
        Net(),
        torch.randn(3, 2),
        torch.tensor([0.0, 1.0]),
        method="rk4",
        step=odeum.StepOptions(fixed=0.1),
        gradients=["discrete", "reversible", "autograd"],
    )
    assert all(row.difference < 1e-8 for row in found.rows)
