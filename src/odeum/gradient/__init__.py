"""Ways to differentiate a solve: each takes a Problem and returns its Outcome."""

from odeum.gradient.adjoint import Adjoint
from odeum.gradient.reversible import Reversible

__all__ = ["Adjoint", "Reversible"]
