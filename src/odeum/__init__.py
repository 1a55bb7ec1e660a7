"""Neural differential equations in PyTorch: solve, differentiate, learn and see them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from odeum import control, methods, systems
from odeum.api import solve
from odeum.errors import DataError, InputError, SolveError, TraceError
from odeum.models import NeuralODE
from odeum.solution import Solution, Stats, Status
from odeum.solve.field import per_row
from odeum.solve.options import StepOptions

if TYPE_CHECKING:
    from odeum import datasets, lab, models, plots
    from odeum.lab import Run, fit

_LOADED_WHEN_USED = {
    "Run": "odeum.lab",
    "fit": "odeum.lab",
    "datasets": None,
    "lab": None,
    "models": None,
    "plots": None,
}
"""Names whose modules need pandas or matplotlib, with the module that holds them."""

__all__ = [
    "DataError",
    "InputError",
    "NeuralODE",
    "Run",
    "Solution",
    "SolveError",
    "Stats",
    "Status",
    "StepOptions",
    "TraceError",
    "control",
    "datasets",
    "fit",
    "lab",
    "methods",
    "models",
    "per_row",
    "plots",
    "solve",
    "systems",
]


def __getattr__(name: str) -> Any:
    """Loads what costs time to import when it is first used."""
    if name not in _LOADED_WHEN_USED:
        raise AttributeError(f"module 'odeum' has no attribute {name!r}")
    holder = _LOADED_WHEN_USED[name]
    if holder is None:
        return import_module(f"odeum.{name}")
    return getattr(import_module(holder), name)


def __dir__() -> list[str]:
    return sorted(__all__)
