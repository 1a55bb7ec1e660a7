"""Energies of springs, pendulums and two bodies: the systems, and the experiment in miniature."""

import json
import math

import pandas as pd
import pytest
import torch

from odeum.errors import InputError
from odeum.lab.experiments.hamiltonian import (
    EXPERIMENT,
    HAMILTONIAN,
    KINDS,
    PLAIN,
    HamiltonianOptions,
)
from odeum.lab.experiments.mechanics import PENDULUM, SPRING, TASKS, TWO_BODY, solve_exactly
from odeum.lab.registry import Setting, read_options


@pytest.mark.parametrize("name", TASKS)
def test_solutions_return_after_a_period_with_their_energy(name):
    task = TASKS[name]
    y0 = task.draw_tests(20, torch.Generator().manual_seed(1))
    energy = task.energy(y0)
    assert bool((energy != 0).all())
    share = torch.tensor([0.0, 0.5, 1.0])[:, None]
    ys = solve_exactly(task.field, y0, share * task.period(energy))
    torch.testing.assert_close(ys[-1], y0, rtol=0, atol=1e-7)
    assert float((ys[1] - y0).abs().max(-1).values.min()) > 0.1
    torch.testing.assert_close(task.energy(ys[-1]), energy, rtol=1e-8, atol=1e-9)


def test_observations_are_those_of_the_protocol():
    learned, tested = SPRING.observe(0)
    assert learned.y.shape == learned.dydt.shape == tested.y.shape == (750, 2)
    # dq/dt = 2 p and dp/dt = -2 q hold without the noise that y has.
    noise = learned.y - torch.stack([-learned.dydt[:, 1] / 2, learned.dydt[:, 0] / 2], -1)
    assert float(noise.std()) == pytest.approx(0.1, rel=0.1)
    radius = learned.dydt.norm(dim=-1) / 2
    assert 0.1 <= float(radius.min()) < 0.2 < 0.9 < float(radius.max()) <= 1.0
    assert PENDULUM.observe(0)[0].y.shape == (25 * 45, 2)
    few = TWO_BODY.smaller(8)
    learned, tested = few.observe(0)
    assert learned.y.shape == tested.y.shape == (8 * 50, 8)
    torch.testing.assert_close(few.field(0.0, learned.y), learned.dydt)
    positions, momenta = learned.y.split(4, -1)
    torch.testing.assert_close(positions[:, ::2], -positions[:, 1::2], rtol=0, atol=1e-7)
    torch.testing.assert_close(momenta[:, ::2], -momenta[:, 1::2], rtol=0, atol=1e-7)


def test_circles_have_the_period_of_kepler():
    radius = 0.8
    speed = 1 / (2 * math.sqrt(radius))
    y0 = torch.tensor([[radius, -radius, 0, 0, 0, 0, speed, -speed]])
    period = TWO_BODY.period(TWO_BODY.energy(y0))
    assert float(period) == pytest.approx(2 * math.pi * radius / speed)


def test_a_small_run_finds_that_the_hamiltonian_network_keeps_the_energy(tmp_path):
    settings = ["task=spring", "hidden=16,16", "effort=0.1", "n_tests=5", "n_periods=1"]
    options = read_options(EXPERIMENT, [*settings, "learning_rate=0.01"])
    finished = EXPERIMENT.run(options, Setting(out=tmp_path / "run", quiet=True))
    findings = {x["what"]: x for x in finished.summary["findings"]}
    ours = findings[f"spring: energy MSE, {HAMILTONIAN}"]
    assert ours["published"] == 3.8e-4
    assert ours["value"] < 0.05
    assert findings[f"spring: energy MSE, {PLAIN} by {HAMILTONIAN}"]["value"] > 10
    for kind in KINDS:
        # What is left is the noise: 0.1 on the state is 0.2 on the derivative.
        assert 0.02 < findings[f"spring: test loss, {kind}"]["value"] < 0.1
        assert findings[f"spring: drift over 1 periods, {kind}"]["value"] >= 0
    table = pd.read_csv(finished.path / "predictions.csv")
    assert list(table.columns) == ["task", "model", "t", "q", "p"]
    assert table["model"].unique().tolist() == ["true", *KINDS]
    true = table[table["model"] == "true"]
    torch.testing.assert_close(
        torch.tensor(true["q"].to_numpy()),
        (2 * torch.tensor(true["t"].to_numpy())).cos(),
        rtol=0,
        atol=1e-5,
    )
    shown = [figure["file"] for figure in finished.summary["figures"]]
    assert {"figures/spring_energy.png", "figures/spring_hamiltonian_portrait.png"} <= set(shown)
    assert all((finished.path / file).is_file() for file in shown)
    lines = (finished.path / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["part"] for line in lines} == {f"spring, {kind}" for kind in KINDS}


def test_two_bodies_are_drawn_in_their_plane(tmp_path):
    settings = ["task=two-body", "hidden=8", "effort=0.002", "n_trajectories=4", "n_tests=2"]
    options = read_options(EXPERIMENT, [*settings, "n_periods=1"])
    finished = EXPERIMENT.run(options, Setting(out=tmp_path / "run", quiet=True))
    shown = [figure["file"] for figure in finished.summary["figures"]]
    assert "figures/two-body_orbits.png" in shown
    assert len(pd.read_csv(finished.path / "predictions.csv").columns) == 3 + 8


def test_options_that_make_no_sense_are_refused():
    for wrong, message in (
        ({"effort": 0.0}, "effort is 0.0: give a number above 0"),
        ({"n_tests": 0}, "n_tests is 0: give at least 1"),
        ({"hidden": ()}, "give widths of at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
    ):
        with pytest.raises(InputError, match=message):
            HamiltonianOptions(**wrong)
    with pytest.raises(InputError, match="did you mean 'spring'"):
        read_options(EXPERIMENT, ["task=sprin"])
