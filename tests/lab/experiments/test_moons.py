import json

import pandas as pd
import pytest

from odeum.errors import InputError
from odeum.lab.experiments import EXPERIMENTS, Setting, read_options


def run(out, *assignments, **setting):
    experiment = EXPERIMENTS["moons"]
    return experiment.run(read_options(experiment, assignments), Setting(out, **setting))


SMALL = ("n_points=48", "hidden=8", "noise=0.05")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("moons") / "run"
    return run(out, "epochs=30", "learning_rate=0.1", "animated=no", *SMALL)


def test_moons_are_told_apart(found):
    findings = {entry["what"]: entry for entry in found.summary["findings"]}
    assert findings["accuracy, held out"]["value"] > 0.8
    table = pd.read_csv(found.path / "predictions.csv")
    assert list(table.columns) == ["x1", "x2", "held_out", "class", "probability_of_1"]
    assert len(table) == 96
    right = (table["probability_of_1"] > 0.5) == (table["class"] == 1)
    held_out = table["held_out"] == 1
    assert right[held_out].mean() == pytest.approx(findings["accuracy, held out"]["value"])
    assert right[~held_out].mean() == pytest.approx(findings["accuracy, learned from"]["value"])


def test_the_run_directory_shows_the_flow(found):
    drawn = {path.name for path in (found.path / "figures").iterdir()}
    assert drawn == {
        "loss.png",
        "regions.png",
        "trajectories.png",
        "trajectories_3d.png",
        "vector_field.png",
    }
    lines = [json.loads(x) for x in (found.path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 30
    assert lines[-1]["loss"] < lines[0]["loss"] / 2
    assert all(line["n_evaluations"] >= 7 for line in lines)


@pytest.mark.slow
def test_the_animation_is_drawn(tmp_path):
    found = run(tmp_path / "run", "epochs=2", *SMALL)
    assert (found.path / "figures" / "flow.gif").read_bytes()[:6] == b"GIF89a"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_target_is_reached_for_every_seed(tmp_path, seed):
    found = run(tmp_path / "run", "animated=no", seed=seed)
    assert all(entry["reached"] for entry in found.summary["findings"])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("n_points=2", "n_points is 2"),
        ("noise=-1", "noise is -1"),
        ("learning_rate=0", "learning_rate is 0"),
        ("hidden=0", "hidden is"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path, assignment, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "run", assignment)
