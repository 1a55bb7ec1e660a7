"""Curves that cross: the families, the least error of a first-order equation, a short run."""

import math

import pandas as pd
import pytest
import torch

from odeum.errors import InputError
from odeum.lab.experiments.second_order import (
    FAMILIES,
    Curves,
    SecondOrderOptions,
    _curves,
    least_first_order_error,
    run_second_order,
)
from odeum.lab.registry import Setting

EQUATIONS = {
    "x to −x": lambda y, v: -y,
    "sine waves": lambda y, v: -4 * y,
    "damped oscillations": lambda y, v: -(9 + 0.25**2) * y - 0.5 * v,
}
STARTS = {
    "x to −x": lambda y0: 0 * y0,
    "sine waves": lambda y0: (2 * y0).cos() - y0,
    "damped oscillations": lambda y0: 1.5 + 0 * y0,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_solves_a_second_order_equation(family):
    y0 = torch.linspace(-1, 1, 5)[:, None]
    t = torch.linspace(0, 3, 7)[:, None, None]

    def derivative(order):
        step = 1e-3
        before, here, after = (FAMILIES[family](y0, t + k * step) for k in (-1, 0, 1))
        if order == 1:
            return (after - before) / (2 * step)
        return (after - 2 * here + before) / step**2

    y, v = FAMILIES[family](y0, t), derivative(1)
    torch.testing.assert_close(y[0], y0)
    torch.testing.assert_close(v[0], STARTS[family](y0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(derivative(2), EQUATIONS[family](y, v), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_curves_held_out_lie_between_those_learned_from(family):
    known, held_out = _curves(family, SecondOrderOptions(n_curves=4, n_times=5))
    assert known.positions.shape == (5, 4, 1)
    assert held_out.positions.shape == (5, 3, 1)
    torch.testing.assert_close((known.y0[1:] + known.y0[:-1]) / 2, held_out.y0)
    assert least_first_order_error(held_out) > 0.02


def test_the_least_error_is_that_of_the_best_order_preserving_curve():
    """Against a search over all ways to split the starts into blocks of equal values."""
    generator = torch.Generator().manual_seed(3)
    y = torch.randn(2, 6, generator=generator)
    y0 = torch.arange(6.0)[:, None]

    def best(row):
        least = math.inf
        for mask in range(2**5):
            ends = [i + 1 for i in range(5) if mask >> i & 1] + [6]
            blocks = [row[a:b] for a, b in zip([0, *ends], ends, strict=False)]
            means = [float(block.mean()) for block in blocks]
            if means == sorted(means):
                least = min(least, sum(float((b - b.mean()).square().sum()) for b in blocks))
        return least

    expected = math.sqrt(sum(map(best, y)) / 12)
    found = least_first_order_error(Curves(y0, torch.arange(2.0), y[..., None]))
    assert found == pytest.approx(expected, rel=1e-12)
    increasing = Curves(y0, torch.zeros(1), y0[None] ** 3)
    assert least_first_order_error(increasing) == 0.0


def test_a_short_run_says_what_it_found(tmp_path):
    options = SecondOrderOptions(n_curves=4, n_times=3, n_steps=8, hidden=(4,))
    study = run_second_order(options, Setting(tmp_path / "run", quiet=True))
    result, findings = study.summary["result"], study.summary["findings"]
    table = pd.read_csv(study.path / "predictions.csv")
    assert len(table) == 3 * 3 * 3
    for family in FAMILIES:
        rows = table[table["family"] == family]
        for kind in ("first order", "second order"):
            rmse = math.sqrt(((rows[kind] - rows["y"]) ** 2).mean())
            assert result[f"{family}, {kind}"] == pytest.approx(rmse, rel=1e-9)
        # Whatever it has learned, it cannot be better than the best.
        least = result[f"{family}, least of first order"]
        assert result[f"{family}, first order"] >= least
    targets = [finding["target"] for finding in findings[:3]]
    assert targets == [result[f"{family}, least of first order"] for family in FAMILIES]
    figures = {figure["file"] for figure in study.summary["figures"]}
    assert len(figures) == 4
    assert all((study.path / file).is_file() for file in figures)
    assert (study.path / "report.html").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_curves": 1}, "n_curves is 1"),
        ({"n_steps": 0}, "n_steps is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"hidden": (4, 0)}, "hidden is"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        SecondOrderOptions(**changes)
