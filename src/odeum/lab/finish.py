"""What a finished run leaves behind: predictions, scores beside baselines, pictures, report.

Everything is remade from what was learned, whole files only, so finishing twice does no harm.
"""

import json
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from odeum.datasets import Trajectories
from odeum.files import write_whole
from odeum.lab import baselines, directory, report
from odeum.lab.files import write_json
from odeum.lab.pictures import draw
from odeum.lab.run import SUMMARY, Run, predict, solved
from odeum.lab.scores import Scores, score, scored_rows
from odeum.lab.train import METRICS, Training
from odeum.models import LearnedDynamics
from odeum.types import Tensor

PREDICTIONS = "predictions.csv"


def finish(
    run_dir: Path,
    model: LearnedDynamics,
    data: Trajectories,
    training: Training,
    *,
    title: str,
    result: dict[str, Any] | None = None,
    figures: list[dict[str, str]] | None = None,
    sentence: str | None = None,
) -> Run:
    """Write predictions.csv, figures/, summary.json and report.html of a trained model.

    Args:
        run_dir: holds config.json (name, holdout, seed, device, solver, command are read) and
            metrics.jsonl.
        model: what was learned, with its best weights.
        data: the whole trajectories.
        training: how it went.
        title: of the report.
        result: what else was found, by name: numbers, matrices, text.
        figures: further pictures already drawn into ``figures/``: file, title, caption, alt.
        sentence: what was learned, in one sentence; made from the scores if None.

    Returns:
        The finished run.

    Raises:
        InputError: if a file cannot be written.
    """
    config = directory.read_config(run_dir)
    head = data.split(config["holdout"])[0]
    lines = (run_dir / METRICS).read_text(encoding="utf-8").splitlines()
    metrics = [json.loads(line) for line in lines]
    scores = compare(model, head, data)
    unfinished = Run(run_dir, model, {}, config, data)
    table = predict(unfinished)
    write_whole(run_dir / PREDICTIONS, lambda part: table.to_csv(part, index=False))
    drawn = draw(run_dir, model, head, data, metrics, training.best_epoch)
    summary = {
        **provenance(config, title=title, sentence=sentence or describe(scores, head, data)),
        "seconds": training.seconds,
        "epochs": training.epochs,
        "best_epoch": training.best_epoch,
        "scores": scores,
        "solver": {
            "method": config["solver"]["method"],
            "engine": training.engine,
            "evaluations_per_epoch": round(training.n_evaluations / max(1, training.epochs), 1),
            "n_rejected": training.n_rejected,
        },
        "training": {"n_steps_back": training.n_steps_back, "stopped_early": training.stopped},
        "result": result or {},
        "figures": [*drawn, *(figures or [])],
    }
    write_json(run_dir / SUMMARY, summary)
    report.build(run_dir)
    return Run(run_dir, model, directory.read_object(run_dir / SUMMARY), config, data)


def provenance(config: dict[str, Any], *, title: str, sentence: str) -> dict[str, Any]:
    """What every summary.json begins with: what was done, when, by what, and how to repeat it.

    Args:
        config: name, seed, device and command are taken from it.
        title: of the report.
        sentence: what was found.
    """
    return {
        "name": config["name"],
        "title": title,
        "sentence": sentence,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": config["seed"],
        "device": config["device"],
        "command": config["command"],
        "versions": {
            "odeum": metadata.version("odeum"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def compare(
    model: LearnedDynamics, head: Trajectories, data: Trajectories
) -> dict[str, dict[str, Scores]]:
    """Scores of the model and of the baselines, in-sample and held out.

    Args:
        model: what was learned.
        head: what it was learned from.
        data: the whole trajectories.

    Returns:
        By name ("model", "last value", "linear ODE"), then "in_sample" and "held_out" (empty where
        nothing is held out), then state.
    """
    predictions: dict[str, list[Tensor]] = {
        "model": solved(model, data),
        "last value": baselines.last_value(head, data),
        "linear ODE": baselines.linear_ode(head, data)[0],
    }
    in_sample, held_out = scored_rows(head, data)
    anything_held_out = any(bool(rows.any()) for rows in held_out)
    return {
        name: {
            "in_sample": score(data, predicted, in_sample),
            "held_out": score(data, predicted, held_out) if anything_held_out else {},
        }
        for name, predicted in predictions.items()
    }


def describe(scores: dict[str, dict[str, Scores]], head: Trajectories, data: Trajectories) -> str:
    """One sentence on what was learned, from the scores.

    Args:
        scores: from :func:`compare`.
        head: what was learned from.
        data: the whole trajectories.
    """
    n_head, n_rows = (sum(len(x) for x in part) for part in (head, data))
    several = f" in {len(data)} trajectories" if len(data) > 1 else ""
    r2 = [entry["r2"] for entry in scores["model"]["in_sample"].values()]
    known = [value for value in r2 if value == value]
    sentence = f"Learned how {states_in_words(data)} move from {n_head} of {n_rows} rows{several}"
    if known:
        least = "R²" if len(known) == 1 else "the lowest R² of a state"
        sentence += f"; in-sample, {least} is {min(known):.3f}"
    if n_head == n_rows:
        return f"{sentence}; nothing was held out."
    beaten = [name for name in scores if name != "model" and _is_beaten(scores, name)]
    rivals = [name for name in scores if name != "model"]
    if beaten == rivals:
        return f"{sentence}; on the held-out rows it beats both baselines."
    if beaten:
        other = next(name for name in rivals if name not in beaten)
        return f"{sentence}; on the held-out rows it beats the {beaten[0]}, not the {other}."
    return f"{sentence}; on the held-out rows it beats neither baseline."


def _is_beaten(scores: dict[str, dict[str, Scores]], rival: str) -> bool:
    """Whether the model's held-out RMSE, relative to the rival's, is below one on average."""
    ours, theirs = (scores[name]["held_out"] for name in ("model", rival))
    ratios = [
        ours[state]["rmse"] / theirs[state]["rmse"]
        for state in ours
        if theirs[state]["rmse"] > 0 and ours[state]["rmse"] == ours[state]["rmse"]
    ]
    return bool(ratios) and sum(ratios) / len(ratios) < 1


def states_in_words(data: Trajectories) -> str:
    """The names of the states, or how many where there are more than four.

    Example:
        >>> from odeum.datasets import Trajectory
        >>> t = torch.arange(3, dtype=torch.float64)
        >>> y = torch.stack([t, t, t], -1)
        >>> states_in_words(Trajectories((Trajectory("a", t, y),), "t", ("x", "y", "z")))
        'x, y and z'
    """
    *before, last = data.state_names
    if len(before) > 3:
        return f"{data.dim} states"
    return f"{', '.join(before)} and {last}" if before else last
