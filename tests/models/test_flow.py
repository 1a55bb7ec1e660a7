"""Continuous normalising flows against determinants, exact Gaussians and integrals."""

import copy
import math

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal
from torch.func import functional_call

import odeum
from odeum.errors import InputError, SolveError
from odeum.models import ContinuousFlow, FlowField, LinearField, MLPField

TIGHT = {"method": "dopri5", "rtol": 1e-9, "atol": 1e-9}
STEPS = {"method": "rk4", "step": odeum.StepOptions(fixed=0.25)}
MATRIX = torch.tensor([[0.3, -1.1], [0.7, -0.5]], dtype=torch.float64)


def network(scale=1.5, width=6):
    field = MLPField(2, hidden=(width,), activation="tanh", time_dependent=True)
    with torch.no_grad():
        for weights in field.parameters():
            weights.mul_(scale)
    return field


def linear(matrix=MATRIX):
    field = LinearField(len(matrix))
    field.load_state_dict({"linear.weight": matrix})
    return field


def gaussian(t):
    """What the linear flow makes of the standard normal density at time t."""
    map_ = torch.matrix_exp(t * MATRIX)
    return MultivariateNormal(torch.zeros(2), map_ @ map_.T)


def determinants(flow, x):
    """``log|det dz/dx|`` [batch] of the map itself, by autograd: rows are independent."""
    x = x.clone().requires_grad_()
    z = flow.inverse(x)[0]
    rows = [torch.autograd.grad(z[:, i].sum(), x, retain_graph=True)[0] for i in range(2)]
    return torch.linalg.slogdet(torch.stack(rows, 1))[1]


def test_log_density_is_the_base_times_the_determinant_of_the_map():
    flow, x = ContinuousFlow(network(), **TIGHT), torch.randn(5, 2)
    z = flow.inverse(x)[0]
    expected = Normal(0.0, 1.0).log_prob(z).sum(-1) + determinants(flow, x)
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=0, atol=1e-6)


def test_a_field_that_knows_its_trace_is_asked_for_it():
    field, x = FlowField(2, hidden=(5, 4)), torch.randn(5, 2)
    asked, pulled = (ContinuousFlow(field, jacobian=j, kinetic=0.1, **STEPS) for j in (0.0, 1e-9))
    torch.testing.assert_close(asked.loss(x), pulled.loss(x), rtol=0, atol=1e-7)
    torch.testing.assert_close(asked.inverse(x)[1], determinants(asked, x), rtol=0, atol=1e-3)


def test_density_integrates_to_one():
    flow = ContinuousFlow(network(), rtol=1e-6, atol=1e-6)
    axis = torch.arange(-7.9, 8, 0.2)
    with torch.no_grad():
        density = flow.log_prob(torch.cartesian_prod(axis, axis)).exp()
    assert float(density.sum() * 0.04) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("t", [None, 0.4])
def test_linear_flow_is_gaussian(t):
    flow, x = ContinuousFlow(linear(), t1=1.3, **TIGHT), torch.randn(3, 4, 2)
    exact = gaussian(1.3 if t is None else t)
    torch.testing.assert_close(flow.log_prob(x, t), exact.log_prob(x), rtol=0, atol=1e-7)


def test_samples_are_of_the_density():
    flow = ContinuousFlow(linear(), t1=1.3)
    x = flow.sample(20_000)
    error = (x.T @ x / len(x) - gaussian(1.3).covariance_matrix).abs().max()
    assert x.shape == (20_000, 2)
    assert not x.requires_grad
    assert float(error) < 0.05
    assert flow.rsample((2, 3)).requires_grad
    assert flow.sample().shape == flow.event_shape == (2,)


def test_maps_are_each_others_inverse():
    flow, z = ContinuousFlow(network(), **TIGHT), torch.randn(2, 3, 2)
    x, log_det = flow.transform(z)
    back, log_det_back = flow.inverse(x)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-7)
    torch.testing.assert_close(log_det_back, -log_det, rtol=0, atol=1e-7)
    assert log_det.shape == (2, 3)


def test_another_base():
    base = Independent(Normal(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 2.0])), 1)
    flow, x = ContinuousFlow(linear(), base, **TIGHT), torch.randn(4, 2)
    map_ = torch.matrix_exp(MATRIX)
    exact = MultivariateNormal(map_ @ base.mean, map_ @ base.variance.diag() @ map_.T)
    torch.testing.assert_close(flow.log_prob(x), exact.log_prob(x), rtol=0, atol=1e-7)


def test_hutchinson_of_a_linear_field_is_off_by_what_signs_of_a_kind_share():
    flow = ContinuousFlow(linear(), trace="hutchinson", **TIGHT)
    log_det = flow.inverse(torch.randn(64, 2))[1].detach()
    trace, shared = MATRIX.trace(), MATRIX[0, 1] + MATRIX[1, 0]
    values = torch.stack([-trace - shared, -trace + shared]).sort().values
    distance = (log_det[:, None] - values).abs().min(-1)
    assert float(distance.values.max()) < 1e-12
    assert len(distance.indices.unique()) == 2
    # Both kinds of signs are equally likely: their mean is the trace.
    torch.testing.assert_close(values.mean(), -trace)


def test_hutchinson_has_no_bias():
    field, x = network(scale=3.0), torch.tensor([[0.3, -0.8]])
    with torch.no_grad():
        exact = ContinuousFlow(field, **STEPS).log_prob(x)
        estimates = ContinuousFlow(field, trace="hutchinson", **STEPS).log_prob(x.expand(4000, 2))
    error = float(estimates.mean() - exact)
    assert float(estimates.std()) > 0.1
    assert abs(error) < 4 * float(estimates.std()) / math.sqrt(4000)


def test_hutchinson_keeps_its_signs_through_a_solve():
    # With new ones at each evaluation the step control would see noise, and never end.
    flow = ContinuousFlow(network(), trace="hutchinson", **TIGHT)
    exact = ContinuousFlow(flow.field, **TIGHT)
    x = torch.randn(4, 2)
    most = exact.solve(x).stats.n_evaluations.max()
    assert int(flow.solve(x).stats.n_evaluations.max()) < 2 * int(most)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_gradients(trace):
    flow = ContinuousFlow(
        network(width=3), trace=trace, kinetic=0.3, jacobian=0.2, gradient="discrete", **STEPS
    )
    names = [name for name, _ in flow.named_parameters()]
    flow_of = _Loss(flow)
    x = torch.randn(2, 2, requires_grad=True)

    def loss(x, *weights):
        torch.manual_seed(1)
        named = {f"flow.{name}": w for name, w in zip(names, weights, strict=True)}
        return functional_call(flow_of, named, (x,))

    assert torch.autograd.gradcheck(loss, (x, *flow.parameters()))


class _Loss(torch.nn.Module):
    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, x):
        return self.flow.loss(x)


def test_regularisers_are_integrals_along_the_way():
    field = LinearField(2, bias=True)
    with torch.no_grad():
        field.linear.weight.zero_()
        field.linear.bias.copy_(torch.tensor([3.0, 4.0]))
    x = torch.randn(3, 2)
    with torch.no_grad():
        nll = ContinuousFlow(field, t1=2.0).loss(x)
        straight = ContinuousFlow(field, t1=2.0, kinetic=0.1).loss(x)
        assert float(straight - nll) == pytest.approx(0.1 * 25 * 2)
        norm = float(MATRIX.square().sum())
        nll = ContinuousFlow(linear(), **TIGHT).loss(x)
        exact = ContinuousFlow(linear(), jacobian=0.5, **TIGHT)
        assert float(exact.loss(x) - nll) == pytest.approx(0.5 * norm)
        assert float(exact.metrics(x)["nll"]) == pytest.approx(float(nll))


@pytest.mark.parametrize(
    ("field", "options"),
    [
        (network, {"jacobian": 0.2}),
        (network, {"jacobian": 0.2, "trace": "hutchinson"}),
        (lambda: FlowField(2, hidden=(5, 4)), {}),
    ],
    ids=["pulled", "hutchinson", "asked"],
)
def test_engines_agree(field, options):
    flow = ContinuousFlow(field(), kinetic=0.3, **options)
    x = torch.randn(11, 2)
    found = {}
    for engine in ("eager", "fused"):
        flow.options = {"engine": engine}
        flow.zero_grad()
        torch.manual_seed(1)
        loss = flow.loss(x)
        loss.backward()
        found[engine] = [loss.detach(), *[weights.grad for weights in flow.parameters()]]
    assert flow.solve(x).engine == "fused"
    torch.testing.assert_close(found["fused"], found["eager"], rtol=1e-9, atol=1e-11)


def test_flows_are_copied_saved_and_converted():
    flow, x = ContinuousFlow(network()), torch.randn(3, 2)
    other = ContinuousFlow(network())
    other.load_state_dict(flow.state_dict())
    expected = flow.log_prob(x)
    assert torch.equal(other.log_prob(x), expected)
    assert torch.equal(copy.deepcopy(flow).log_prob(x), expected)
    single = flow.float()
    assert single.sample(4).dtype == torch.float32
    assert single.log_prob(x.float()).dtype == torch.float32


def test_learns_a_density():
    flow = ContinuousFlow(LinearField(2, bias=True), rtol=1e-3, atol=1e-4)
    target = MultivariateNormal(torch.tensor([1.0, -1.0]), torch.tensor([[1.0, 0.6], [0.6, 0.5]]))
    optimiser = torch.optim.Adam(flow.parameters(), lr=0.1)
    rate = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.96)
    for _ in range(70):
        optimiser.zero_grad()
        flow.loss(target.sample((128,))).backward()
        optimiser.step()
        rate.step()
    held_out = target.sample((2000,))
    floor = -target.log_prob(held_out).mean()
    assert float(flow.metrics(held_out)["nll"] - floor) < 0.02


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ContinuousFlow(lambda t, y: -y), "takes an nn.Module"),
        (lambda: ContinuousFlow(network(), trace="exakt"), "did you mean 'exact'"),
        (lambda: ContinuousFlow(network(), t1=-1.0), "positive time"),
        (lambda: ContinuousFlow(network(), kinetic=-1.0), "0 or more"),
        (lambda: ContinuousFlow(torch.nn.Linear(2, 2)), "does not say its dimension"),
        (lambda: ContinuousFlow(network(), Normal(0.0, 1.0)), "density of vectors"),
        (lambda: ContinuousFlow(network()).log_prob(torch.ones(3)), "last axis"),
    ],
)
def test_what_makes_no_flow_is_refused(make, says):
    with pytest.raises(InputError, match=says):
        make()


def test_options_reach_the_solver():
    flow = ContinuousFlow(network(), step=odeum.StepOptions(max_steps=1))
    with pytest.raises(SolveError):
        flow.log_prob(torch.randn(2, 2))
