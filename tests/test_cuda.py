"""The same solves and gradients on a GPU, where there is one."""

import pytest
import torch
from torch import nn

import odeum

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2))

    def forward(self, t, y, args):
        return args * self.net(torch.cat([y, t.expand(len(y), 1)], -1))


def outcome(device, *, method, gradient, coupling, per_row):
    torch.manual_seed(0)
    field = Field().to(device)
    y0 = torch.randn(5, 2).to(device).requires_grad_()
    ts = torch.linspace(0, 2, 5)
    if per_row:
        ts = ts[:, None] * torch.linspace(0.5, 1.5, 5)
    ts = ts.to(device).requires_grad_()
    scale = torch.rand(5, 1).to(device).requires_grad_()
    args = scale if coupling == "joint" else odeum.per_row(scale)
    step = None if odeum.methods.describe(method).adaptive else odeum.StepOptions(fixed=0.03)
    sol = odeum.solve(
        field,
        y0,
        ts,
        args,
        method=method,
        gradient=gradient,
        coupling=coupling,
        step=step,
        dense=True,
        rtol=1e-7,
        atol=1e-7,
    )
    loss = sol.ys.square().sum() + sol(ts[1:2] * 0.9).sum()
    grads = torch.autograd.grad(loss, [y0, ts, scale, *field.parameters()])
    counts = (sol.status, sol.stats.n_evaluations, sol.stats.n_accepted, sol.stats.n_rejected)
    return [x.cpu() for x in (sol.ys, *grads)], [x.tolist() for x in counts]


@pytest.mark.parametrize("method", ["rk4", "bosh3", "dopri5", "tsit5", "dopri8"])
@pytest.mark.parametrize("gradient", ["discrete", "autograd"])
@pytest.mark.parametrize(
    ("coupling", "per_row"), [("independent", False), ("independent", True), ("joint", False)]
)
def test_cuda_agrees_with_the_cpu(method, gradient, coupling, per_row):
    how = {"method": method, "gradient": gradient, "coupling": coupling, "per_row": per_row}
    values, counts = outcome("cuda", **how)
    wanted, wanted_counts = outcome("cpu", **how)
    assert counts == wanted_counts
    for a, b in zip(values, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_a_bad_row_harms_no_other_on_cuda():
    def field(t, y):
        return torch.where(y > 3, torch.nan, y)

    y0 = torch.tensor([[0.1], [2.0], [0.2]], device="cuda")
    ts = torch.tensor([0.0, 1.0], device="cuda")
    sol = odeum.solve(field, y0, ts, on_failure="mask")
    alone = odeum.solve(field, y0[[0, 2]], ts)
    assert sol.status.tolist() == [odeum.Status.SUCCESS, odeum.Status.NON_FINITE, 0]
    assert torch.equal(sol.ys[:, [0, 2]], alone.ys)
