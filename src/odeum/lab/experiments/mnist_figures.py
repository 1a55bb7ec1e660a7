"""The pictures of ``mnist``, after figure 3 of Chen et al. (2018).

Draws what was measured; knows no network.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from odeum import plots
from odeum.lab.study import Study

Lines = Sequence[Mapping[str, Any]]

_AT_WORK = "The solves"
_CHEN = "(Chen et al. 2018, figure 3"


def draw(study: Study, trainings: Mapping[str, Lines], work: Mapping[str, Any] | None) -> None:
    """Draw how the networks learned, and what solves of the ODE-Net cost.

    Args:
        study: where the pictures go.
        trainings: the lines of metrics of each network, by its label.
        work: what was measured at several tolerances: lists under ``tolerance``, ``forward``,
            ``backward``, ``seconds`` and ``error``; None without a network that solves.
    """
    tested = {
        label: ([line["step"] for line in seen], [line["held_out"] for line in seen])
        for label, lines in trainings.items()
        if (seen := [line for line in lines if "held_out" in line])
    }
    study.draw(
        "test_error.png",
        plots.relation(tested, names=("step", "test images told wrong (%)"), joined=True),
        title="Test error.",
        caption="After every pass through the images.",
        alt="Test error of each network by optimiser step",
    )
    solving = {
        label: lines
        for label, lines in trainings.items()
        if any(line["n_evaluations"] for line in lines)
    }
    if work is None or not solving:
        return
    _draw_training(study, solving)
    _draw_work(study, work)
    _draw_directions(study, solving, work)


def _draw_training(study: Study, solving: Mapping[str, Lines]) -> None:
    study.draw(
        "evaluations_training.png",
        plots.evaluations(solving),
        title="Evaluations over training.",
        caption="How often the field is evaluated in a forward solve: as the network learns, its "
        f"field gets harder to solve {_CHEN}d).",
        alt="Evaluations of the field by optimiser step",
        section=_AT_WORK,
    )


def _draw_work(study: Study, work: Mapping[str, Any]) -> None:
    study.draw(
        "evaluations_tolerance.png",
        plots.relation(
            {"forward": (work["tolerance"], work["forward"])},
            names=("tolerance", "evaluations of the field"),
            joined=True,
            logarithmic=(True, False),
        ),
        title="Evaluations against tolerance.",
        caption="Of the trained network, for a batch of test images.",
        alt="Evaluations of the field, falling with the tolerance",
        section=_AT_WORK,
    )
    study.draw(
        "error_evaluations.png",
        plots.relation(
            {"error": (work["forward"], work["error"])},
            names=("evaluations of the field", "error of the last state (share of it)"),
            joined=True,
            logarithmic=(False, True),
        ),
        title="Error against evaluations.",
        caption=f"Beside a fine solve: accuracy has its price {_CHEN}a).",
        alt="Error of the last state, falling with the number of evaluations",
        section=_AT_WORK,
    )
    study.draw(
        "time_evaluations.png",
        plots.relation(
            {"forward": (work["forward"], work["seconds"])},
            names=("evaluations of the field", "time of a forward solve (s)"),
        ),
        title="Time against evaluations.",
        caption=f"Evaluating the field is what takes the time of a solve {_CHEN}b).",
        alt="Time of a forward solve, growing in proportion to the number of evaluations",
        section=_AT_WORK,
    )


def _draw_directions(study: Study, solving: Mapping[str, Lines], work: Mapping[str, Any]) -> None:
    series = {"trained, at several tolerances": (work["forward"], work["backward"])}
    for label, lines in solving.items():
        counted = [line for line in lines if line.get("n_evaluations_back")]
        if counted:
            series[f"{label}, during training"] = (
                [line["n_evaluations"] for line in counted],
                [line["n_evaluations_back"] for line in counted],
            )
    study.draw(
        "backward_forward.png",
        plots.relation(
            series, names=("evaluations forward", "evaluations backward"), equality=True
        ),
        title="Backward against forward.",
        caption="Evaluations of the field in solving, and in solving the adjoint equation "
        f"{_CHEN}c, found half as many).",
        alt="Evaluations of the backward solve against those of the forward one",
        section=_AT_WORK,
    )
