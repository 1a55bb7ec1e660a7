"""Experiments that ``odeum run`` knows by name. Adding one is one entry here."""

from odeum.errors import unknown_name
from odeum.lab.experiments.circles import CIRCLES
from odeum.lab.experiments.comparison import COMPARISON
from odeum.lab.experiments.exp_cos import EXP_COS
from odeum.lab.experiments.flows import FLOWS
from odeum.lab.experiments.hamiltonian import EXPERIMENT as HAMILTONIAN
from odeum.lab.experiments.landscape import LANDSCAPE
from odeum.lab.experiments.latent_spirals import LATENT_SPIRALS
from odeum.lab.experiments.lorenz import LORENZ
from odeum.lab.experiments.mnist import MNIST
from odeum.lab.experiments.moons import MOONS
from odeum.lab.experiments.oscillators import OSCILLATORS
from odeum.lab.experiments.phase_portraits import PHASE_PORTRAITS
from odeum.lab.experiments.second_order import SECOND_ORDER
from odeum.lab.experiments.spiral import SPIRAL
from odeum.lab.experiments.switching import SWITCHING
from odeum.lab.registry import (
    Experiment,
    Setting,
    describe_options,
    read_options,
)

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        SPIRAL,
        COMPARISON,
        MOONS,
        CIRCLES,
        MNIST,
        FLOWS,
        LANDSCAPE,
        PHASE_PORTRAITS,
        LATENT_SPIRALS,
        SECOND_ORDER,
        OSCILLATORS,
        SWITCHING,
        EXP_COS,
        LORENZ,
        HAMILTONIAN,
    )
}
"""Every experiment by name."""

__all__ = ["EXPERIMENTS", "Experiment", "Setting", "describe_options", "find", "read_options"]


def find(name: str) -> Experiment:
    """The experiment of that name.

    Args:
        name: one of :data:`EXPERIMENTS`.

    Raises:
        InputError: for an unknown name.

    Example:
        >>> find("spiral").options().n_times
        200
    """
    if name not in EXPERIMENTS:
        raise unknown_name("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]
