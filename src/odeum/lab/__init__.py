"""The laboratory: learn dynamics from data, keep what a run leaves behind, read it back."""

from odeum.lab.devices import choose_device
from odeum.lab.finish import finish
from odeum.lab.learning import Recipe, fit, stages
from odeum.lab.run import Run, load, predict
from odeum.lab.train import Loss, Stage, Training, train

__all__ = [
    "Loss",
    "Recipe",
    "Run",
    "Stage",
    "Training",
    "choose_device",
    "finish",
    "fit",
    "load",
    "predict",
    "stages",
    "train",
]
