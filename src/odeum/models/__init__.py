"""Models: vector fields with weights, and modules that solve them."""

from odeum.models.block import Augmented, ODEBlock
from odeum.models.classifier import ODEClassifier
from odeum.models.energy import MLPEnergy
from odeum.models.ensemble import Ensemble
from odeum.models.fields import ACTIVATIONS, LinearField, MLPField
from odeum.models.flow import ContinuousFlow
from odeum.models.flow_field import FlowField
from odeum.models.hamiltonian import HamiltonianField, SeparableHamiltonian
from odeum.models.lagrangian import LagrangianField, MLPLagrangian
from odeum.models.latent import LatentODE
from odeum.models.learnable import Learnable
from odeum.models.learned import LearnedDynamics, StateTransform
from odeum.models.neural_ode import NeuralODE
from odeum.models.recurrent import RecurrentEncoder
from odeum.models.second_order import MLPAcceleration, SecondOrder, SecondOrderField

__all__ = [
    "ACTIVATIONS",
    "Augmented",
    "ContinuousFlow",
    "Ensemble",
    "FlowField",
    "HamiltonianField",
    "LagrangianField",
    "LatentODE",
    "Learnable",
    "LearnedDynamics",
    "LinearField",
    "MLPAcceleration",
    "MLPEnergy",
    "MLPField",
    "MLPLagrangian",
    "NeuralODE",
    "ODEBlock",
    "ODEClassifier",
    "RecurrentEncoder",
    "SecondOrder",
    "SecondOrderField",
    "SeparableHamiltonian",
    "StateTransform",
]
