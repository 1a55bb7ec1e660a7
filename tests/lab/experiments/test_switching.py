"""Two centres: spans end anywhere, a short run learns, predictions are those of the model."""

import math

import pandas as pd
import pytest
import torch

import odeum
from odeum.datasets import sample
from odeum.errors import InputError
from odeum.lab import load
from odeum.lab.experiments.switching import SwitchingOptions, _descent, run_switching
from odeum.lab.registry import Setting
from odeum.models import LearnedDynamics, LinearField, StateTransform
from odeum.systems import switching


def test_spans_end_anywhere_and_begin_at_observations():
    data = sample(switching(), n_times=30, noise=0.01)
    model = LearnedDynamics(LinearField(2), StateTransform.identity(2))
    options = SwitchingOptions(n_times=30, longest=12, batch=15, n_steps=10)
    descent = _descent(model, data, data, options, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for step, longest in ((0, 8), (9, 12)):
        spans = descent.batch(step, generator)
        assert spans.ts.shape == (longest, 15)
        seen = ~torch.isnan(spans.targets[..., 0])
        lengths = seen.sum(0)
        assert not seen[0].any()
        assert lengths.min() >= 1
        assert len(lengths.unique()) > 3
        y = data.trajectories[0].y
        for row in range(15):
            first = int((y == spans.y0[row]).all(-1).nonzero())
            n = int(lengths[row])
            assert torch.equal(spans.targets[1 : n + 1, row], y[first + 1 : first + n + 1])


def test_a_short_run_learns_and_is_followed(tmp_path):
    options = SwitchingOptions(n_times=40, n_steps=12, batch=16, longest=4, hidden=(12,))
    study = run_switching(options, Setting(tmp_path / "run", quiet=True))
    lines = pd.read_json(study.path / "metrics.jsonl", lines=True)
    assert lines["step"].tolist() == [12]
    run = load(study.path)
    truth = sample(switching(), n_times=40).trajectories[0]
    y0 = torch.tensor([switching().y0])
    with torch.no_grad():
        ys = odeum.solve(run.model.field, y0, truth.t, rtol=1e-9, atol=1e-9).ys[:, 0]
    rmse = math.sqrt(float((ys - truth.y).square().mean()))
    (finding,) = study.summary["findings"]
    assert finding["value"] == pytest.approx(rmse, rel=1e-3)
    assert finding["target"] == 0.05
    assert len(pd.read_csv(study.path / "predictions.csv")) == 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"longest": 201}, "longest is 201 of 200 rows"),
        ({"noise": -0.1}, r"noise is -0\.1"),
        ({"batch": 0}, "batch is 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        SwitchingOptions(**changes)
