"""Neural differential equations in PyTorch: solve them, differentiate them, learn them, see them."""

from odeum import control, methods
from odeum.api import solve
from odeum.errors import DataError, InputError, SolveError, TraceError
from odeum.solution import Solution, Stats, Status
from odeum.solve.field import per_row
from odeum.solve.options import StepOptions

__all__ = [
    "DataError",
    "InputError",
    "Solution",
    "SolveError",
    "Stats",
    "Status",
    "StepOptions",
    "TraceError",
    "control",
    "methods",
    "per_row",
    "solve",
]
