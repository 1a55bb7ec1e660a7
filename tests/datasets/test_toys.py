"""Toy densities: reproducible, in their places."""

import math

import pytest
import torch

from odeum.datasets import TOYS, toy
from odeum.errors import InputError


@pytest.mark.parametrize("name", TOYS)
def test_one_seed_gives_one_set_of_points(name):
    points, labels = toy(name, 203, seed=5)
    again, labels_again = toy(name, 203, seed=5)
    other, _ = toy(name, 203, seed=6)
    assert points.shape == (203, 2)
    assert points.dtype == torch.get_default_dtype()
    assert torch.equal(points, again)
    assert torch.equal(labels, labels_again)
    assert not torch.equal(points, other)
    assert points.abs().max() < 5


@pytest.mark.parametrize("name", TOYS)
def test_parts_are_equally_frequent_and_in_random_order(name):
    parts = TOYS[name].parts
    _, labels = toy(name, 16 * parts + 1)
    counts = labels.bincount(minlength=parts)
    assert len(counts) == parts
    assert counts.max() - counts.min() <= 1
    if parts > 1:
        assert not torch.equal(labels, labels.sort().values)


def test_noise_is_what_is_asked_for():
    points, labels = toy("circles", 4000, noise=0.05)
    radii = torch.where(labels == 0, 3.0, 1.5)
    assert float((points.norm(dim=-1) - radii).std()) == pytest.approx(0.05, rel=0.05)
    exact, _ = toy("eight_gaussians", 80, noise=0.0)
    assert torch.allclose(exact.norm(dim=-1), torch.full((80,), 4 / 1.414))


def test_without_noise_moons_are_half_circles():
    points, labels = toy("moons", 1000, noise=0.0)
    upper, lower = (points[labels == i] for i in (0, 1))
    centres = torch.tensor([[-1.0, -0.2], [1.0, 0.8]])
    for moon, centre, side in ((upper, centres[0], 1), (lower, centres[1], -1)):
        assert torch.allclose((moon - centre).norm(dim=-1), torch.tensor(2.0))
        assert (side * (moon - centre)[:, 1] >= 0).all()


def test_checkerboard_has_every_other_field():
    points, labels = toy("checkerboard", 8000)
    fields = (points / 2).floor().long()
    assert len(fields.unique(dim=0)) == 8
    assert (fields.sum(-1) % 2 == 0).all()
    assert all(len(fields[labels == i].unique(dim=0)) == 1 for i in range(8))


def test_arms_of_the_pinwheel_are_alike_but_for_a_fifth_of_a_turn():
    labels, u = torch.arange(5), torch.rand(1, 2).expand(5, 2)
    arms = torch.view_as_complex(TOYS["pinwheel"].shape(labels, u))
    turns = torch.polar(torch.ones(5), -2 * math.pi / 5 * labels)
    torch.testing.assert_close(arms, arms[0] * turns)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("moon", 10), "did you mean 'moons'"),
        (("moons", 0), "at least 1 point"),
        (("moons", 10, 0, -1.0), "standard deviation"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, says):
    with pytest.raises(InputError, match=says):
        toy(*arguments)
