"""Every gradient against finite differences of solves to rounding, on four kinds of problem."""

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import nn

import odeum
from odeum.gradient.registry import GRADIENTS

EXACT = ("autograd", "discrete", "forward", "reversible")
"""Gradients of the steps taken; the others are solutions of an equation, to their tolerance."""


class Spiral(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[-0.1, 2.0], [-2.0, -0.1]]))

    def forward(self, t, y):
        return (y**3) @ self.matrix.T


class TimeDependent(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))

    def forward(self, t, y):
        return self.net(torch.cat([y, torch.sin(2 * t).expand(len(y), 1)], -1))


class Hamiltonian(nn.Module):
    def __init__(self):
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1))

    def forward(self, t, y):
        with torch.enable_grad():
            y = y if y.requires_grad else y.detach().requires_grad_()
            q, p = torch.autograd.grad(self.energy(y).sum(), y, create_graph=True)[0].split(1, -1)
        return torch.cat([p, -q], -1)


class Stiff(nn.Module):
    """Van der Pol's equation: 300 times faster towards its slow curve than along it."""

    def __init__(self):
        super().__init__()
        self.mu = nn.Parameter(torch.tensor(100.0))
        self.damping = nn.Parameter(torch.tensor(1.0))

    def forward(self, t, y):
        x, v = y.split(1, -1)
        return torch.cat([v, self.mu * (self.damping - x**2) * v - x], -1)


@dataclass(frozen=True)
class Case:
    field: type[nn.Module]
    y0: list[list[float]]
    t1: float
    method: str
    n_times: int = 4


CASES = {
    "spiral": Case(Spiral, [[1.2, 0.0], [0.3, 0.8]], 2.0, "dopri8"),
    "time-dependent": Case(TimeDependent, [[1.2, 0.0], [0.3, 0.8]], 2.0, "dopri8"),
    "hamiltonian": Case(Hamiltonian, [[1.2, 0.0], [0.3, 0.8]], 2.0, "dopri8"),
    "stiff": Case(Stiff, [[2.0, 0.0], [1.5, -0.3]], 0.25, "rodas5p", n_times=28),
}


def loss_of(case, field, y0, **options):
    # Backwards the stiff solutions part so fast that the adjoint needs to see them often.
    ts = torch.linspace(0, case.t1, case.n_times)
    ys = odeum.solve(field, y0, ts, **options).ys[:: case.n_times // 3]
    return (ys.sin() * torch.tensor([1.0, 0.5])).sum()


def gradient_along(case, gradient, rtol):
    """The gradient along each of two directions in the space of states and parameters."""
    torch.manual_seed(11)
    field = case.field()
    y0 = torch.tensor(case.y0, requires_grad=True)
    # Its steps are explicit ones, small enough for what is stiff.
    method = "dopri8" if gradient == "reversible" else case.method
    loss = loss_of(case, field, y0, method=method, rtol=rtol, atol=rtol * 1e-2, gradient=gradient)
    loss.backward()
    found = [y0.grad, *(p.grad for p in field.parameters())]
    return torch.stack([along(found, direction) for direction in directions(field, y0)])


def along(gradients, direction):
    return sum((g * d).sum() for g, d in zip(gradients, direction, strict=True) if g is not None)


def directions(field, y0):
    generator = torch.Generator().manual_seed(13)
    tensors = [y0, *field.parameters()]
    return [
        [torch.randn(x.shape, generator=generator) * x.abs().clamp(min=0.1) for x in tensors]
        for _ in range(2)
    ]


@cache
def truth(name):
    """By central differences of two sizes, from which their error of order two is taken out."""
    case = CASES[name]
    torch.manual_seed(11)
    field = case.field()
    y0 = torch.tensor(case.y0)
    start = [x.detach().clone() for x in (y0, *field.parameters())]
    options = {"method": "dopri8", "rtol": 1e-13, "atol": 1e-14, "gradient": "none"}

    def loss(direction, step):
        tensors = [y0, *field.parameters()]
        with torch.no_grad():
            for x, x0, d in zip(tensors, start, direction, strict=True):
                x.copy_(x0 + step * d)
        return loss_of(case, field, y0, **options)

    def difference(direction, step):
        return (loss(direction, step) - loss(direction, -step)) / (2 * step)

    wanted = []
    for direction in directions(field, y0):
        coarse, fine = difference(direction, 2e-3), difference(direction, 1e-3)
        wanted.append((4 * fine - coarse) / 3)
    return torch.stack(wanted)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("gradient", sorted(set(GRADIENTS) - {"none"}))
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_finite_differences(name, gradient):
    case, wanted = CASES[name], truth(name)
    if gradient in EXACT:
        found, allowed = gradient_along(case, gradient, rtol=1e-8), 1e-6
    else:
        found, allowed = gradient_along(case, gradient, rtol=1e-6), 1e-5
    error = ((found - wanted).norm() / wanted.norm()).item()
    print(f"{name:>14} {gradient:>12}: relative error {error:.1e}, {allowed:.0e}")
    assert error < allowed
