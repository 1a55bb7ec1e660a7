"""Pictures of solutions, vector fields and training, each drawn on one Axes or returned as several.

Every function takes ``ax=None`` (a new figure) and returns what it drew on. Importing this module
or calling it never changes matplotlib's global settings. It must not know about run directories
or models.
"""

from odeum.plots.fixed_points import FixedPoint, find_fixed_points
from odeum.plots.landscape import landscape_1d, landscape_2d
from odeum.plots.matrices import matrix_comparison
from odeum.plots.phase import phase_portrait, vector_field
from odeum.plots.style import save
from odeum.plots.time import state_space, trajectories, trajectory_panels
from odeum.plots.training import loss_curve, losses

__all__ = [
    "FixedPoint",
    "find_fixed_points",
    "landscape_1d",
    "landscape_2d",
    "loss_curve",
    "losses",
    "matrix_comparison",
    "phase_portrait",
    "save",
    "state_space",
    "trajectories",
    "trajectory_panels",
    "vector_field",
]
