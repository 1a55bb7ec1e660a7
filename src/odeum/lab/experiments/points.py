"""What the experiments with classes of points in the plane share: data, training, predictions.

Owns how a classifier of points is trained and told. Knows no particular arrangement of points.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pandas as pd
import torch
from torch import nn

from odeum.datasets import toy
from odeum.errors import InputError
from odeum.lab.descent import Descent, Progress, cosine
from odeum.lab.study import Study
from odeum.lab.train import Loss
from odeum.models import Augmented, MLPField, ODEBlock, ODEClassifier
from odeum.types import Tensor

SOLVER: dict[str, Any] = {"method": "tsit5", "rtol": 1e-3, "atol": 1e-3, "gradient": "discrete"}

N_LINES = 60
"""Lines of metrics over a training."""

_WEIGHT_DECAY = 0.1
"""Of AdamW: smooth fields leave room between the classes for points that were not seen."""


@dataclass(frozen=True)
class PointsOptions:
    """What every experiment with classes of points lets choose.

    Raises:
        InputError: for a value outside its range.
    """

    n_points: Annotated[int, "points to learn from, and as many to hold out"] = 1000
    noise: Annotated[float, "standard deviation about a shape of radius 2 or so"] = 0.1
    epochs: Annotated[int, "optimiser steps, on all points each"] = 300
    learning_rate: Annotated[float, "of AdamW, at the start"] = 0.03
    hidden: Annotated[tuple[int, ...], "widths of the field's hidden layers"] = (32, 32)

    def __post_init__(self) -> None:
        if self.n_points < 4 or self.epochs < 1:
            raise InputError(
                f"n_points is {self.n_points} and epochs is {self.epochs}: give at least 4 and 1"
            )
        if self.noise < 0:
            raise InputError(f"noise is {self.noise}: give a number of at least 0")
        if not 0 < self.learning_rate < 10:
            raise InputError(f"learning_rate is {self.learning_rate}: give a number such as 0.03")
        if min(self.hidden, default=1) < 1:
            raise InputError(f"hidden is {self.hidden}: give widths of at least 1, such as 32,32")


@dataclass(frozen=True, eq=False)
class Points:
    """Points in the plane and their classes, float32.

    Attributes:
        x: what is learned from, [n, 2].
        labels: of those, [n].
        held_out: what is not, [m, 2].
        held_out_labels: of those, [m].
    """

    x: Tensor
    labels: Tensor
    held_out: Tensor
    held_out_labels: Tensor

    @classmethod
    def drawn(cls, name: str, options: PointsOptions, seed: int, device: torch.device) -> "Points":
        """Points of a toy to learn from and as many to hold out.

        Args:
            name: of :func:`odeum.datasets.toy`.
            options: how many, with which noise.
            seed: of the points.
            device: where they shall be.
        """
        n = options.n_points
        x, labels = toy(name, 2 * n, seed=seed, noise=options.noise)
        x, labels = x.to(device, torch.float32), labels.to(device)
        return cls(x[:n], labels[:n], x[n:], labels[n:])


def flow_classifier(
    n_extra: int, options: PointsOptions, seed: int, device: torch.device
) -> ODEClassifier:
    """Two classes read off a flow of the plane with ``n_extra`` dimensions added, by a line.

    Args:
        n_extra: dimensions added, 0 for none.
        options: widths of the field's hidden layers.
        seed: of the weights.
        device: where they shall be.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        dim = 2 + n_extra
        flow: Any = ODEBlock(MLPField(dim, options.hidden), **SOLVER)
        block = Augmented(flow, n_extra) if n_extra else flow
        return ODEClassifier(block, nn.Linear(dim, 2)).to(device, torch.float32)


def learn_points(
    study: Study,
    part: str,
    model: ODEClassifier,
    points: Points,
    options: PointsOptions,
) -> Progress:
    """Train a classifier on all points at once with AdamW, the rate falling along half a cosine.

    Args:
        study: where it is kept.
        part: its name there.
        model: trained in place.
        points: what is learned from, and what is measured on.
        options: how long and how fast.

    Returns:
        How it went. The lines of metrics have the accuracies, and in ``n_evaluations`` how often
        the field was evaluated in a solve.
    """

    def loss(_: None) -> Loss:
        value = model.loss(points.x, points.labels)
        assert model.stats is not None
        return Loss(value, n_evaluations=int(model.stats.n_evaluations.max()))

    def evaluate() -> dict[str, float]:
        return {
            "accuracy": accuracy(model, points.x, points.labels),
            "held_out": accuracy(model, points.held_out, points.held_out_labels),
        }

    return study.learn(
        part,
        model,
        Descent(
            torch.optim.AdamW(
                model.parameters(), lr=options.learning_rate, weight_decay=_WEIGHT_DECAY
            ),
            n_steps=options.epochs,
            batch=lambda step, generator: None,
            loss=loss,
            rate=cosine(final=0.01),
            every=max(1, options.epochs // N_LINES),
            evaluate=evaluate,
        ),
    )


def accuracy(model: ODEClassifier, x: Tensor, labels: Tensor) -> float:
    """The share of points told right.

    Args:
        model: the classifier.
        x: points, [n, 2].
        labels: of those, [n].
    """
    return float(model.metrics(x, labels)["accuracy"])


def on_grid(model: ODEClassifier, like: Tensor) -> Callable[[Tensor], Tensor]:
    """The model as pictures call it: with points of their own dtype and on the CPU.

    Args:
        model: the classifier.
        like: has the dtype of its points, and is where they shall be.
    """
    return lambda grid: model(grid.to(like))


def prediction_table(models: dict[str, ODEClassifier], points: Points) -> pd.DataFrame:
    """Every point with its class, and the probability of class 1 that each model gives it.

    Args:
        models: by the name of their column.
        points: of which.
    """
    x = torch.cat([points.x, points.held_out])
    labels = torch.cat([points.labels, points.held_out_labels])
    held_out = torch.arange(len(x)) >= len(points.x)
    columns: dict[str, Any] = {
        "x1": x[:, 0].cpu(),
        "x2": x[:, 1].cpu(),
        "held_out": held_out.int(),
        "class": labels.cpu(),
    }
    with torch.no_grad():
        for name, model in models.items():
            columns[name] = model(x).softmax(-1)[:, 1].cpu()
    return pd.DataFrame({key: value.numpy() for key, value in columns.items()})
