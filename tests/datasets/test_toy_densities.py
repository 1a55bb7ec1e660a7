"""The densities of toys hold all mass, have the entropies told, and are what is drawn from."""

import math

import pytest
import torch

from odeum.datasets import TOYS, toy, toy_log_density
from odeum.errors import InputError

GRIDS = {
    "eight_gaussians": (5.0, 0.1),
    "moons": (4.5, 0.1),
    "circles": (4.5, 0.1),
    "swissroll": (4.5, 0.1),
    "checkerboard": (5.0, 0.25),
    "pinwheel": (6.0, 0.08),
    "rings": (3.6, 0.064),
    "two_spirals": (4.2, 0.08),
}
"""Half the width of a square that holds all but a millionth, and the width of a cell."""

FINE = [
    pytest.param(name, marks=pytest.mark.slow) if name == "two_spirals" else name for name in GRIDS
]


@pytest.mark.parametrize("name", FINE)
def test_mass_is_one_and_entropy_is_told(name):
    half, cell = GRIDS[name]
    axis = torch.arange(-half + cell / 2, half, cell)
    density = toy_log_density(name, torch.cartesian_prod(axis, axis)).exp()
    assert float(density.sum() * cell**2) == pytest.approx(1, abs=2e-5)
    entropy = -torch.special.xlogy(density, density).sum() * cell**2
    assert float(entropy) == pytest.approx(TOYS[name].entropy, abs=2e-4)


@pytest.mark.parametrize("name", TOYS)
def test_points_are_drawn_from_the_density(name):
    surprise = -toy_log_density(name, toy(name, 1000, seed=1)[0])
    allowed = 4 * float(surprise.std()) / math.sqrt(len(surprise)) + 1e-3
    assert float(surprise.mean()) == pytest.approx(TOYS[name].entropy, abs=allowed)


def test_what_has_no_density_is_refused():
    with pytest.raises(InputError, match="did you mean 'rings'"):
        toy_log_density("ring", torch.zeros(1, 2))
    with pytest.raises(InputError, match="points of the plane"):
        toy_log_density("rings", torch.zeros(2))
