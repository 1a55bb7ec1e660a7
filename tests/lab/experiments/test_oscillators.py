"""The oscillators: what the loss is, a short run, and predictions from it."""

import pandas as pd
import pytest
import torch

import odeum
from odeum.datasets import sample
from odeum.errors import InputError
from odeum.lab import predict
from odeum.lab.experiments.oscillators import (
    SOLVER,
    OscillatorsOptions,
    _loss,
    run_oscillators,
)
from odeum.lab.registry import Setting
from odeum.lab.windows import cut
from odeum.models import LearnedDynamics, LinearField, StateTransform
from odeum.systems import oscillator_chain


def test_the_loss_is_summed_over_states_and_averaged_over_windows_and_times():
    data = sample(oscillator_chain(), n_times=40)
    model = LearnedDynamics(LinearField(6), StateTransform.identity(6), **SOLVER)
    windows = cut(data, 10).choose(7, torch.Generator().manual_seed(0))
    ys = odeum.solve(model.field, windows.y0, windows.ts, **SOLVER).ys
    y = data.trajectories[0].y
    rows = [int((data.trajectories[0].t == start).nonzero()) for start in windows.ts[0]]
    targets = torch.stack([y[row : row + 10] for row in rows], dim=1)
    expected = (ys - targets).square().sum(-1).mean()
    torch.testing.assert_close(_loss(model, windows).value, expected)


def test_a_short_run_learns_and_predicts(tmp_path):
    options = OscillatorsOptions(
        n_times=400, n_steps=20, batch=8, window=3, hidden=(16,), sgd_rate=0.1
    )
    study = run_oscillators(options, Setting(tmp_path / "run", quiet=True))
    lines = pd.read_json(study.path / "metrics.jsonl", lines=True)
    for name in ("SGD", "Adam"):
        losses = lines[lines["part"] == name]["loss"].to_numpy()
        assert len(losses) == 20
        assert losses[-5:].mean() < losses[:5].mean()
        assert study.summary["result"][f"last loss of {name}"] == pytest.approx(losses[-1])
    findings = {x["what"]: x for x in study.summary["findings"]}
    adam = lines[lines["part"] == "Adam"]
    mean = findings["loss of Adam, mean of the last 30 steps"]
    assert mean["value"] == pytest.approx(adam["loss"].to_numpy()[-30:].mean())
    assert mean["target"] == 2e-3
    assert findings["training by Adam"]["value"] == pytest.approx(adam["seconds"].sum(), rel=1e-6)
    assert study.summary["result"]["seconds of compiling, before"] > 0
    table = pd.read_csv(study.path / "predictions.csv")
    assert list(table.columns) == ["t", "q1", "q2", "q3", "v1", "v2", "v3"]
    again = predict(study.path)
    assert (again - table).abs().max().max() < 1e-12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 1}, "window is 1 of 1000 times"),
        ({"batch": 0}, "batch is 0"),
        ({"sgd_rate": -1.0}, r"sgd_rate is -1\.0"),
        ({"hidden": (0,)}, "hidden is"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        OscillatorsOptions(**changes)
