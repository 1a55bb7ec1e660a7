"""Models: vector fields with weights, and modules that solve them."""

from odeum.models.ensemble import Ensemble
from odeum.models.fields import ACTIVATIONS, LinearField, MLPField
from odeum.models.learned import LearnedDynamics, StateTransform
from odeum.models.neural_ode import NeuralODE

__all__ = [
    "ACTIVATIONS",
    "Ensemble",
    "LearnedDynamics",
    "LinearField",
    "MLPField",
    "NeuralODE",
    "StateTransform",
]
