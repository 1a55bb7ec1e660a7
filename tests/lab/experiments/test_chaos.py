"""How forecasts and long runs are judged, against hand-made ones and known distributions."""

import math

import pytest
import torch

from odeum.lab.experiments.chaos import (
    distances,
    forecast_error,
    maxima,
    return_map,
    valid_times,
)


def test_errors_are_in_units_of_the_spread():
    true = torch.randn(4, 5, 3)
    spread = torch.tensor([1.0, 2.0, 4.0])
    error = forecast_error(true + spread * torch.tensor([1.0, -2.0, 2.0]), true, spread)
    torch.testing.assert_close(error, torch.full((4, 5), math.sqrt(3.0)))


def test_a_forecast_is_valid_until_it_is_first_off():
    ts = torch.tensor([0.0, 1.0, 2.0, 3.0])
    error = torch.tensor(
        [
            [0.0, 0.0, 0.0, 0.0],
            [0.5, 0.1, math.nan, 0.4],
            [0.1, 0.5, 0.1, 0.4],
            [0.1, 0.1, 0.1, 0.4],
        ]
    )
    assert valid_times(error, ts, 0.4).tolist() == [1.0, 2.0, 1.0, 3.0]


def test_an_error_that_grows_exponentially_is_valid_for_its_logarithm():
    rate, ts = 0.9056, torch.linspace(0, 14, 1401)
    error = 1e-3 * (rate * ts).exp()[:, None]
    assert rate * float(valid_times(error, ts, 0.4)) == pytest.approx(math.log(400), abs=0.02)


def test_distances_of_shifted_and_stretched_normals():
    x = torch.distributions.Normal(0, 1).icdf(torch.linspace(0.0005, 0.9995, 1000))[:, None]
    spread = torch.tensor([2.0])
    assert float(distances(x + 1, x, spread)) == pytest.approx(0.5, rel=1e-6)
    # Of normal numbers: the mean of |x| is sqrt(2 / pi).
    stretched = float(distances(3 * x, x, spread))
    assert stretched == pytest.approx(math.sqrt(2 / math.pi), rel=5e-3)
    assert float(distances(x.flip(0), x, spread)) == 0.0


def test_maxima_are_found_between_samples():
    t = torch.linspace(0, 20, 401)
    values = torch.stack([(t + 0.013).sin() + 2, -(t.cos()) * 0.5], dim=1)
    first, second = maxima(values)
    assert len(first) == len(second) == 3
    torch.testing.assert_close(first, torch.full((3,), 3.0), rtol=0, atol=1e-5)
    torch.testing.assert_close(second, torch.full((3,), 0.5), rtol=0, atol=1e-5)


def test_a_return_map_pairs_maxima_of_one_row():
    t = torch.linspace(0, 20, 801)
    falling = (-0.1 * t).exp() * t.sin()
    this, following = return_map(torch.stack([falling, 2 * falling], dim=1))
    assert len(this) == 4
    ratio = torch.tensor(following / this)
    torch.testing.assert_close(ratio, torch.full((4,), math.exp(-0.2 * math.pi)), rtol=1e-4, atol=0)
