"""Neural differential equations in PyTorch: solve, differentiate, learn and see them.

Names are loaded when they are first used: the command answers before torch has been imported, and
solving needs neither pandas nor matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from odeum import (
        compat,
        compile,
        control,
        datasets,
        gradient,
        lab,
        methods,
        models,
        plots,
        regularisers,
        systems,
    )
    from odeum.api import solve
    from odeum.compile.explain import Explanation, explain
    from odeum.eager.event import Event
    from odeum.eager.field import per_row
    from odeum.eager.options import StepOptions
    from odeum.errors import DataError, InputError, SolveError, TraceError
    from odeum.lab import Run, fit
    from odeum.models import (
        Augmented,
        ContinuousFlow,
        Ensemble,
        HamiltonianField,
        LagrangianField,
        LatentODE,
        NeuralODE,
        ODEBlock,
        ODEClassifier,
        SecondOrder,
    )
    from odeum.solution import Solution, Stats, Status

_HOLDERS = {
    "odeum.api": ["solve"],
    "odeum.compile.explain": ["Explanation", "explain"],
    "odeum.errors": ["DataError", "InputError", "SolveError", "TraceError"],
    "odeum.lab": ["Run", "fit"],
    "odeum.models": [
        "Augmented",
        "ContinuousFlow",
        "Ensemble",
        "HamiltonianField",
        "LagrangianField",
        "LatentODE",
        "NeuralODE",
        "ODEBlock",
        "ODEClassifier",
        "SecondOrder",
    ],
    "odeum.solution": ["Solution", "Stats", "Status"],
    "odeum.eager.event": ["Event"],
    "odeum.eager.field": ["per_row"],
    "odeum.eager.options": ["StepOptions"],
}
"""The module that holds each public name that is not a module itself."""

_MODULES = {name: holder for holder, names in _HOLDERS.items() for name in names}

__all__ = [
    "Augmented",
    "ContinuousFlow",
    "DataError",
    "Ensemble",
    "Event",
    "Explanation",
    "HamiltonianField",
    "InputError",
    "LagrangianField",
    "LatentODE",
    "NeuralODE",
    "ODEBlock",
    "ODEClassifier",
    "Run",
    "SecondOrder",
    "Solution",
    "SolveError",
    "Stats",
    "Status",
    "StepOptions",
    "TraceError",
    "compat",
    "compile",
    "control",
    "datasets",
    "explain",
    "fit",
    "gradient",
    "lab",
    "methods",
    "models",
    "per_row",
    "plots",
    "regularisers",
    "solve",
    "systems",
]


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'odeum' has no attribute {name!r}")
    if name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
    else:
        value = import_module(f"odeum.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
