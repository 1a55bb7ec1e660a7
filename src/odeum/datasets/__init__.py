"""Data: trajectories from files, and sampled from systems reproducibly from a seed."""

from odeum.datasets.sampling import sample
from odeum.datasets.tables import read
from odeum.datasets.toys import TOYS, toy
from odeum.datasets.trajectories import Trajectories, Trajectory

__all__ = ["TOYS", "Trajectories", "Trajectory", "read", "sample", "toy"]
