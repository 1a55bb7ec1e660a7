"""Pictures of solutions, vector fields and training, each drawn on one Axes or returned as several.

Every function takes ``ax=None`` (a new figure) and returns what it drew on. Importing this module
or calling it never changes matplotlib's global settings. It must not know about run directories
or models.
"""

from odeum.plots.bars import bars
from odeum.plots.classification import class_regions, depth_animation, depth_trajectories
from odeum.plots.densities import density_panels
from odeum.plots.distributions import distributions
from odeum.plots.fixed_points import FixedPoint, find_fixed_points
from odeum.plots.landscape import landscape_1d, landscape_2d
from odeum.plots.matrices import matrix_comparison
from odeum.plots.panels import panels
from odeum.plots.phase import phase_portrait, vector_field
from odeum.plots.style import save
from odeum.plots.time import state_space, trajectories, trajectory_panels
from odeum.plots.training import loss_curve, losses
from odeum.plots.work import evaluations, relation

__all__ = [
    "FixedPoint",
    "bars",
    "class_regions",
    "density_panels",
    "depth_animation",
    "depth_trajectories",
    "distributions",
    "evaluations",
    "find_fixed_points",
    "landscape_1d",
    "landscape_2d",
    "loss_curve",
    "losses",
    "matrix_comparison",
    "panels",
    "phase_portrait",
    "relation",
    "save",
    "state_space",
    "trajectories",
    "trajectory_panels",
    "vector_field",
]
