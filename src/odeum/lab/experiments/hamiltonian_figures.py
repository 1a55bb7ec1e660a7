"""Pictures of systems that three networks have learned, beside the true ones."""

from typing import Any

import torch
from torch import nn

from odeum import plots
from odeum.lab.experiments.mechanics import Task
from odeum.lab.study import Study
from odeum.types import Tensor

_ENERGY_RANGE = (-0.2, 2.2)


def draw_example(
    study: Study,
    task: Task,
    learned: dict[str, nn.Module],
    ts: Tensor,
    paths: dict[str, Tensor],
) -> None:
    """Draw one start's solutions over time, and in the plane of their states or bodies.

    Args:
        study: where pictures are kept.
        task: the system.
        learned: the networks by their kind.
        ts: times, [time].
        paths: states there by kind, the true ones among them, [time, dim].
    """
    section = task.title.capitalize()
    n = task.dim // 2
    study.draw(
        f"{task.name}_trajectories.png",
        plots.trajectory_panels(
            {kind: (ts, y[:, :n]) for kind, y in paths.items()},
            names=task.state_names[:n],
            time_name="t",
        ),
        title="Over time.",
        caption="Coordinates from one start, by the true equations and by each network.",
        alt=f"Coordinates of the {task.title} over time, true and by three networks",
        section=section,
    )
    reach = 1.3 * float(paths["true"].abs().max())
    if task.dim == 2:
        for kind, field in learned.items():
            study.draw(
                f"{task.name}_{kind.lower()}_portrait.png",
                plots.phase_portrait(
                    field,
                    xlim=(-reach, reach),
                    ylim=(-reach, reach),
                    trajectories={"true": paths["true"], kind: paths[kind]},
                    names=task.state_names,
                ),
                title=f"The {kind} network.",
                caption="Its streamlines, one of its solutions and the true one.",
                alt=f"Streamlines of the {kind} network for the {task.title} with a solution",
                section=section,
            )
        return
    axes = plots.panels(len(paths), n_columns=4, share=True)
    for ax, y in zip(axes, paths.values(), strict=True):
        x1, x2, y1, y2 = y[:, :4].unbind(-1)
        bodies = {"body 1": torch.stack([x1, y1], -1), "body 2": torch.stack([x2, y2], -1)}
        plots.state_space(bodies, names=("x", "y"), ax=ax)
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach))
    study.draw(
        f"{task.name}_orbits.png",
        axes,
        title="Orbits.",
        caption="Both bodies from one start, by the true equations and by each network.",
        alt="Orbits of two bodies, true and by three networks",
        section=section,
    )


def draw_energies(study: Study, task: Task, measured: dict[str, Any], n_periods: int) -> None:
    """Draw the true energy along the solutions of networks.

    Args:
        study: where pictures are kept.
        task: the system.
        measured: by kind, with ``turns`` in periods and the ``energies`` there.
        n_periods: how many.
    """
    axes = plots.trajectory_panels(
        {kind: (found["turns"], found["energies"]) for kind, found in measured.items()},
        names=["energy (1 at the start)"],
        time_name="period",
    )
    # A solution that runs away would leave nothing to be seen of the others.
    axes[0].set_ylim(*_ENERGY_RANGE)
    study.draw(
        f"{task.name}_energy.png",
        axes,
        title="The energy.",
        caption=f"The true energy along solutions of the networks over {n_periods} periods.",
        alt=f"Energy of the {task.title} along solutions of three networks",
        section=task.title.capitalize(),
    )
