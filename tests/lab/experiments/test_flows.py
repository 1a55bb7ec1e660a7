"""Flows on toy densities: what a short run says of itself."""

import json

import pandas as pd
import pytest

from odeum.datasets import TOYS
from odeum.errors import InputError
from odeum.lab.experiments import EXPERIMENTS, Setting, flows, read_options

SMALL = ("n_steps=4", "n_rows=64", "hidden=8,8", "n_held_out=200")
FOUND = (
    "negative log-density, held out",
    "mass, distance from 1",
    "log-determinant, largest error",
    "training",
)


def run(out, *assignments, **setting):
    experiment = EXPERIMENTS["flows"]
    return experiment.run(read_options(experiment, assignments), Setting(out, **setting))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("flows") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows, "TOYS", {name: TOYS[name] for name in ("moons", "checkerboard")})
        patch.setattr(flows, "N_SIDE", 60)
        patch.setattr(flows, "N_CHECKED", 4)
        return run(out, "data=all", "kinetic=0.01", *SMALL, quiet=True)


def test_every_flow_is_judged(found):
    findings = {entry["what"]: entry for entry in found.summary["findings"]}
    assert list(findings) == [f"{x}: {what}" for x in ("moons", "checkerboard") for what in FOUND]
    for name, target in (("moons", 2.4939), ("checkerboard", 3.6657)):
        nll, mass, identity, _ = (findings[f"{name}: {what}"] for what in FOUND)
        assert nll["published"] == TOYS[name].entropy
        assert nll["target"] == pytest.approx(target, abs=1e-4)
        assert TOYS[name].entropy < nll["value"] < 8
        assert mass["value"] < 0.01
        assert identity["value"] < 1e-6


def test_the_divergence_is_that_of_the_predictions(found):
    table = pd.read_csv(found.path / "predictions.csv")
    columns = ["data", "x1", "x2", "log_density", "true_log_density"]
    assert list(table.columns) == columns
    for name, rows in table.groupby("data"):
        divergence = (rows["true_log_density"] - rows["log_density"]).mean()
        told = found.summary["result"][f"{name}: Kullback-Leibler divergence"]
        assert len(rows) == 200
        assert divergence == pytest.approx(told, abs=1e-6)


def test_the_run_directory_shows_the_flows(found):
    drawn = {path.name for path in (found.path / "figures").iterdir()}
    of_each = ("{}.png", "{}_over_time.png")
    names = ("moons", "checkerboard")
    assert drawn == {"loss.png", *(x.format(name) for name in names for x in of_each)}
    lines = [json.loads(x) for x in (found.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == 2 * [1, 2, 3, 4]
    assert all(line["evaluations"] >= 7 for line in lines)


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("data=moon", "did you mean 'moons'"),
        ("n_steps=0", "at least 1"),
        ("kinetic=-1", "0 or more"),
        ("hidden=8", "two widths"),
    ],
)
def test_options_out_of_range_are_refused(assignment, says):
    with pytest.raises(InputError, match=says):
        read_options(EXPERIMENTS["flows"], [assignment])
