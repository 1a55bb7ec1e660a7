"""The laboratory: learn dynamics from data, keep what a run leaves behind, read it back."""

from odeum.lab.devices import choose_device
from odeum.lab.examples import Learned, fit_examples
from odeum.lab.finish import finish
from odeum.lab.fitting import fit
from odeum.lab.learning import Recipe, fit_trajectories, stages
from odeum.lab.run import Run, load, predict
from odeum.lab.train import Loss, Stage, Training, train

__all__ = [
    "Learned",
    "Loss",
    "Recipe",
    "Run",
    "Stage",
    "Training",
    "choose_device",
    "finish",
    "fit",
    "fit_examples",
    "fit_trajectories",
    "load",
    "predict",
    "stages",
    "train",
]
