import math

import pytest
import torch

from odeum.datasets import spirals
from odeum.errors import InputError


def test_half_turn_clockwise_and_all_lie_on_archimedean_spirals():
    data = spirals(40, noise=0.0)
    assert int(data.clockwise.sum()) == 20
    assert data.ys.shape == (100, 40, 2)
    torch.testing.assert_close(data.ts, torch.arange(100) * 6 * math.pi / 499)
    centre = torch.tensor([5.0, 0.0])
    for way, side in ((True, -centre), (False, centre)):
        arm = data.ys[:, data.clockwise == way] - side
        angle = torch.atan2(arm[..., 1], arm[..., 0])
        turned = torch.remainder(angle.diff(dim=0) + math.pi, 2 * math.pi) - math.pi
        step = data.ts[1]
        torch.testing.assert_close(turned, torch.full_like(turned, -step if way else step))
        radius = arm.norm(dim=-1)
        # Radius 0.3 t, and 15 / s with s falling by one per unit of time.
        grown = radius.diff(dim=0) if not way else -(15 / radius).diff(dim=0)
        rate = step if way else 0.3 * step
        torch.testing.assert_close(grown, torch.full_like(grown, rate), rtol=1e-6, atol=1e-9)


def test_pieces_start_on_the_grid_with_room_before_them():
    data = spirals(500)
    places = data.t0 / data.ts[1]
    torch.testing.assert_close(places, places.round(), rtol=0, atol=1e-9)
    assert places.min() >= 100 - 1e-9
    assert places.max() <= 399 + 1e-9
    assert len(places.round().unique()) > 200


def test_noise_is_gaussian_of_the_size_asked_for():
    data = spirals(500, noise=0.3)
    noise = (data.ys - data.truth(data.ts)) / 0.3
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.01
    assert abs((noise**4).mean() - 3) < 0.1


def test_the_truth_goes_on_where_the_curve_does():
    data = spirals(300)
    beyond = torch.linspace(0, 3, 200) * data.ts[-1] - data.ts[-1]
    truth = data.truth(beyond)
    inside = (data.t0 + beyond[:, None] <= 6 * math.pi + 1e-6) & (
        data.t0 + beyond[:, None] >= -1e-6
    )
    assert torch.equal(~torch.isnan(truth).any(-1), inside)
    assert inside.any(0).all()
    assert not inside.all()


def test_one_seed_one_data_set():
    first, again, other = spirals(20, seed=1), spirals(20, seed=1), spirals(20, seed=2)
    assert torch.equal(first.ys, again.ys)
    assert not torch.equal(first.ys, other.ys)
    assert torch.equal(first.observe(30, seed=3)[0], again.observe(30, seed=3)[0])
    assert not torch.equal(first.observe(30, seed=3)[0], first.observe(30, seed=4)[0])
    quiet = spirals(20, seed=1, noise=0.0)
    torch.testing.assert_close(quiet.ys, first.truth(first.ts))


def test_times_are_chosen_without_replacement():
    data = spirals(200)
    counts = torch.zeros(100, dtype=torch.long)
    for n_observed in (1, 30, 100):
        ts, ys = data.observe(n_observed)
        assert (ts.diff(dim=0) > 0).all()
        places = (ts / data.ts[1]).round().long()
        assert torch.equal(data.ts[places], ts)
        assert torch.equal(data.ys[places, torch.arange(200)], ys)
        counts += places.flatten().bincount(minlength=100)
    assert (counts - 200 - 61).abs().max() < 30


def test_rows_are_parts():
    data = spirals(10)
    part = data.rows(slice(2, 5))
    assert len(part) == 3
    torch.testing.assert_close(part.truth(data.ts), data.truth(data.ts)[:, 2:5])


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n_times": 251}, {"n_times": 0}, {"noise": -1.0}])
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(InputError, match="give at least 1 spiral"):
        spirals(**wrong)
    with pytest.raises(InputError, match="n_observed is 101"):
        spirals(2).observe(101)
