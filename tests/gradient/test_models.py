"""Gradients reach a model's tensors however it holds them, in every way of differentiating."""

import copy
import io
import pickle
import threading

import pytest
import torch
from torch import nn

import odeum
from odeum.gradient.registry import GRADIENTS

TS = torch.linspace(0.0, 1.0, 4)
EVERY = sorted(set(GRADIENTS) - {"none"})
# Where an example is smooth and its steps are small, all are as close as this.
CLOSE = {"rtol": 1e-6, "atol": 1e-9}


class Field(nn.Module):
    """Tied weights, a buffer, a frozen layer, and a parameter that nothing reads."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.outer = nn.Linear(2, 2)
        self.outer.weight = self.inner.weight
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.register_buffer("scale", torch.tensor([0.5, 2.0]))
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, t, y):
        return self.outer(torch.tanh(self.inner(y) * self.scale)) + self.frozen(y)


def model(gradient="discrete"):
    torch.manual_seed(3)
    field = Field()
    return odeum.NeuralODE(field, method="dopri5", rtol=1e-9, atol=1e-9, gradient=gradient)


def loss_of(solved):
    return (solved**2).sum()


def start():
    return torch.randn(3, 2, generator=torch.Generator().manual_seed(5))


def gradients(net):
    loss_of(net(start(), TS)).backward()
    return {name: p.grad for name, p in net.named_parameters()}


def expected(net, name, direction, step=1e-5):
    """The derivative along a direction in one parameter, by central differences."""
    parameter = dict(net.named_parameters())[name]
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter.add_(direction, alpha=sign * step)
            losses.append(loss_of(net.solve(start(), TS, gradient="none").ys))
            parameter.add_(direction, alpha=-sign * step)
    return (losses[0] - losses[1]) / (2 * step)


@pytest.mark.parametrize("gradient", EVERY)
def test_shared_frozen_and_unused_parameters(gradient):
    net = model(gradient)
    found = gradients(net)
    direction = torch.randn(2, 2, generator=torch.Generator().manual_seed(1))
    along = (found["field.inner.weight"] * direction).sum()
    torch.testing.assert_close(
        along, expected(net, "field.inner.weight", direction), rtol=1e-6, atol=1e-8
    )
    assert found["field.frozen.weight"] is None
    assert found["field.frozen.bias"] is None
    assert found["field.unused"] is None


@pytest.mark.parametrize("gradient", EVERY)
def test_a_solve_in_which_nothing_wants_a_gradient(gradient):
    net = model(gradient).requires_grad_(False)
    assert not net(start(), TS).requires_grad
    y0 = start().requires_grad_()
    loss_of(net(y0, TS)).backward()
    assert y0.grad.isfinite().all()
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("gradient", EVERY)
def test_no_grad_records_nothing(gradient):
    net = model(gradient)
    with torch.no_grad():
        assert not net(start().requires_grad_(), TS).requires_grad
    with torch.inference_mode():
        states = net(start(), TS)
    torch.testing.assert_close(states.clone(), net.solve(start(), TS, gradient="none").ys)


@pytest.mark.parametrize("gradient", EVERY)
def test_tensors_in_args_of_every_shape(gradient):
    net = model()
    rate = torch.tensor(0.3, requires_grad=True)
    constant = torch.ones(2)
    args = {"rate": rate, "rest": (constant, "a name", None, torch.arange(2))}

    def field(t, y, args):
        return -args["rate"] * y + args["rest"][0] * 0.1 + net.field(t, y)

    y0 = start()
    sol = odeum.solve(field, y0, TS, args, method="dopri5", rtol=1e-9, atol=1e-9, gradient=gradient)
    loss_of(sol.ys).backward()
    assert constant.grad is None

    def loss(value):
        changed = {**args, "rate": torch.tensor(value)}
        solved = odeum.solve(
            field, y0, TS, changed, method="dopri5", rtol=1e-9, atol=1e-9, gradient="none"
        )
        return loss_of(solved.ys)

    by_differences = (loss(0.3 + 1e-5) - loss(0.3 - 1e-5)) / 2e-5
    torch.testing.assert_close(rate.grad, by_differences, rtol=1e-6, atol=0)


@pytest.mark.parametrize("gradient", EVERY)
def test_replicas_as_data_parallel_makes_them(gradient):
    net = model(gradient)
    wanted = gradients(net)
    net.zero_grad()
    # A replica's weights are no leaves: they are copies that autograd leads back to the model's.
    replica = copy.copy(net)
    replica._modules = dict(net._modules)
    field = copy.copy(net.field)
    field._modules, field._parameters = {}, {}
    for name in ("inner", "outer", "frozen"):
        layer = copy.copy(getattr(net.field, name))
        layer._parameters = {}
        for key in ("weight", "bias"):
            object.__setattr__(layer, key, getattr(getattr(net.field, name), key) * 1.0)
        field._modules[name] = layer
    replica._modules["field"] = field
    loss_of(replica(start(), TS)).backward()
    for name, p in net.named_parameters():
        if wanted[name] is None:
            assert p.grad is None
        else:
            torch.testing.assert_close(p.grad, wanted[name], **CLOSE)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("gradient", EVERY)
def test_threads_share_a_model(gradient):
    net = model(gradient)
    starts = [start() + i for i in range(4)]
    found = [None] * 4

    def work(i):
        y0 = starts[i].clone().requires_grad_()
        (found[i],) = torch.autograd.grad(loss_of(net(y0, TS)), y0)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for y0, g in zip(starts, found, strict=True):
        y0 = y0.clone().requires_grad_()
        (alone,) = torch.autograd.grad(loss_of(net(y0, TS)), y0)
        torch.testing.assert_close(g, alone, rtol=0, atol=0)


def test_threads_share_forward_mode():
    """Stiff methods take Jacobians by it."""
    net, found = model(), [None] * 3

    def work(i):
        found[i] = net.solve(start(), TS, method="rodas5p", rtol=1e-4, gradient="none").ys

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(found))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    work(0)
    assert all(torch.equal(ys, found[0]) for ys in found)


@pytest.mark.parametrize("gradient", EVERY)
def test_models_are_copied_and_pickled_after_a_backward_pass(gradient):
    net = model(gradient)
    wanted = gradients(net)
    stored = io.BytesIO()
    torch.save(net.state_dict(), stored)
    stored.seek(0)
    restored = model(gradient)
    restored.load_state_dict(torch.load(stored, weights_only=True))
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), restored):
        other.zero_grad()
        found = gradients(other)
        for name, g in wanted.items():
            if g is None:
                assert found[name] is None
            else:
                torch.testing.assert_close(found[name], g, rtol=0, atol=0)


@pytest.mark.parametrize("gradient", EVERY)
def test_hooks_and_changing_modes_do_not_confuse_a_backward_pass(gradient):
    net = model(gradient)
    wanted = gradients(net)
    net.zero_grad()
    calls = []
    handle = net.field.register_forward_hook(lambda *_: calls.append(1))
    loss = loss_of(net(start(), TS))
    handle.remove()
    net.eval()
    loss.backward()
    assert calls
    for name, p in net.named_parameters():
        if wanted[name] is not None:
            torch.testing.assert_close(p.grad, wanted[name], **CLOSE)
