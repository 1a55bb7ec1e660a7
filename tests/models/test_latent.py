import copy
import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

import odeum
from odeum.errors import InputError
from odeum.models import LatentODE, MLPField, RecurrentEncoder
from odeum.models.latent import kl_from_prior

ENCODERS = ["rnn", "ode-rnn"]


def small(encoder="rnn", **options):
    options = {"rtol": 1e-8, "atol": 1e-10, **options}
    return LatentODE(2, 3, hidden=4, encoder=encoder, encoder_hidden=5, noise=0.3, **options)


def series(n_times=6, batch=3):
    ts = torch.rand(n_times).cumsum(0)
    return torch.randn(n_times, batch, 2), ts


def own_times(n_times=6, batch=3):
    return torch.rand(n_times, batch).cumsum(0) - torch.rand(batch)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_shapes(encoder):
    model = small(encoder)
    ys, ts = series()
    mean, log_variance = model.encode(ys, ts)
    assert mean.shape == log_variance.shape == (3, 3)
    assert model.decode(mean, ts).shape == (6, 3, 2)
    assert model.reconstruct(ys, ts).shape == (6, 3, 2)
    assert model.predict(ys, ts, torch.linspace(-1, 5, 9)).shape == (9, 3, 2)
    assert model.sample(7, ts).shape == (6, 7, 2)
    assert list(model.metrics(ys.transpose(0, 1), ts)) == ["rmse", "loss"]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_what_is_masked_changes_nothing(encoder):
    model = small(encoder)
    ys, ts = series()
    mask = torch.rand(6, 3, 2) < 0.6
    mask[2] = False
    mask[:, 1] = False
    other = torch.where(mask, ys, torch.randn_like(ys))
    nowhere = ys.masked_fill(~mask, math.nan)
    expected = model.encode(ys, ts, mask)
    for changed in (model.encode(other, ts, mask), model.encode(nowhere, ts)):
        assert torch.equal(torch.stack(changed), torch.stack(expected))
    kept = torch.tensor([0, 1, 3, 4, 5])
    without = model.encode(ys[kept], ts[kept], mask[kept])
    torch.testing.assert_close(torch.stack(without), torch.stack(expected), rtol=1e-7, atol=1e-9)

    def slopes(values):
        torch.manual_seed(0)
        weights = [p for p in model.parameters() if p.requires_grad]
        loss = model.loss(values.transpose(0, 1), ts, mask.transpose(0, 1))
        return [loss, *torch.autograd.grad(loss, weights)]

    for found, wanted in zip(slopes(nowhere), slopes(ys), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_what_is_seen_changes_the_answer(encoder):
    model = small(encoder)
    ys, ts = series()
    mask = torch.ones(6, 3, dtype=torch.bool)
    means = [model.encode(ys, ts, mask)[0], model.encode(ys, 1.1 * ts, mask)[0]]
    mask[0] = False
    means.append(model.encode(ys, ts, mask)[0])
    ys[0, :, 0] += 1.0
    means.append(model.encode(ys, ts)[0])
    assert all((a - b).abs().min() > 1e-6 for a in means for b in means if a is not b)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_rows_with_times_of_their_own_are_as_if_alone(encoder):
    model = small(encoder)
    ys, _ = series()
    ts = own_times()
    mask = torch.rand(6, 3, 2) < 0.5
    wanted = own_times(8)
    batched = (*model.encode(ys, ts, mask), model.predict(ys, ts, wanted, mask))
    for i in range(3):
        row = slice(i, i + 1)
        alone = (
            *model.encode(ys[:, row], ts[:, i], mask[:, row]),
            model.predict(ys[:, row], ts[:, i], wanted[:, i], mask[:, row]),
        )
        for found, expected in zip(batched, alone, strict=True):
            torch.testing.assert_close(
                found.select(-2, i), expected.select(-2, 0), rtol=1e-6, atol=1e-7
            )


def test_predictions_are_solved_both_ways_from_the_first_time():
    model = small()
    ys, _ = series()
    ts = own_times()
    wanted = torch.linspace(-4, 6, 11)
    ts[:, 2] += 20.0
    found = model.predict(ys, ts, wanted)
    for i in range(3):
        z0 = model.encode(ys, ts)[0][i : i + 1]
        parts = []
        for some in (wanted[wanted < ts[0, i]].flip(0), wanted[wanted > ts[0, i]]):
            if len(some):
                parts.append(model.decode(z0, torch.cat([ts[0, i : i + 1], some]))[1:])
        expected = torch.cat([parts[0].flip(0), *parts[1:]])[:, 0]
        torch.testing.assert_close(found[:, i], expected, rtol=1e-6, atol=1e-7)
    same = model.predict(ys, ts, ts)
    torch.testing.assert_close(same, model.reconstruct(ys, ts), rtol=1e-6, atol=1e-7)


def test_wanted_times_may_be_those_of_the_start_up_to_rounding():
    model = small(rtol=1e-5, atol=1e-6).float()
    ys, ts = torch.randn(3, 2, 2).float(), torch.tensor([0.1, 0.2, 0.3]).float()
    near = torch.nextafter(ts[0], torch.tensor(1.0))
    wanted = torch.stack([ts[0] - 0.05, ts[0], near, ts[2]])
    found = model.predict(ys, ts, wanted)
    expected = model.reconstruct(ys, ts)
    torch.testing.assert_close(found[1:], expected[[0, 0, 2]], rtol=1e-5, atol=1e-5)


def test_times_are_those_of_the_field():
    model = LatentODE(1, 1, field=MLPField(1, (4,), time_dependent=True), decoder=nn.Identity())
    ys, ts = torch.randn(5, 2, 1), torch.linspace(3, 4, 5)
    z0 = model.encode(ys, ts)[0]
    expected = odeum.solve(model.field, z0, ts).ys
    torch.testing.assert_close(model.predict(ys, ts, ts), expected, rtol=1e-3, atol=1e-4)


def test_loss_is_the_negative_bound():
    model = small(learn_noise=True)
    ys, ts = series()
    seen, counted = torch.rand(2, 6, 3, 2) < 0.6
    torch.manual_seed(3)
    found = model.loss(ys.transpose(0, 1), ts, seen.transpose(0, 1), counted.transpose(0, 1))
    torch.manual_seed(3)
    mean, log_variance = model.encode(ys, ts, seen)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    expected = model.decode(mean + posterior.scale * torch.randn_like(mean), ts)
    likelihood = (Normal(expected, 0.3).log_prob(ys) * counted).sum((0, 2))
    kl = kl_divergence(posterior, Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(kl_from_prior(mean, log_variance), kl)
    torch.testing.assert_close(found, (kl - likelihood).mean())
    model.kl_weight = 0.25
    torch.manual_seed(3)
    found = model.loss(ys.transpose(0, 1), ts, seen.transpose(0, 1), counted.transpose(0, 1))
    torch.testing.assert_close(found, (0.25 * kl - likelihood).mean())


def test_metrics_measure_the_reconstruction():
    model = small()
    ys, ts = series()
    mask = torch.rand(6, 3, 2) < 0.6
    found = model.metrics(ys.transpose(0, 1), ts, mask.transpose(0, 1))["rmse"]
    errors = (model.reconstruct(ys, ts, mask) - ys)[mask]
    torch.testing.assert_close(found, errors.square().mean().sqrt())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_gradients_of_the_loss(encoder):
    model = LatentODE(
        1,
        2,
        hidden=2,
        encoder=encoder,
        encoder_hidden=2,
        learn_noise=True,
        decoder=nn.Linear(2, 1),
        method="rk4",
        step=odeum.StepOptions(fixed=0.5),
    )
    ys, ts = torch.randn(2, 4, 1), own_times(4, 2).T
    mask = torch.tensor([[True, False, True, True], [False, True, True, False]])
    names, weights = zip(*model.named_parameters(), strict=True)

    def loss(ys, *weights):
        torch.manual_seed(0)
        return torch.func.functional_call(
            Caller(model),
            {f"model.{n}": w for n, w in zip(names, weights, strict=True)},
            (ys, ts, mask),
        )

    inputs = [ys.requires_grad_(), *(w.detach().clone().requires_grad_() for w in weights)]
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)


class Caller(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *batch):
        return self.model.loss(*batch)


class Still(nn.Module):
    def forward(self, t, h):
        return 0 * h


def test_an_ode_rnn_whose_hidden_state_stands_still_is_an_rnn():
    encoder = RecurrentEncoder(2, latent_dim=3, hidden=5, flow=Still())
    ys, ts = series()
    mask = torch.ones(6, 3, 2, dtype=torch.bool)
    read = torch.cat([ys, mask.to(ys)], dim=-1).flip(0)
    expected = encoder.head(encoder.gru(read)[1][0]).chunk(2, dim=-1)
    torch.testing.assert_close(encoder(ys, ts, mask), expected)


class Decay(nn.Module):
    def forward(self, t, h):
        return -2 * h


def test_the_hidden_state_flows_through_every_gap_to_the_first_time():
    encoder = RecurrentEncoder(1, 2, hidden=3, flow=Decay(), rtol=1e-10, atol=1e-12)
    ys = torch.randn(4, 1, 1)
    ts = torch.tensor([0.0, 0.5, 0.7, 1.7])
    mask = torch.tensor([False, True, False, True])[:, None, None]
    hidden = torch.zeros(1, 1, 3)
    for y, gap in ((ys[3], 1.2), (ys[1], 0.5)):
        read = torch.cat([y, torch.ones(1, 1)], dim=-1)[None]
        hidden = encoder.gru(read, hidden)[1] * math.exp(-2 * gap)
    expected = encoder.head(hidden[0]).chunk(2, dim=-1)
    torch.testing.assert_close(encoder(ys, ts, mask), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_models_are_copied_and_restored(encoder):
    model = small(encoder, learn_noise=True)
    ys, ts = series()
    twin, other = copy.deepcopy(model), small(encoder)
    other.load_state_dict(model.state_dict())
    expected = model.reconstruct(ys, ts)
    assert torch.equal(twin.reconstruct(ys, ts), expected)
    assert torch.equal(other.reconstruct(ys, ts), expected)


def test_the_fused_engine_takes_both_fields_and_agrees():
    model = small("ode-rnn", engine="fused")
    eager = copy.deepcopy(model)
    eager.options["engine"] = eager.encoder.options["engine"] = "eager"
    assert odeum.explain(model.field, torch.randn(3, 3))
    ys, ts = series()
    batch = ys.transpose(0, 1), ts

    def slopes(model):
        torch.manual_seed(1)
        loss = model.loss(*batch)
        return [
            loss,
            *torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]),
        ]

    assert model.solve(torch.randn(3, 3), ts).engine == "fused"
    for found, expected in zip(slopes(model), slopes(eager), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="did you mean 'ode-rnn'"):
        LatentODE(2, encoder="ode_rnn")
    with pytest.raises(InputError, match="noise is 0"):
        LatentODE(2, noise=0.0)
    with pytest.raises(InputError, match="encoder_hidden is 0"):
        LatentODE(2, encoder_hidden=0)
    with pytest.raises(InputError, match="flow is a function"):
        RecurrentEncoder(2, 3, flow=lambda t, h: h)
    model = small()
    ys, ts = series()
    with pytest.raises(InputError, match="the 2 components"):
        model.encode(ys[..., :1], ts)
    with pytest.raises(InputError, match="ts has shape"):
        model.encode(ys, ts[:3])
    with pytest.raises(InputError, match="one bool per value"):
        model.encode(ys, ts, torch.ones(6, 3))
