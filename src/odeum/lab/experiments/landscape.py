"""The loss landscape of the linear spiral model, and where stochastic gradient descent goes in it.

The matrix ``A`` of ``z' = A z`` is learned from spans of one noisy spiral, from hundreds of starts
at once: one drawn matrix shifted along a line, by alpha in all entries, or in one column. Owns what
is run in which order, and what is told of it.
"""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from odeum.lab.experiments.landscape_figures import draw_extremes, draw_slices, draw_sweeps
from odeum.lab.experiments.landscape_survey import LandscapeOptions, Survey
from odeum.lab.experiments.starts import SOLVER, Starts
from odeum.lab.findings import Finding
from odeum.lab.registry import Experiment, Setting
from odeum.lab.study import Studied, Study
from odeum.types import Tensor


def run_landscape(options: LandscapeOptions, setting: Setting) -> Studied:
    """Train from every start, plainly and with each gradient clipped, and draw what was found.

    Args:
        options: what to train, from what.
        setting: where and how.

    Returns:
        The finished study.

    Raises:
        InputError: if the run directory cannot be used.
    """
    study = Study.begin(
        LANDSCAPE, options, setting, title="The loss landscape of a linear spiral", n_weights=4
    )
    survey = Survey(options, study)
    ways: dict[str, Starts] = {}
    seconds: dict[str, float] = {}
    for kind, clip in (("plain", None), ("clipped", options.clip)):
        ways[kind], seconds[kind] = survey.train(kind, clip)
    alone = study.once("alone", lambda: survey.train_alone())
    tables = {
        kind: study.once(f"losses, {kind}", partial(survey.judge, trained.weights))
        for kind, trained in ways.items()
    }
    before = study.once("losses, before", lambda: survey.judge(survey.starts))
    draw_sweeps(survey, before, tables)
    draw_slices(survey, ways)
    draw_extremes(survey, ways)
    return _finish(survey, before, tables, ways, seconds, alone)


LANDSCAPE = Experiment(
    "landscape",
    "the loss landscape of the linear spiral model, trained from 375 starts in one solve",
    LandscapeOptions,
    run_landscape,
)


def _finish(
    survey: Survey,
    before: Tensor,
    after: dict[str, Tensor],
    ways: dict[str, Starts],
    seconds: dict[str, float],
    alone: dict[str, Any],
) -> Studied:
    n, epochs = len(survey.starts), survey.options.epochs
    learned = {kind: int((x < survey.learned_below).sum()) for kind, x in after.items()}
    lost = {kind: int((~torch.isfinite(x)).sum()) for kind, x in after.items()}
    apart = ways["plain"].weights.detach()[survey.reference] - alone["weights"]
    findings = [
        Finding(
            f"{n} trainings of {epochs} epochs, one solve an epoch",
            seconds["plain"],
            target=60.0,
            unit="s",
        ),
        Finding("the same with every gradient clipped", seconds["clipped"], target=60.0, unit="s"),
        Finding(f"one training alone, times {n}", n * alone["seconds"], unit="s"),
        Finding("weights trained alone, less those in the ensemble", float(apart.abs().max())),
        Finding("starts that learn, plain", 100 * learned["plain"] / n, better="higher", unit="%"),
        Finding(
            "starts that learn, clipped", 100 * learned["clipped"] / n, better="higher", unit="%"
        ),
    ]
    result: dict[str, Any] = {
        "start": survey.start.tolist(),
        "loss of a solution that is zero": survey.still,
        "a start has learned below": survey.learned_below,
    }
    for kind in after:
        result[f"lost, {kind}"] = lost[kind]
        result[f"learned, {kind}"] = learned[kind]
        for sweep, found in zip(survey.sweeps, survey.split(after[kind]), strict=True):
            result[f"shifts that learn, {kind}, {sweep.name}"] = _ranges(
                sweep.alpha, found < survey.learned_below
            )
    sentence = (
        f"Of {n} trainings by plain SGD {learned['plain']} find the spiral and {lost['plain']} are "
        f"lost, thrown off the cliff where solutions grow; with each gradient clipped "
        f"{learned['clipped']} find it and {lost['clipped']} are lost."
    )
    return survey.study.finish(
        sentence=sentence,
        predictions=_table(survey, before, after, ways),
        findings=findings,
        result=result,
        solver={"method": SOLVER["method"], "n_members": n},
    )


def _ranges(alpha: Tensor, chosen: Tensor) -> str:
    """The shifts that are chosen, as ranges of neighbours.

    Example:
        >>> _ranges(torch.arange(5.0), torch.tensor([True, True, False, False, True]))
        '0 to 1; 4'
    """
    parts: list[list[float]] = []
    for value, here, before in zip(
        alpha.tolist(), chosen.tolist(), [False, *chosen.tolist()], strict=False
    ):
        if here and before:
            parts[-1] = [parts[-1][0], value]
        elif here:
            parts.append([value])
    texts = [" to ".join(f"{x:.3g}" for x in part) for part in parts]
    return "; ".join(texts).replace("-", "−") or "none"


def _table(
    survey: Survey, before: Tensor, after: dict[str, Tensor], ways: dict[str, Starts]
) -> pd.DataFrame:
    """One row a training: where it began, what became of it."""
    names = np.repeat([x.name for x in survey.sweeps], [len(x.alpha) for x in survey.sweeps])
    frames = []
    for kind, found in after.items():
        matrices = ways[kind].weights.detach().cpu().flatten(1)
        frames.append(
            pd.DataFrame(
                {
                    "sweep": names,
                    "alpha": torch.cat([x.alpha for x in survey.sweeps]),
                    "sgd": kind,
                    "loss_before": before,
                    "loss_after": found,
                    "lost_at_epoch": ways[kind].lost_at.cpu(),
                    **{f"a{i}{j}": matrices[:, 2 * i + j - 3] for i in (1, 2) for j in (1, 2)},
                }
            )
        )
    return pd.concat(frames, ignore_index=True)
