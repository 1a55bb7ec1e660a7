"""Sampled trajectories against exact solutions and the statistics they promise."""

import math

import pytest
import torch
from scipy import stats

from odeum import systems
from odeum.datasets import sample
from odeum.errors import InputError


def same(one, other):
    return all(
        torch.equal(a.t, b.t) and torch.equal(a.y.nan_to_num(1e9), b.y.nan_to_num(1e9))
        for a, b in zip(one, other, strict=True)
    )


def test_without_imperfections_it_is_the_solution():
    spiral = systems.spiral()
    data = sample(spiral, n_trajectories=3, n_times=20)
    assert (data.time_name, data.group_name, data.source) == ("t", "trajectory", "spiral")
    assert data.state_names == spiral.state_names
    assert [item.name for item in data] == ["1", "2", "3"]
    for item in data:
        assert torch.equal(item.t, torch.linspace(0, 25, 20, dtype=torch.float64))
        assert item.y.dtype == torch.float64
        torch.testing.assert_close(item.y, spiral.exact(item.t, item.y[0]), rtol=0, atol=1e-6)
    assert data.trajectories[0].y[0].tolist() == list(spiral.y0)


def test_irregular_times_are_each_trajectorys_own_and_the_states_hold_there():
    spiral = systems.spiral()
    data = sample(spiral, n_trajectories=3, n_times=200, irregular=True)
    for item in data:
        assert (item.t[0], item.t[-1]) == spiral.span
        gaps = item.t.diff()
        assert gaps.min() > 0
        assert gaps.std() > 0.5 * gaps.mean()
        assert stats.kstest(item.t[1:-1].numpy() / 25, "uniform").pvalue > 0.01
        torch.testing.assert_close(item.y, spiral.exact(item.t, item.y[0]), rtol=0, atol=1e-6)
    assert not torch.equal(data.trajectories[0].t, data.trajectories[1].t)


def test_a_single_trajectory_bears_the_name_of_its_system():
    data = sample(systems.van_der_pol(), n_times=5)
    assert (len(data), data.group_name, data.trajectories[0].name) == (1, None, "van_der_pol")
    assert list(data.to_frame().columns) == ["t", "x", "v"]


def test_noise_is_gaussian_of_the_given_size():
    clean = sample(systems.spiral(), n_times=2000)
    for noise, expected in ((0.3, [0.3, 0.3]), ((0.1, 0.0), [0.1, 0.0])):
        noisy = sample(systems.spiral(), n_times=2000, noise=noise)
        rest = noisy.trajectories[0].y - clean.trajectories[0].y
        for column, deviation in zip(rest.unbind(-1), expected, strict=True):
            assert column.std().item() == pytest.approx(deviation, rel=0.06)
            assert abs(column.mean().item()) <= 4 * deviation / math.sqrt(2000)
            if deviation:
                assert stats.kstest(column.numpy() / deviation, "norm").pvalue > 0.01


def test_missing_cells_come_at_the_given_rate_and_never_in_the_first_row():
    data = sample(systems.spiral(), n_trajectories=4, n_times=500, missing=0.25)
    n_cells = 4 * 500 * 2
    assert 1 - data.n_observed / n_cells == pytest.approx(0.25, abs=0.03)
    assert all(item.complete[0] for item in data)
    halves = [torch.isnan(item.y).sum(0) for item in data]
    assert (torch.stack(halves) > 80).all()


def test_starts_are_spread_within_the_fraction_of_their_size():
    data = sample(systems.pendulum(), n_trajectories=200, n_times=2, spread=0.5)
    starts = torch.stack([item.y[0] for item in data])
    centre = torch.tensor([1.5, 0.0], dtype=torch.float64)
    offsets = (starts - centre) / (0.5 * 1.5)
    assert offsets[0].tolist() == [0, 0]
    assert offsets.abs().max() <= 1
    for column in offsets[1:].unbind(-1):
        assert stats.kstest(column.numpy(), "uniform", (-1, 2)).pvalue > 0.01
    populations = sample(systems.lotka_volterra(), n_trajectories=50, n_times=2, spread=0.99)
    assert all((item.y > 0).all() for item in populations)


def test_own_starts_and_times():
    y0 = [[1.0, 0.0], [0.0, 3.0]]
    data = sample(systems.spiral(), y0=y0, ts=[0.0, 0.5, 2.0])
    assert [item.y[0].tolist() for item in data] == y0
    assert [item.t.tolist() for item in data] == [[0.0, 0.5, 2.0]] * 2
    shifted = sample(systems.spiral(), y0=[1.0, 0.0], ts=[10.0, 12.0])
    expected = 2.718281828459045**-0.2 * torch.tensor([math.cos(2), math.sin(2)]).double()
    torch.testing.assert_close(shifted.trajectories[0].y[1], expected, rtol=1e-6, atol=1e-6)


def test_any_field_can_be_sampled():
    data = sample(lambda t, y: -t * y, y0=[1.0, 2.0, 3.0], ts=[0.0, 1.0], n_trajectories=2)
    assert data.state_names == ("y0", "y1", "y2")
    for item in data:
        torch.testing.assert_close(item.y[1], math.exp(-0.5) * item.y[0], rtol=1e-6, atol=0)


def test_arguments_reach_the_field():
    replaced = sample(systems.van_der_pol(), n_times=5, args={"mu": 3.0})
    assert same(replaced, sample(systems.van_der_pol(mu=3.0), n_times=5))
    assert not same(replaced, sample(systems.van_der_pol(), n_times=5))


@pytest.fixture
def everything():
    return {"n_trajectories": 3, "n_times": 10, "noise": 0.1, "irregular": True, "missing": 0.2}


def test_one_seed_gives_one_data_set_and_leaves_the_global_generator_alone(everything):
    torch.manual_seed(5)
    first = sample(systems.spiral(), **everything, seed=3)
    drawn = torch.rand(2)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(2), drawn)
    assert same(first, sample(systems.spiral(), **everything, seed=3))
    assert not same(first, sample(systems.spiral(), **everything, seed=4))


def test_turning_one_imperfection_on_leaves_the_others_as_they_were(everything):
    full = sample(systems.spiral(), **everything)
    whole = sample(systems.spiral(), **{**everything, "missing": 0.0})
    for a, b in zip(full, whole, strict=True):
        seen = ~torch.isnan(a.y)
        assert torch.equal(a.y[seen], b.y[seen])
    even = sample(systems.spiral(), **{**everything, "irregular": False})
    for a, b in zip(full, even, strict=True):
        assert torch.equal(torch.isnan(a.y), torch.isnan(b.y))
        assert torch.equal(a.y[0], b.y[0])


def field(t, y):
    return -y


@pytest.mark.parametrize(
    ("system", "options", "message"),
    [
        (field, {"ts": [0.0, 1.0]}, "no default y0"),
        (field, {"y0": [1.0]}, "no default span"),
        (systems.spiral(), {"missing": 1.0}, "missing must be at least 0 and less than 1, got 1"),
        (systems.spiral(), {"spread": -0.1}, "spread must be at least 0"),
        (systems.spiral(), {"noise": -1.0}, "noise must be one number >= 0 or one for each of 2"),
        (systems.spiral(), {"noise": (1, 1, 1)}, "one for each of 2 states"),
        (systems.spiral(), {"n_trajectories": 0}, "n_trajectories must be at least 1, got 0"),
        (systems.spiral(), {"n_times": 1}, "n_times must be at least 2, got 1"),
        (systems.spiral(), {"ts": [0.0, 0.0]}, "strictly increasing"),
        (systems.spiral(), {"ts": [1.0, 0.0]}, "strictly increasing"),
        (systems.spiral(), {"ts": [1.0]}, "at least 2"),
        (systems.spiral(), {"y0": 1.0}, r"y0 must be \[dim\]"),
        (systems.spiral(), {"y0": [[1.0, 1.0]] * 2, "n_trajectories": 3}, r"shape \[2, 2\]"),
    ],
)
def test_wrong_arguments_are_refused(system, options, message):
    with pytest.raises(InputError, match=message):
        sample(system, **options)
