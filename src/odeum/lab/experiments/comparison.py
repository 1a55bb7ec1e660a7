"""The spiral learned three ways from the same observations: linear, with a bias, by a network.

Owns what is put side by side. What is learned and how is `spiral`'s.
"""

from dataclasses import replace
from typing import Any

from odeum import plots
from odeum.datasets import sample
from odeum.lab import directory, report
from odeum.lab.experiments.spiral import SPIRAL, CommonOptions, SpiralOptions, learn
from odeum.lab.files import write_json
from odeum.lab.pictures import FIGURES
from odeum.lab.registry import Experiment, Setting
from odeum.lab.run import SUMMARY, Run, solved
from odeum.lab.wording import number
from odeum.systems import spiral as spiral_system


def run_comparison(options: CommonOptions, setting: Setting) -> Run:
    """Learn the same observations with three fields, and show them side by side.

    The run directory is that of the linear field; those of the others lie in it, each complete.

    Args:
        options: what to learn from.
        setting: where and how.

    Returns:
        The finished run; ``summary["result"]`` holds the matrix of each field and its largest
        error.

    Raises:
        InputError: if a run directory cannot be used.
        SolveError: if training never reached a finite error.
    """
    variants = {
        "linear": SpiralOptions(**vars(options)),
        "linear with bias": SpiralOptions(**vars(options), bias=True),
        "nonlinear": SpiralOptions(**vars(options), nonlinear=True),
    }
    command = COMPARISON.command(options, setting)
    runs: dict[str, Run] = {}
    for label, variant in variants.items():
        place, told = setting, command
        if runs:
            main = next(iter(runs.values()))
            place = replace(setting, out=main.path / directory.file_name(label))
            told = SPIRAL.command(variant, setting)
        runs[label] = learn(COMPARISON.name, variant, place, told)
    return _side_by_side(runs)


COMPARISON = Experiment(
    "spiral-comparison",
    "the spiral learned linear, linear with bias and nonlinear, side by side",
    CommonOptions,
    run_comparison,
)


def _side_by_side(runs: dict[str, Run]) -> Run:
    """Tell the first run as the comparison of all: pictures, matrices, scores."""
    main = next(iter(runs.values()))
    maps = {label: run.summary["result"] for label, run in runs.items()}
    result: dict[str, Any] = {"true matrix": maps["linear"]["true_matrix"]}
    for label, found in maps.items():
        result[f"matrix, {label}"] = found["recovered_matrix"]
    for label, found in maps.items():
        result[f"largest error, {label}"] = found["largest_error"]
    baselines = {k: v for k, v in main.summary["scores"].items() if k != "model"}
    errors = ", ".join(f"{number(x['largest_error'], 2)} {label}" for label, x in maps.items())
    summary = {
        **main.summary,
        "title": "The spiral, learned three ways",
        "sentence": "The same observations learned by a linear field, one with a bias and a "
        f"network; the largest error of an entry of A is {errors}.",
        "seconds": sum(run.summary["seconds"] for run in runs.values()),
        "epochs": sum(run.summary["epochs"] for run in runs.values()),
        "best_epoch": None,
        "scores": {label: run.summary["scores"]["model"] for label, run in runs.items()}
        | baselines,
        "result": result,
        "figures": [*_overlays(runs), *main.summary["figures"]],
    }
    write_json(main.path / SUMMARY, summary)
    report.build(main.path)
    return replace(main, summary=summary)


def _overlays(runs: dict[str, Run]) -> list[dict[str, str]]:
    """The solutions over time, their distance from the true one, and over the true field."""
    main = next(iter(runs.values()))
    data, folder = main.data, main.path / FIGURES
    trajectory = data.trajectories[0]
    curves = {label: solved(run.model, data)[0] for label, run in runs.items()}
    truth = sample(spiral_system(), ts=trajectory.t).trajectories[0].y
    n_known = len(data.split(main.config["holdout"])[0].trajectories[0])
    held_out_from = float(trajectory.t[n_known]) if n_known < len(trajectory) else None
    errors = [f"learned − true {name}" for name in data.state_names]
    for file, names, origin in (
        ("comparison.png", data.state_names, 0.0),
        ("comparison_errors.png", errors, truth),
    ):
        panels = plots.trajectory_panels(
            {label: (trajectory.t, y - origin) for label, y in curves.items()},
            names=names,
            time_name=data.time_name,
            held_out_from=held_out_from,
        )
        plots.save(panels, folder / file)
    ax = plots.phase_portrait(
        spiral_system(),
        xlim=(-2.2, 2.4),
        ylim=(-2.2, 2.2),
        trajectories=curves,
        observed=trajectory.y,
        names=data.state_names,
    )
    plots.save(ax, folder / "phase_comparison.png")
    return [
        {
            "file": f"{FIGURES}/comparison.png",
            "title": "Side by side.",
            "caption": "One solution of each learned field, from the first observation.",
            "alt": "The solutions of three learned fields over time",
        },
        {
            "file": f"{FIGURES}/comparison_errors.png",
            "title": "Side by side, from the truth.",
            "caption": "The same solutions minus the exact one; they all start with the noise of "
            "the first observation.",
            "alt": "Errors of the solutions of three learned fields over time",
        },
        {
            "file": f"{FIGURES}/phase_comparison.png",
            "title": "Side by side, in the plane.",
            "caption": "The same solutions over the true field.",
            "alt": "Solutions of three learned fields over the streamlines of the true one",
        },
    ]
