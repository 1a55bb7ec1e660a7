"""Data: trajectories from files, and sampled from systems reproducibly from a seed."""

from odeum.datasets.mnist import Digits, mnist
from odeum.datasets.sampling import sample
from odeum.datasets.spirals import Spirals, spirals
from odeum.datasets.tables import read
from odeum.datasets.toy_densities import toy_log_density
from odeum.datasets.toys import TOYS, toy
from odeum.datasets.trajectories import Trajectories, Trajectory

__all__ = [
    "TOYS",
    "Digits",
    "Spirals",
    "Trajectories",
    "Trajectory",
    "mnist",
    "read",
    "sample",
    "spirals",
    "toy",
    "toy_log_density",
]
