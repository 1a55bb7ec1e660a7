"""A trace holds as long as the Python state it was made of does, and not a moment longer."""

import functools
import gc
import weakref

import numpy as np
import pytest
import torch
from fields import mlp, states
from torch import nn

import odeum
from odeum.compile.guard import guard
from odeum.compile.trace import refused, trace, watch
from odeum.eager.field import RowField
from odeum.errors import TraceError
from odeum.tree import structure_of

GAIN = 2.0
MATRIX = torch.eye(2)


def scaled(y):
    return GAIN * y


def by_global(t, y):
    return scaled(y) @ MATRIX


class Scale:
    factor = 3.0

    def __init__(self, power):
        self.power = power
        self.unrelated = object()

    def __call__(self, t, y):
        return self.scaled(y)

    def scaled(self, y):
        return self.factor * y**self.power


class Gated(nn.Module):
    slope = 1.0

    def __init__(self):
        super().__init__()
        self.net, self.gate, self.sizes, self.options = mlp(2, 3), True, [1, 2], {"k": (1.0, "a")}
        self.register_buffer("shift", torch.zeros(2))
        self.register_buffer("order", torch.tensor([1, 0]))

    def forward(self, t, y):
        f = self.net(y)[:, self.order] + self.shift
        return self.gated(f) if self.gate and not self.training else self.options["k"][0] * f

    def gated(self, f):
        return f * self.slope * self.sizes[0]


def holds(watched, *roots):
    return not isinstance(watched.matched(*roots), int)


def failed(watched, *roots):
    found = watched.matched(*roots)
    assert isinstance(found, int)
    return watched.labels[found]


@pytest.mark.parametrize(
    ("change", "label"),
    [
        (lambda m: m.train(), "self.training"),
        (lambda m: m.net[1].train(), "self.net.1.training"),
        (lambda m: setattr(m, "gate", False), "self.gate"),
        (lambda m: setattr(m, "gate", 1), "self.gate"),
        (lambda m: m.sizes.append(3), "self.sizes"),
        (lambda m: m.sizes.__setitem__(0, 5), "self.sizes[0]"),
        (lambda m: m.options.__setitem__("k", (2.0, "a")), "self.options.k[0]"),
        (lambda m: m.net.append(nn.Tanh()), "self.net"),
        (lambda m: m.net.__setitem__(1, nn.ReLU()), "self.net.1"),
        (lambda m: setattr(m, "shift", torch.zeros(1)), "self.shift"),
        (lambda m: m.net.double().float(), "self.net.0.weight"),
        (lambda m: m.order.copy_(torch.tensor([0, 1])), "self.order"),
        (lambda m: setattr(m, "gated", torch.sin), "self.gated"),
        (lambda m: m.register_forward_hook(lambda *x: None), "self._forward_hooks"),
        (lambda m: nn.utils.parametrizations.weight_norm(m.net[0]), "self.net.0"),
    ],
)
def test_changes_are_noticed(change, label):
    field = Gated().eval()
    watched = guard(field)
    assert holds(watched, field)
    change(field)
    assert failed(watched, field) == label


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m, "unrelated", 5),
        lambda m: torch.optim.SGD(m.parameters(), 0.1).step(),
        lambda m: m.net[0].weight.data.mul_(2),
        lambda m: m.shift.add_(1.0),
        lambda m: setattr(m.net[0], "weight", nn.Parameter(torch.ones(3, 2))),
        lambda m: m.requires_grad_(False),
        lambda m: m.zero_grad(),
    ],
)
def test_what_does_not_matter_is_not(change):
    field = Gated().eval()
    watched = guard(field)
    change(field)
    assert holds(watched, field)


def test_class_attributes(monkeypatch):
    field = Gated().eval()
    watched = guard(field)
    monkeypatch.setattr(Gated, "slope", 2.0)
    assert failed(watched, field) == "self.slope"
    monkeypatch.undo()
    monkeypatch.setattr(Gated, "gated", lambda self, f: f)
    assert failed(watched, field) == "self.gated"


def test_globals(monkeypatch):
    watched = guard(by_global)
    assert [x.label for x in watched.found] == ["MATRIX"]
    monkeypatch.setitem(globals(), "MATRIX", torch.ones_like(MATRIX))
    assert holds(watched, by_global)
    monkeypatch.setitem(globals(), "GAIN", 3.0)
    assert failed(watched, by_global) == "GAIN"
    monkeypatch.setitem(globals(), "GAIN", 2.0)
    monkeypatch.setitem(globals(), "scaled", lambda y: y)
    assert failed(watched, by_global) == "scaled"


def test_objects():
    field = Scale(2)
    watched = guard(field)
    field.unrelated = 7
    assert holds(watched, field)
    assert holds(watched, Scale(2))
    assert failed(watched, Scale(3)) == "self.power"
    field.factor = 4.0
    assert failed(watched, field) == "self.factor"


def test_another_of_the_same_make_passes():
    def make(net, gain=1.0):
        return lambda t, y: gain * net(y)

    watched = guard(make(mlp(2, 3)))
    assert holds(watched, make(mlp(2, 3)))
    assert failed(watched, make(mlp(2, 4))) == "net.0.out_features"
    assert failed(watched, make(mlp(2, 3), 2.0)) == "gain"
    assert failed(watched, make(mlp(2, 3, act=nn.ReLU))) == "net.1"


def test_defaults_partials_and_methods():
    def field(t, y, power=2, *, scale=1.0):
        return scale * y**power

    watched = guard(functools.partial(field, scale=2.0))
    assert holds(watched, functools.partial(field, scale=2.0))
    assert failed(watched, functools.partial(field, scale=3.0)) == "self.scale"
    field.__defaults__ = (3,)
    assert not holds(watched, functools.partial(field, scale=2.0))
    watched = guard(Scale(2).scaled)
    assert holds(watched, Scale(2).scaled)
    assert failed(watched, Scale(1).scaled) == "self.power"


def test_what_torch_has_wrapped():
    def make(net, gain):
        return torch.func.vmap(lambda t, y: gain * net(y))

    watched = guard(make(mlp(2, 3), 1.0))
    assert len(watched.found) == 6
    assert holds(watched, make(mlp(2, 3), 1.0))
    assert failed(watched, make(mlp(2, 3), 2.0)) == "gain"


def test_tied_tensors_stay_tied():
    class Tied(nn.Module):
        def __init__(self, tied):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
            if tied:
                self.b.weight = self.a.weight

        def forward(self, t, y):
            return self.b(self.a(y))

    watched = guard(Tied(True))
    assert len(watched.found) == 3
    assert holds(watched, Tied(True))
    assert failed(watched, Tied(False)) == "self.b.weight"


def test_arguments():
    rates = torch.ones(3, 2)

    def args(**changes):
        return {"rate": odeum.per_row(rates), "k": 2, "x": np.ones(2), **changes}

    watched = guard(by_global, args())
    assert [x.label for x in watched.found if x.per_row] == ["args.rate"]
    assert holds(watched, by_global, args())
    assert holds(watched, by_global, args(rate=odeum.per_row(torch.ones(7, 2))))
    assert failed(watched, by_global, args(rate=odeum.per_row(torch.ones(7, 3)))) == "args.rate"
    assert failed(watched, by_global, args(k=3)) == "args.k"
    assert failed(watched, by_global, args(x=np.zeros(2))) == "args.x"
    assert failed(watched, by_global, args(more=1)) == "args"
    assert not holds(watched, by_global, None)


def test_holds_none_of_the_objects():
    def traced_field():
        net = mlp(2, 3)
        field = RowField(lambda t, y: net(y), structure_of(states(3, 2)), None, joint=False)
        traced = trace(field, states(3, 2), torch.zeros(3, 1))
        return traced, (weakref.ref(net), weakref.ref(net[0].weight))

    traced, gone = traced_field()
    gc.collect()
    assert [x() for x in gone] == [None, None]
    assert traced.graph.nodes()


def test_optimisers_and_functional_calls_need_no_trace():
    net = mlp(2, 3)
    y = states(3, 2)
    field = RowField(lambda t, y: net(y), structure_of(y), None, joint=False)
    traced = trace(field, y, torch.zeros(3, 1))
    torch.optim.SGD(net.parameters(), 0.1).step()
    other = {name: torch.ones_like(p) for name, p in net.named_parameters()}

    class Solved(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self):
            return traced.values(field)

    lent = {f"net.{name}": x for name, x in other.items()}
    values = torch.func.functional_call(Solved(), lent, ())
    assert all(values[name] is other[label.removeprefix("net.")]
               for name, (_, label) in traced.inputs.items())  # fmt: skip
    values = traced.values(field)
    assert any(values[name] is net[0].weight for name in values)


def test_too_much_state():
    data = [[float(i + j) for j in range(100)] for i in range(100)]
    with pytest.raises(TraceError, match="too much Python state"):
        guard(lambda t, y: y * data[0][0])


def test_a_field_that_counts_stays_refused():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.n, self.gain = 0, 1.0

        def forward(self, t, y):
            self.n += 1
            return self.gain * y

    net, y = Counting(), states(3, 2)
    field = RowField(net, structure_of(y), None, joint=False)
    watched = watch(field)
    with pytest.raises(TraceError, match=r"changes self\.n when"):
        trace(field, y, torch.zeros(3, 1))
    still = refused(watched, field)
    net.n += 5
    assert holds(still, net, None, None)
    net.gain = 2.0
    assert failed(still, net, None, None) == "self.gain"
