"""Second derivatives of a solve: against finite differences, closed forms and backpropagation."""

import pytest
import torch
from torch import nn

import odeum
from odeum.gradient import Discrete

STEP = {"step": odeum.StepOptions(fixed=0.3)}


def field(t, y, args):
    scale, shift, weight = args
    return torch.tanh(y @ weight) * scale + torch.sin(shift * t) * y


def inputs():
    torch.manual_seed(3)
    y0 = torch.randn(2, 2, requires_grad=True)
    ts = torch.tensor([0.3, 0.7, 1.1]).requires_grad_()
    scale = torch.tensor(0.7, requires_grad=True)
    shift = torch.randn(2, 1, requires_grad=True)
    weight = torch.randn(2, 2, requires_grad=True)
    return y0, ts, scale, shift, weight


def solver(**options):
    def solve(y0, ts, scale, shift, weight):
        args = (scale, odeum.per_row(shift), weight)
        return odeum.solve(field, y0, ts, args, **options).ys

    return solve


@pytest.mark.parametrize("gradient", ["discrete", "autograd", Discrete(2)], ids=str)
@pytest.mark.parametrize("method", ["rk4", "tsit5", "kvaerno3", "radau5", "rodas4"])
def test_gradgradcheck(method, gradient):
    solve = solver(method=method, gradient=gradient, **STEP)
    assert torch.autograd.gradgradcheck(solve, inputs(), fast_mode=True)
