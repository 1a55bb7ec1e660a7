"""Latent ODEs of spirals: batches and losses by hand, the baseline's feedback, a short run."""

import json
import math

import pandas as pd
import pytest
import torch
from torch.distributions import Normal

from odeum.errors import InputError
from odeum.lab.experiments.latent_spirals import (
    LatentSpiralsOptions,
    run_latent_spirals,
)
from odeum.lab.experiments.series import LatentTraining, RecurrentPredictor, Series
from odeum.lab.registry import Setting
from odeum.models import LatentODE


def some_series(n_times=8, batch=6):
    return Series(torch.rand(n_times, batch).cumsum(0), torch.randn(n_times, batch, 2))


def test_an_rnn_fed_its_own_predictions_expects_them():
    model, series = RecurrentPredictor(2, hidden=5, noise=0.3), some_series()
    wanted = torch.linspace(9, 10, 4)
    predicted = model.predict(series.ys, series.ts, wanted)
    ts = torch.cat([series.ts, wanted[:, None].expand(-1, 6)])
    expected = model(torch.cat([series.ys, predicted]), ts)
    torch.testing.assert_close(expected[-4:], predicted)
    with pytest.raises(InputError, match="later times"):
        model.predict(series.ys, series.ts, torch.zeros(1))


def test_an_rnn_expects_each_observation_from_those_before_it():
    model, series = RecurrentPredictor(2, hidden=5, noise=0.3), some_series()
    expected = model(series.ys, series.ts)
    likelihood = Normal(expected, 0.3).log_prob(series.ys[1:]).sum(-1).mean()
    torch.testing.assert_close(model.loss(series.ys.transpose(0, 1), series.ts.T), -likelihood)
    changed = series.ys.clone()
    changed[5:] += 1
    assert torch.equal(model(changed, series.ts)[:5], expected[:5])
    assert not torch.equal(model(changed, series.ts)[5], expected[5])


def training(continuity=0.0):
    model = LatentODE(2, 3, hidden=4, encoder_hidden=5, noise=0.3, rtol=1e-6)
    return LatentTraining(model, some_series(), n_batch=4, n_steps=100, continuity=continuity)


def test_the_encoder_sees_all_of_some_and_a_beginning_of_others():
    model = LatentODE(2)
    learning = LatentTraining(model, some_series(20, 300), n_batch=200, n_steps=100, continuity=0.0)
    batch = learning.batch(15, torch.Generator().manual_seed(0))
    assert batch.kl_weight == pytest.approx(0.5)
    assert 1 <= batch.first < 14
    assert batch.series.ts.shape == (20, 200)
    for seen, n_times in ((batch.seen, 20), (batch.seen_later, 20 - batch.first)):
        assert seen.shape == (n_times, 200)
        counts = seen.sum(0)
        assert torch.equal(seen, torch.arange(n_times)[:, None] < counts)
        assert counts.min() >= 4
        assert 70 < (counts == n_times).sum() < 150
        assert len(counts.unique()) > 5


def test_the_loss_is_the_mean_of_both_bounds_per_observation():
    learning = training()
    batch = learning.batch(10, torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    found = learning.loss(batch)
    torch.manual_seed(1)
    learning.model.kl_weight = batch.kl_weight
    bounds = []
    for series, seen in (
        (batch.series, batch.seen),
        (batch.series.later(batch.first), batch.seen_later),
    ):
        every = torch.ones_like(seen).T
        rows = series.ys.transpose(0, 1), series.ts.T, seen.T, every
        bounds.append(learning.model.loss(*rows) / len(series))
    torch.testing.assert_close(found, (bounds[0] + bounds[1]) / 2)


def test_continuity_weighs_where_the_paths_meet():
    learning = training()
    batch = learning.batch(10, torch.Generator().manual_seed(0))
    losses = []
    for learning.continuity in (0.0, 1.0):
        torch.manual_seed(1)
        losses.append(learning.loss(batch))
    torch.manual_seed(1)
    model, series, later = learning.model, batch.series, batch.series.later(batch.first)
    mean, log_variance = model.encode(series.ys, series.ts, batch.seen)
    z0 = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    arrived = model.solve(z0, series.ts[[0, batch.first]]).ys[1]
    wanted, log_variance = model.encode(later.ys, later.ts, batch.seen_later)
    square = ((arrived - wanted).square() / (log_variance.exp() + 1e-3)).sum(-1)
    distance = 4 * (1 + square / 4).log().mean() / len(series)
    torch.testing.assert_close(losses[1] - losses[0], distance, rtol=1e-4, atol=1e-8)


def test_a_short_run_writes_what_it_found(tmp_path):
    options = LatentSpiralsOptions(
        observations=(8,),
        n_spirals=100,
        steps=3,
        rnn_steps=3,
        batch=16,
        hidden=6,
        encoder_hidden=6,
    )
    out = tmp_path / "run"
    studied = run_latent_spirals(options, Setting(out=out, quiet=True))
    summary = json.loads((out / "summary.json").read_text())
    found = {finding["what"]: finding["value"] for finding in summary["findings"]}
    table = pd.read_csv(out / "predictions.csv")
    assert len(table) == 20 * 300
    after = table.t > 99.5 * table.t.max() / 199
    whole = table.x_true[after].notna().groupby(table.spiral[after]).all()
    scored = after & table.spiral.map(whole)
    assert studied.summary["result"]["scored spirals, 8 observations"] == whole.sum() > 0
    for name, column in (("latent ODE", "latent_ode"), ("RNN", "rnn")):
        squares = sum(
            ((table[f"{x}_{column}"] - table[f"{x}_true"])[scored] ** 2).mean() for x in "xy"
        )
        value = found[f"predictive RMSE, {name}, 8 observations"]
        assert value == pytest.approx(math.sqrt(squares / 2), rel=1e-6)
        assert 0.1 < value < 20
    figures = {path.name for path in (out / "figures").iterdir()}
    assert figures == {"spirals.png", "errors.png", "interpolation.png", "loss.png"}
    assert (out / "report.html").exists()


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"observations": (5,)}, "observations are"),
        ({"n_spirals": 10}, "n_spirals is 10"),
        ({"steps": 0}, "steps is 0"),
        ({"continuity": -1.0}, "continuity is -1"),
    ],
)
def test_options_that_make_no_sense_are_refused(wrong, what):
    with pytest.raises(InputError, match=what):
        LatentSpiralsOptions(**wrong)
