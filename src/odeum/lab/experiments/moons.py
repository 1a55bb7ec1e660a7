"""Half moons told apart by a flow of the plane: what it does, seen from the side and from above.

Owns what is drawn. How a classifier of points is trained is `points`'.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import torch

from odeum import plots
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

N_TIMES = 31
"""Depths at which the flow is drawn."""

N_DRAWN = 120
"""Points whose way is drawn."""

NAMES = ("x₁", "x₂")


@dataclass(frozen=True)
class MoonsOptions(PointsOptions):
    """Options of ``moons``.

    Raises:
        InputError: for a value outside its range.
    """

    animated: Annotated[bool, "draw the animation too"] = True


def run_moons(options: MoonsOptions, setting: Setting) -> Studied:
    """Learn to tell half moons apart, and show the flow that does it.

    Args:
        options: what to learn from and how.
        setting: where.

    Returns:
        The finished study; its findings are the accuracies.

    Raises:
        InputError: if the run directory cannot be used.
        SolveError: if the loss is not finite.
    """
    device = choose_device(setting.device, 0)
    with single_thread(device.type == "cpu"):
        study = Study.begin(MOONS, options, setting, title="Half moons, told apart by a flow")
        points = Points.drawn("moons", options, setting.seed, device)
        model = flow_classifier(0, options, setting.seed, device)
        learn_points(study, "classifier", model, points, options)
        _draw(study, model, points, animated=options.animated)
        held_out = accuracy(model, points.held_out, points.held_out_labels)
        known = accuracy(model, points.x, points.labels)
        return study.finish(
            sentence=f"A flow of the plane tells the moons apart: {100 * held_out:.1f} % of the "
            f"{options.n_points} points held out, {100 * known:.1f} % of those learned from.",
            predictions=prediction_table({"probability_of_1": model}, points),
            findings=[
                Finding("accuracy, held out", held_out, target=1.0, better="higher"),
                Finding("accuracy, learned from", known, target=1.0, better="higher"),
            ],
            solver=SOLVER,
        )


MOONS = Experiment(
    "moons",
    "half moons told apart by a flow of the plane",
    MoonsOptions,
    run_moons,
)


def _draw(study: Study, model: ODEClassifier, points: Points, *, animated: bool) -> None:
    x, labels = points.held_out[:N_DRAWN], points.held_out_labels[:N_DRAWN].cpu()
    ts = torch.linspace(0, 1, N_TIMES, device=x.device)
    with torch.no_grad():
        states = model.trajectories(x, ts).cpu()
    like = points.x
    field: Any = model.block.field
    study.draw(
        "regions.png",
        plots.class_regions(
            on_grid(model, like),
            points.held_out,
            points.held_out_labels.cpu(),
            names=NAMES,
        ),
        title="What the model says.",
        caption="The points held out, over the probability of their classes; white where both are "
        "as likely.",
        alt="Two half moons of points over regions of two colours",
    )
    study.draw(
        "trajectories.png",
        plots.depth_trajectories(ts.cpu(), states, labels, names=NAMES),
        title="The way of the points.",
        caption="Points held out, from where they are given to where the flow has taken them, a "
        "dot each: there a straight line tells the classes apart.",
        alt="Paths in the plane, coloured by class, that end on two sides of a line",
        section="The flow",
    )
    study.draw(
        "trajectories_3d.png",
        plots.depth_trajectories(ts.cpu(), states, labels, names=NAMES, over_depth=True),
        title="The same over depth.",
        caption="Depth is the time of the flow. No two paths meet.",
        alt="The same paths in space, depth being the third axis",
        section="The flow",
    )
    reached = states.flatten(0, 1)
    low, high = reached.min(0).values, reached.max(0).values
    study.draw(
        "vector_field.png",
        plots.vector_field(
            lambda t, y: field(t.to(like), y.to(like)).to(y),
            (float(low[0]), float(high[0])),
            (float(low[1]), float(high[1])),
            names=NAMES,
        ),
        title="The field that was learned.",
        caption="It does not change with depth.",
        alt="Arrows of the learned vector field",
        section="The flow",
    )
    if animated:
        study.draw(
            "flow.gif",
            plots.depth_animation(ts.cpu(), states, labels, names=NAMES),
            title="The flow in time.",
            caption="The same points, from depth 0 to 1.",
            alt="Points of two colours that move apart",
            section="The flow",
        )
