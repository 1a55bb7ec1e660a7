"""Classical dynamical systems, with exact solutions or invariants where they exist."""

from odeum.systems.classical import lorenz, lotka_volterra, pendulum, spiral, van_der_pol
from odeum.systems.system import System, get, names

__all__ = [
    "System",
    "get",
    "lorenz",
    "lotka_volterra",
    "names",
    "pendulum",
    "spiral",
    "van_der_pol",
]
