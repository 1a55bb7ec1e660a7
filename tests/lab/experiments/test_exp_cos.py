"""One curve, every gradient: they agree on the same pairs, and a run puts them side by side."""

import pandas as pd
import pytest
import torch

from odeum.errors import InputError
from odeum.lab.experiments.exp_cos import (
    LSODA,
    WAYS,
    ExpCosOptions,
    _descent,
    _model,
    exact,
    run_exp_cos,
)
from odeum.lab.registry import Setting


def test_the_curve_solves_its_equation():
    t = torch.linspace(-1, 10, 50, requires_grad=True)
    (slope,) = torch.autograd.grad(exact(t).sum(), t)
    torch.testing.assert_close(slope, exact(t) * t.sin())


def test_all_gradients_agree():
    options = ExpCosOptions(batch=3, hidden=(5,))
    gradients = {}
    for name in WAYS:
        model = _model(options, seed=0)
        model.ode.options |= {"rtol": 1e-8, "atol": 1e-8}
        descent = _descent(name, model, options)
        times = descent.batch(0, torch.Generator().manual_seed(0))
        assert ((times[1] - times[0] - 1).abs() < 1e-12).all()
        assert times.min() >= -1
        assert times.max() <= 10
        descent.loss(times).value.backward()
        gradients[name] = torch.cat([p.grad.flatten() for p in model.parameters()])
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, gradients["discrete"], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_a_short_run_puts_them_side_by_side(tmp_path):
    options = ExpCosOptions(n_steps=3, n_forward=2, batch=2, hidden=(4,))
    study = run_exp_cos(options, Setting(tmp_path / "run", quiet=True))
    lines = pd.read_json(study.path / "metrics.jsonl", lines=True)
    first = lines[lines["step"] == 1].set_index("part")["loss"]
    assert list(first.index) == list(WAYS)
    # The same weights and pairs: their first losses differ by the tolerance of the solves.
    assert first.max() - first.min() < 1e-2 * first.mean()
    result = study.summary["result"]
    assert all(result[f"milliseconds a step, {name}"] > 0 for name in WAYS)
    findings = {x["what"]: x for x in study.summary["findings"]}
    table = pd.read_csv(study.path / "predictions.csv")
    error = torch.tensor(table["z"].to_numpy()) - exact(torch.tensor(table["t"].to_numpy()))
    over_lsoda = findings[f"RMSE over [0, 10], {LSODA}"]
    assert over_lsoda["value"] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-6)
    assert over_lsoda["target"] == 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"n_forward": 0}, "n_forward is 0 of"), ({"hidden": (0,)}, "hidden is")],
)
def test_options_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        ExpCosOptions(**changes)
