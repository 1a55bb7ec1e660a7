import json

import pandas as pd
import pytest

from odeum.errors import InputError
from odeum.lab.experiments import EXPERIMENTS, Setting, read_options


def run(out, *assignments, **setting):
    experiment = EXPERIMENTS["circles"]
    return experiment.run(read_options(experiment, assignments), Setting(out, **setting))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("circles") / "run"
    small = ("n_points=40", "hidden=8", "epochs=30", "learning_rate=0.1", "noise=0.05")
    return run(out, *small)


def test_both_flows_learn_and_are_told_side_by_side(found):
    findings = {entry["what"]: entry for entry in found.summary["findings"]}
    assert findings["accuracy, held out, augmented"]["value"] > 0.8
    table = pd.read_csv(found.path / "predictions.csv")
    held_out = table["held_out"] == 1
    for name in ("plain", "augmented"):
        right = (table[name] > 0.5) == (table["class"] == 1)
        shown = findings[f"accuracy, held out, {name}"]["value"]
        assert right[held_out].mean() == pytest.approx(shown)
    assert {path.name for path in (found.path / "figures").iterdir()} >= {
        "evaluations.png",
        "regions_plain.png",
        "trajectories_augmented.png",
    }


def test_evaluations_at_the_end_are_those_of_the_metrics(found):
    lines = [json.loads(x) for x in (found.path / "metrics.jsonl").read_text().splitlines()]
    findings = {entry["what"]: entry for entry in found.summary["findings"]}
    for name in ("plain", "augmented"):
        last = [line["n_evaluations"] for line in lines if line["part"] == name][-10:]
        shown = findings[f"evaluations at the end, {name}"]["value"]
        assert shown == pytest.approx(sum(last) / 10)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_targets_are_reached_for_every_seed(tmp_path, seed):
    found = run(tmp_path / "run", seed=seed)
    assert all(entry["reached"] in (True, None) for entry in found.summary["findings"])


def test_no_extra_dimension_is_refused(tmp_path):
    with pytest.raises(InputError, match="n_extra is 0"):
        run(tmp_path / "run", "n_extra=0")
