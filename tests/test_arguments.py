"""Arguments of a solve that are allowed, and yet not meant as they are given."""

import math

import pytest
import torch

import odeum

TS = torch.tensor([0.0, 3.0])


def decay(t, y):
    return -y


@pytest.mark.parametrize("method", ["tsit5", "dopri8", "rodas5p", "kvaerno5"])
@pytest.mark.parametrize("rtol", [1e-13, torch.tensor([1e-13, 1e-4])], ids=["number", "tensor"])
def test_a_tolerance_finer_than_rounding_is_said_once_and_met_as_well_as_can_be(method, rtol):
    """Without that, steps shrink until there are too many of them."""
    y0 = torch.ones(1, 2, dtype=torch.float32)
    step = odeum.StepOptions(max_steps=2000)
    with pytest.warns(UserWarning, match="rtol = 1e-13 .* float32 .* 6e-08; .* float64") as warned:
        sol = odeum.solve(decay, y0, TS, method=method, rtol=rtol, atol=0.0, step=step)
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert sol.ys[-1, 0, 0] == pytest.approx(math.exp(-3), rel=1e-5)


@pytest.mark.parametrize("rtol", [1e-6, 1e-7, torch.tensor([1e-6, 1e-7])])
def test_tolerances_that_single_precision_meets_are_left_alone(rtol):
    """1e-7 is what torchdiffeq takes where none is given. Warnings are errors here."""
    odeum.solve(decay, torch.ones(1, 2, dtype=torch.float32), TS, rtol=rtol, atol=1e-9)


def test_double_precision_is_not_said_to_round():
    sol = odeum.solve(decay, torch.ones(1, 1), TS, method="dopri8", rtol=1e-13, atol=0.0)
    assert sol.ys[-1].item() == pytest.approx(math.exp(-3), rel=1e-12)
