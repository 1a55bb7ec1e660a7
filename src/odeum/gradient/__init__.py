"""Ways to differentiate a solve: each takes a Problem and returns its Outcome."""

from odeum.gradient.adjoint import Adjoint

__all__ = ["Adjoint"]
