import json

import pandas as pd
import pytest
import torch

from odeum.errors import InputError
from odeum.lab.experiments import find
from odeum.lab.experiments.phase_portraits import (
    PHASE_PORTRAITS,
    PortraitOptions,
    largest_change,
    portraits,
    run_phase_portraits,
    solved,
)
from odeum.lab.registry import Setting
from odeum.systems import pendulum


@pytest.mark.parametrize("method", ["Euler", "RK4"])
def test_energy_of_small_swings_grows_as_the_stability_function_says(method):
    """Of the linear oscillator, each step multiplies energy by abs(R(i h omega))^2."""
    h, n_steps = 0.2, 20
    z = torch.tensor(1j) * h * 9.81**0.5
    amplification = {
        "Euler": 1 + z,
        "RK4": 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24,
    }[method]
    swing = portraits(1)[1]
    y0 = torch.tensor([[1e-5, 0.0]])
    ys = solved(pendulum(), y0, h * torch.arange(n_steps + 1), method, h)
    energy = swing.conserved(ys)[:, 0]
    assert float(energy[-1] / energy[0]) == pytest.approx(
        float(amplification.abs() ** (2 * n_steps)), rel=1e-4
    )


def test_the_reference_conserves_and_starts_lie_on_closed_orbits():
    for portrait in portraits(4):
        assert float(portrait.system(0.0, portrait.rest).abs().max()) == 0.0
        ts = torch.linspace(0, 10, 51)
        ys = solved(portrait.system, portrait.starts, ts, "reference", 0.2)
        kept = portrait.conserved(ys)
        assert (kept[0].diff() > 0).all()
        assert largest_change(kept) < 1e-7


def test_a_run_measures_and_draws(tmp_path):
    options = PortraitOptions(t1=4.0, n_starts=3)
    run_phase_portraits(options, Setting(tmp_path / "run", quiet=True))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    measured = {finding["what"]: finding["value"] for finding in summary["findings"]}
    assert len(measured) == 6
    for title in ("Predator and prey", "The pendulum"):
        euler, rk4, reference = (
            measured[f"{title}, {method}: change of what is conserved"]
            for method in ("Euler", "RK4", "reference")
        )
        assert euler > 100 > 5 > rk4 > 1e3 * reference > 0
    table = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert len(table) == 2 * 3 * 3 * 21
    assert len(summary["figures"]) == 8
    for figure in summary["figures"]:
        assert (tmp_path / "run" / figure["file"]).stat().st_size > 5000


@pytest.mark.parametrize(
    ("given", "message"),
    [({"h": 0.0}, "h is 0"), ({"t1": 0.5}, "t1 0.5"), ({"n_starts": 0}, "n_starts is 0")],
)
def test_options_that_make_no_sense_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        PortraitOptions(**given)


def test_it_is_known_by_its_name():
    assert find("phase-portraits") is PHASE_PORTRAITS
