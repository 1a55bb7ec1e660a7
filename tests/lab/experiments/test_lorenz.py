"""Lorenz's attractor: what is observed, shooting with learned starts, a short run."""

import pandas as pd
import pytest
import torch

import odeum
from odeum.errors import InputError
from odeum.lab import load
from odeum.lab.experiments import lorenz as experiment
from odeum.lab.experiments.lorenz import (
    LorenzOptions,
    _observations,
    _on_attractor,
    _pieces,
    run_lorenz,
)
from odeum.lab.experiments.smoothed import Smoothed
from odeum.lab.registry import Setting
from odeum.models import LearnedDynamics, LinearField, StateTransform
from odeum.systems import lorenz


@pytest.fixture(autouse=True)
def loosely(monkeypatch):
    """The truth to fewer digits, and after less time: what is tested does not depend on them."""
    monkeypatch.setattr(experiment, "TRUTH", {**experiment.TRUTH, "rtol": 1e-5, "atol": 1e-5})
    monkeypatch.setattr(experiment, "TRANSIENT", 8.0)


def test_observations_are_of_the_attractor_with_noise_in_proportion():
    clean, spread = _observations(LorenzOptions(n_times=800, noise=0.0), seed=1)
    noisy, same = _observations(LorenzOptions(n_times=800, noise=0.05), seed=1)
    assert torch.equal(spread, same)
    torch.testing.assert_close(clean.std(0, correction=0), spread)
    torch.testing.assert_close(
        ((noisy - clean) / spread).std(0), torch.full((3,), 0.05), rtol=0.08, atol=0
    )
    # The rate of change of what was observed is that of the system, and no transient is left.
    rate = (clean[2:] - clean[:-2]) / 0.04
    error = rate - lorenz()(0.0, clean[1:-1])
    assert error.square().mean().sqrt() < 0.05 * rate.square().mean().sqrt()
    assert clean[:, 2].min() > 0.3


def test_pieces_are_the_trajectory():
    options = LorenzOptions(n_times=600)
    observed, _ = _observations(options, seed=0)
    data = _pieces(observed, options)
    assert [len(piece) for piece in data] == [250, 250, 100]
    assert torch.equal(torch.cat([piece.y for piece in data]), observed)
    t = torch.cat([piece.t for piece in data])
    torch.testing.assert_close(t, 0.02 * torch.arange(600.0))


def circle(noise):
    t = 0.1 * torch.arange(200.0)
    clean = torch.stack([(2 * t).cos(), (2 * t).sin()], -1)
    return clean, clean + noise * torch.randn(200, 2)


def test_smoothing_takes_noise_away_and_gives_slopes():
    clean, observed = circle(0.01)
    transform = StateTransform(torch.tensor([0.5, 0.0]), torch.tensor([2.0, 1.0]), t_scale=0.5)
    model = LearnedDynamics(LinearField(2), transform)
    smoothed = Smoothed.of(observed, 0.1, model)
    true = transform.encode(clean)
    assert (smoothed.states - true).square().mean() < 0.6 * (
        smoothed.observed - true
    ).square().mean()
    # dz/dtau = (0.5 / scale) dy/dt
    slopes = 0.5 * 2 * torch.stack([-clean[:, 1], clean[:, 0]], -1) / transform.scale
    error = (smoothed.slopes - slopes)[3:-3]
    assert error.square().mean().sqrt() < 0.05 * slopes.square().mean().sqrt()
    rows = torch.tensor([0, 7, 30])
    expected = (model.field(0.0, smoothed.states[rows]) - smoothed.slopes[rows]).square().mean()
    torch.testing.assert_close(smoothed.slope_loss(model, rows), expected)


def test_windows_are_solved_from_smoothed_states_and_held_against_observations():
    _, observed = circle(0.1)
    transform = StateTransform(torch.tensor([0.5, 0.0]), torch.tensor([2.0, 1.0]), t_scale=0.5)
    model = LearnedDynamics(LinearField(2), transform)
    smoothed = Smoothed.of(observed, 0.1, model)
    ts = torch.arange(4.0) * 0.2
    starts = smoothed.states[[3, 50]]
    ys = odeum.solve(model.field, starts, ts, rtol=1e-9, atol=1e-9).ys
    targets = torch.stack([transform.encode(observed[row : row + 4]) for row in (3, 50)], 1)
    expected = (ys - targets)[1:].square().mean()
    found = smoothed.window_loss(model, torch.tensor([3, 50]), 4)
    torch.testing.assert_close(found.value, expected, rtol=1e-3, atol=1e-5)
    assert found.n_evaluations > 0


@pytest.mark.slow
def test_a_short_run_is_judged(tmp_path, monkeypatch):
    for name, value in {"LONG": 16.0, "SETTLED": 4.0, "N_LONG": 2, "FORECAST": 3.0}.items():
        monkeypatch.setattr(experiment, name, value)
    options = LorenzOptions(
        n_times=400, n_slope_steps=8, n_window_steps=8, batch=10, hidden=(8,), n_forecasts=6
    )
    study = run_lorenz(options, Setting(tmp_path / "run", quiet=True))
    lines = pd.read_json(study.path / "metrics.jsonl", lines=True)
    assert list(lines["part"].unique()) == ["slopes", "windows"]
    summary = study.summary
    low, median, high = summary["result"]["valid forecast, quartiles (Lyapunov times)"]
    assert 0 < low <= median <= high <= 0.9056 * 3
    assert summary["findings"][0]["value"] == median
    learned = summary["result"]["distances of x, y, z, learned from true"]
    again = summary["result"]["distances of x, y, z, between two true runs"]
    # So few steps have not learned the attractor, and the distance says so.
    assert max(learned) > max(again)
    model = load(study.path).model
    assert model(torch.ones(1, 3), torch.tensor([0.0, 0.1])).shape == (2, 1, 3)
    files = {figure["file"] for figure in summary["figures"]}
    assert {f"figures/{x}.png" for x in ("forecast", "error", "attractor", "return_map")} < files


def test_states_on_the_attractor_follow_from_the_generator():
    first, second = (_on_attractor(2, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, second)
    assert (first[0] - first[1]).norm() > 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 1}, "window is 1 of"),
        ({"noise": -0.1}, r"noise is -0\.1"),
        ({"spacing": 0.0}, r"spacing is 0\.0"),
        ({"n_slope_steps": 0}, "n_slope_steps is 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        LorenzOptions(**changes)
