"""Concentric circles: a flow of the plane against one with a dimension more.

A flow of the plane maps it continuously and one to one: what encloses the inner circle before
encloses it after, and no line can part them exactly. Points leave gaps through which most of them
can be drawn, by a field that is ever harder to solve. With a dimension more the inner circle is
simply lifted out (Dupont et al. 2019).
"""

from dataclasses import dataclass
from typing import Annotated, Any

import torch

from odeum import plots
from odeum.errors import InputError
from odeum.lab.devices import choose_device, single_thread
from odeum.lab.experiments.points import (
    SOLVER,
    Points,
    PointsOptions,
    accuracy,
    flow_classifier,
    learn_points,
    on_grid,
    prediction_table,
)
from odeum.lab.findings import Finding
from odeum.lab.registry import Experiment, Setting
from odeum.lab.study import Studied, Study
from odeum.models import ODEClassifier

N_TIMES = 41
N_DRAWN = 160
N_LAST = 10
"""Lines of metrics over which evaluations at the end are averaged."""

NAMES = ("x₁", "x₂", "added")
SOURCE = "Dupont et al. 2019"


@dataclass(frozen=True)
class CirclesOptions(PointsOptions):
    """Options of ``circles``.

    Raises:
        InputError: for a value outside its range.
    """

    epochs: Annotated[int, "optimiser steps, on all points each"] = 500
    n_extra: Annotated[int, "dimensions added in the augmented flow"] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_extra < 1:
            raise InputError(f"n_extra is {self.n_extra}: give at least 1")


def run_circles(options: CirclesOptions, setting: Setting) -> Studied:
    """Learn to tell concentric circles apart with and without a dimension more.

    Args:
        options: what to learn from and how.
        setting: where.

    Returns:
        The finished study; its findings are the accuracies of both, and their evaluations.

    Raises:
        InputError: if the run directory cannot be used.
        SolveError: if the loss is not finite.
    """
    device = choose_device(setting.device, 0)
    with single_thread(device.type == "cpu"):
        study = Study.begin(
            CIRCLES, options, setting, title="Concentric circles, with a dimension more or without"
        )
        points = Points.drawn("circles", options, setting.seed, device)
        models = {
            "plain": flow_classifier(0, options, setting.seed, device),
            "augmented": flow_classifier(options.n_extra, options, setting.seed, device),
        }
        for name, model in models.items():
            learn_points(study, name, model, points, options)
        lines = {name: study.metrics(name) for name in models}
        _draw(study, models, points, lines)
        work = {name: _at_end(rows) for name, rows in lines.items()}
        held_out = {
            name: accuracy(model, points.held_out, points.held_out_labels)
            for name, model in models.items()
        }
        return study.finish(
            sentence=f"Of the points held out a flow of the plane tells "
            f"{100 * held_out['plain']:.1f} % right, one with a dimension more "
            f"{100 * held_out['augmented']:.1f} %, with {work['augmented']:.0f} evaluations of its "
            f"field in place of {work['plain']:.0f}.",
            predictions=prediction_table(models, points),
            findings=[
                Finding(
                    "accuracy, held out, augmented",
                    held_out["augmented"],
                    target=1.0,
                    better="higher",
                    source=SOURCE,
                ),
                Finding(
                    "accuracy, held out, plain",
                    held_out["plain"],
                    target=0.97,
                    better="higher",
                    source=SOURCE,
                ),
                Finding(
                    "evaluations at the end, augmented",
                    work["augmented"],
                    target=work["plain"],
                    source=SOURCE,
                ),
                Finding("evaluations at the end, plain", work["plain"], source=SOURCE),
            ],
            solver=SOLVER,
        )


CIRCLES = Experiment(
    "circles",
    "concentric circles: a flow of the plane against one with a dimension more",
    CirclesOptions,
    run_circles,
)


def _at_end(lines: list[dict[str, Any]]) -> float:
    """Evaluations of the field in a solve, over the last lines of a training."""
    last = [line["n_evaluations"] for line in lines[-N_LAST:]]
    return sum(last) / len(last)


def _draw(
    study: Study,
    models: dict[str, ODEClassifier],
    points: Points,
    lines: dict[str, list[dict[str, Any]]],
) -> None:
    study.draw(
        "evaluations.png",
        plots.evaluations(lines),
        title="Evaluations over training.",
        caption="How often the field is evaluated in a solve. What the plain flow has to do gets "
        "harder the better it does it (Dupont et al. 2019, figure 7).",
        alt="Evaluations of the field by optimiser step, for both flows",
    )
    x, labels = points.held_out[:N_DRAWN], points.held_out_labels[:N_DRAWN].cpu()
    ts = torch.linspace(0, 1, N_TIMES, device=x.device)
    for name, model in models.items():
        with torch.no_grad():
            states = model.trajectories(x, ts).cpu()
        dim = min(3, states.shape[-1])
        study.draw(
            f"regions_{name}.png",
            plots.class_regions(
                on_grid(model, points.x),
                points.held_out,
                points.held_out_labels.cpu(),
                names=NAMES[:2],
            ),
            title=f"What the {name} flow says.",
            caption="The points held out, over the probability of their classes.",
            alt="Two circles of points over regions of two colours",
        )
        study.draw(
            f"trajectories_{name}.png",
            plots.depth_trajectories(ts.cpu(), states[..., :dim], labels, names=NAMES[:dim]),
            title=f"The {name} flow.",
            caption="The way of points held out; a dot where it ends.",
            alt=f"Paths of the {name} flow, coloured by class",
            section="The flows",
        )
