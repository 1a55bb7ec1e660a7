"""Three coupled oscillators learned from windows of one trajectory, by SGD and by Adam.

Owns what is observed, what a batch is and what counts as the loss after training. Training and the
run directory are the laboratory's.
"""

import time
from dataclasses import dataclass
from typing import Annotated

import torch

from odeum.datasets import sample
from odeum.errors import InputError
from odeum.lab.descent import Descent, cosine
from odeum.lab.devices import single_thread
from odeum.lab.findings import Finding
from odeum.lab.registry import Experiment, Setting
from odeum.lab.specs import draw_weights
from odeum.lab.study import Dynamics, Studied, Study
from odeum.lab.train import Loss
from odeum.lab.windows import Windows, cut
from odeum.lab.wording import number
from odeum.models import LearnedDynamics, MLPField, StateTransform
from odeum.systems import oscillator_chain

SOLVER = {"method": "tsit5", "rtol": 1e-4, "atol": 1e-6}
LAST = 30
"""Steps at the end of training over which losses are averaged: batches differ."""


@dataclass(frozen=True)
class OscillatorsOptions:
    """Options of ``oscillators``.

    Raises:
        InputError: for a value outside its range.
    """

    n_times: Annotated[int, "observations of the trajectory over [0, 20]"] = 1000
    window: Annotated[int, "times in a window"] = 10
    batch: Annotated[int, "windows in a batch"] = 20
    n_steps: Annotated[int, "optimiser steps of each optimiser"] = 300
    adam_rate: Annotated[float, "learning rate of Adam at the start"] = 0.03
    sgd_rate: Annotated[float, "learning rate of SGD at the start"] = 0.3
    hidden: Annotated[tuple[int, ...], "widths of the network's hidden layers"] = (30, 30)

    def __post_init__(self) -> None:
        if not 2 <= self.window <= self.n_times:
            raise InputError(
                f"window is {self.window} of {self.n_times} times: give from 2 to all of them"
            )
        for name in ("batch", "n_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give at least 1")
        for name in ("adam_rate", "sgd_rate"):
            if not 0 < getattr(self, name) < 100:
                raise InputError(f"{name} is {getattr(self, name)}: give a number such as 0.03")
        if min(self.hidden, default=1) < 1:
            raise InputError(f"hidden is {self.hidden}: give widths of at least 1, such as 30,30")


def run_oscillators(options: OscillatorsOptions, setting: Setting) -> Studied:
    """Learn the oscillators twice from the same batches.

    Args:
        options: what is observed and how it is learned.
        setting: where and how.

    Returns:
        The finished study, its model the one that Adam found; ``summary["result"]`` holds the last
        losses of both optimisers and the seconds that training and compiling took.

    Raises:
        InputError: if the run directory cannot be used.
        SolveError: if a loss is not finite.
    """
    data = sample(oscillator_chain(), n_times=options.n_times)
    models = {
        "SGD": _model(options, setting.seed),
        "Adam": _model(options, setting.seed),
    }
    study = Study.begin(
        OSCILLATORS,
        options,
        setting,
        title="Three oscillators",
        n_weights=sum(p.numel() for p in models["Adam"].parameters()),
        dynamics=Dynamics(models["Adam"], data),
    )
    windows = cut(data, options.window).to(torch.float64, study.device)
    seconds: dict[str, float] = {}
    with single_thread(study.device.type == "cpu"):
        for model in models.values():
            model.to(study.device)
        compiling = study.once("compile", lambda: _compile(models["Adam"], windows, options))
        for name, model in models.items():
            descent = _descent(name, model, windows, options)
            seconds[name] = study.learn(name, model, descent).seconds
    losses = {name: [line["loss"] for line in study.metrics(name)] for name in models}
    means = {name: sum(x[-LAST:]) / len(x[-LAST:]) for name, x in losses.items()}
    return study.finish(
        sentence=f"After {options.n_steps} steps, which took Adam {number(seconds['Adam'], 2)} s, "
        f"the loss is {number(means['Adam'], 2)} by Adam and {number(means['SGD'], 2)} by SGD.",
        findings=[
            Finding(f"loss of Adam, mean of the last {LAST} steps", means["Adam"], target=2e-3),
            Finding("loss of Adam, last step", losses["Adam"][-1], target=2e-3),
            Finding("training by Adam", seconds["Adam"], target=3.0, unit="s"),
            Finding(f"loss of SGD, mean of the last {LAST} steps", means["SGD"]),
        ],
        result={
            **{f"last loss of {name}": x[-1] for name, x in losses.items()},
            **{f"seconds of training by {name}": x for name, x in seconds.items()},
            "seconds of compiling, before": compiling,
        },
        solver={**SOLVER, "gradient": "discrete"},
    )


OSCILLATORS = Experiment(
    "oscillators",
    "three coupled oscillators learned from windows of one trajectory, by SGD and by Adam",
    OscillatorsOptions,
    run_oscillators,
)


def _model(options: OscillatorsOptions, seed: int) -> LearnedDynamics:
    field = draw_weights(lambda: MLPField(6, options.hidden), seed)
    # The loss is of the states as they are.
    return LearnedDynamics(field, StateTransform.identity(6), **SOLVER)


def _loss(model: LearnedDynamics, windows: Windows) -> Loss:
    """Summed square over the states, mean over windows and all their times, the first included."""
    solution = model.solve(windows.y0, windows.ts)
    error = solution.ys[1:] - windows.targets[1:]
    value = error.square().sum((0, 2)).mean() / len(windows.ts)
    return Loss(value, n_evaluations=int(solution.stats.n_evaluations.max()))


def _compile(model: LearnedDynamics, windows: Windows, options: OscillatorsOptions) -> float:
    """Seconds until solves and gradients run at their pace: kernels come with the second solve."""
    start = time.perf_counter()
    for _ in range(2):
        _loss(model, windows.choose(options.batch, torch.Generator())).value.backward()
    model.zero_grad()
    return time.perf_counter() - start


def _descent(
    name: str, model: LearnedDynamics, windows: Windows, options: OscillatorsOptions
) -> Descent:
    optimiser = {
        "SGD": lambda p: torch.optim.SGD(p, lr=options.sgd_rate, momentum=0.9),
        "Adam": lambda p: torch.optim.Adam(p, lr=options.adam_rate),
    }[name]
    return Descent(
        optimiser(model.parameters()),
        options.n_steps,
        lambda step, generator: windows.choose(options.batch, generator),
        lambda chosen: _loss(model, chosen),
        rate=cosine(final=0.02),
    )
