import math

import numpy as np
import pytest
import torch

from odeum.datasets import Trajectories, Trajectory
from odeum.lab import baselines
from odeum.lab.scores import score, scored_rows

NAN = float("nan")


def one(y):
    y = torch.tensor(y)
    return Trajectories((Trajectory("a", torch.arange(len(y)).double(), y),), "t", ("x", "y"))


def test_scores_are_of_observed_cells_in_their_own_units():
    data = one([[1.0, 10.0], [2.0, NAN], [4.0, 40.0], [5.0, 20.0]])
    predicted = torch.tensor([[9.0, 9.0], [2.5, 7.0], [4.0, 30.0], [4.0, 20.0]])
    rows = torch.tensor([False, True, True, True])
    scores = score(data, [predicted], [rows])
    errors = np.array([0.5, 0.0, -1.0])
    observed = np.array([2.0, 4.0, 5.0])
    assert scores["x"]["rmse"] == pytest.approx(math.sqrt((errors**2).mean()))
    assert scores["x"]["r2"] == pytest.approx(1 - (errors**2).sum() / (observed.var() * 3))
    assert scores["y"] == {"rmse": pytest.approx(math.sqrt(50)), "r2": pytest.approx(0.5)}


def test_what_cannot_be_scored_is_nan():
    data = one([[1.0, NAN], [2.0, NAN], [3.0, NAN]])
    runaway = torch.tensor([[1.0, 1.0], [NAN, 1.0], [1.0, 1.0]])
    scores = score(data, [runaway], [torch.ones(3, dtype=torch.bool)])
    assert all(math.isnan(value) for state in scores.values() for value in state.values())


def test_the_start_is_not_scored():
    data = one([[NAN, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0], [5.0, 5.0]])
    in_sample, held_out = scored_rows(data.split(0.4)[0], data)
    assert in_sample[0].tolist() == [False, False, True, False, False]
    assert held_out[0].tolist() == [False, False, False, True, True]


def test_last_value_steps_over_empty_cells_and_stays_on_the_tail():
    data = one([[1.0, 5.0], [NAN, 6.0], [3.0, 7.0], [4.0, 8.0], [5.0, 9.0]])
    (predicted,) = baselines.last_value(data.split(0.4)[0], data)
    expected = torch.tensor([[NAN, NAN], [1.0, 5.0], [1.0, 6.0], [3.0, 7.0], [3.0, 7.0]])
    torch.testing.assert_close(predicted, expected, equal_nan=True)


def test_linear_ode_recovers_an_exact_one(exact_linear):
    data, matrix, centre = exact_linear
    predictions, slope, constant = baselines.linear_ode(data.split(0.3)[0], data)
    torch.testing.assert_close(slope, matrix, rtol=0, atol=1e-5)
    torch.testing.assert_close(constant, -matrix @ centre, rtol=0, atol=1e-4)
    for predicted, trajectory in zip(predictions, data, strict=True):
        torch.testing.assert_close(predicted, trajectory.y, rtol=0, atol=1e-4)


def test_linear_ode_does_without_empty_cells(holed, exact_linear):
    data, matrix, _ = exact_linear
    predictions, slope, _ = baselines.linear_ode(holed.split(0.3)[0], holed)
    torch.testing.assert_close(slope, matrix, rtol=0, atol=1e-5)
    assert torch.isnan(predictions[0][0]).all()
    torch.testing.assert_close(predictions[0][1:], data.trajectories[0].y[1:], rtol=0, atol=1e-4)


def test_linear_ode_of_many_states_keeps_the_matched_integrals():
    """Above six states only the trapezoid rule is fitted: second order in the gap."""
    t = torch.linspace(0, 2, 41)
    rates = -torch.linspace(0.2, 1.0, 7)
    y = torch.exp(rates * t[:, None]) * torch.linspace(1, 2, 7)
    data = Trajectories((Trajectory("a", t, y),), "t", tuple("abcdefg"))
    predicted = baselines.linear_ode(data, data)[0][0]
    torch.testing.assert_close(predicted, y, rtol=0, atol=1e-2)


def test_linear_ode_of_states_that_stand_still():
    data = one([[1.0, 2.0]] * 5)
    (predicted,), slope, _ = baselines.linear_ode(data.split(0.2)[0], data)
    torch.testing.assert_close(predicted, data.trajectories[0].y)
    assert torch.isfinite(slope).all()
