"""Classical dynamical systems, with exact solutions or invariants where they exist."""

from odeum.systems.chemistry import brusselator, hires, oregonator, pollu, robertson
from odeum.systems.classical import (
    lorenz,
    lotka_volterra,
    pendulum,
    rigid_body,
    spiral,
    van_der_pol,
)
from odeum.systems.orbits import arenstorf, kepler, pleiades
from odeum.systems.system import System, get, names
from odeum.systems.tutorials import oscillator_chain, switching

__all__ = [
    "System",
    "arenstorf",
    "brusselator",
    "get",
    "hires",
    "kepler",
    "lorenz",
    "lotka_volterra",
    "names",
    "oregonator",
    "oscillator_chain",
    "pendulum",
    "pleiades",
    "pollu",
    "rigid_body",
    "robertson",
    "spiral",
    "switching",
    "van_der_pol",
]
