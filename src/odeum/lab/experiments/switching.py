"""Two linear systems blended in the plane, learned by a network from random spans of one path.

Owns what is observed, how spans are drawn and what counts as the error. Training and the run
directory are the laboratory's.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch

from odeum import plots
from odeum.datasets import Trajectories, sample
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
from odeum.systems import switching
from odeum.types import Tensor

SOLVER = {"method": "tsit5", "rtol": 1e-5, "atol": 1e-5}
SHORT, SHORT_SHARE = 8, 0.2
"""Rows of the longest spans at first, and for what share of the steps: from a guess, a long span
leads nowhere."""


@dataclass(frozen=True)
class SwitchingOptions:
    """Options of ``switching``.

    Raises:
        InputError: for a value outside its range.
    """

    n_times: Annotated[int, "observations of the path over five turns"] = 200
    noise: Annotated[float, "standard deviation of the noise on both states"] = 0.01
    longest: Annotated[int, "rows of the longest spans to learn from"] = 32
    batch: Annotated[int, "spans in a batch"] = 64
    n_steps: Annotated[int, "optimiser steps"] = 4000
    learning_rate: Annotated[float, "at the start of training"] = 0.01
    hidden: Annotated[tuple[int, ...], "widths of the network's hidden layers"] = (32, 32)

    def __post_init__(self) -> None:
        if not 2 <= self.longest <= self.n_times:
            raise InputError(
                f"longest is {self.longest} of {self.n_times} rows: give from 2 to all of them"
            )
        if self.noise < 0:
            raise InputError(f"noise is {self.noise}: give a number of at least 0")
        for name in ("batch", "n_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give at least 1")
        if not 0 < self.learning_rate < 10:
            raise InputError(f"learning_rate is {self.learning_rate}: give a number such as 0.01")
        if min(self.hidden, default=1) < 1:
            raise InputError(f"hidden is {self.hidden}: give widths of at least 1, such as 32,32")


def run_switching(options: SwitchingOptions, setting: Setting) -> Studied:
    """Learn the field from noisy observations of one path, and follow that path with it.

    Args:
        options: what is observed and how it is learned.
        setting: where and how.

    Returns:
        The finished study; ``summary["result"]`` holds the RMSE over the full span from the true
        start and from the observed one.

    Raises:
        InputError: if the run directory cannot be used.
        SolveError: if the loss is not finite.
    """
    data = sample(switching(), n_times=options.n_times, noise=options.noise, seed=setting.seed)
    field = draw_weights(lambda: MLPField(2, options.hidden, "elu"), setting.seed)
    # The states are of size one as they are.
    model = LearnedDynamics(field, StateTransform.identity(2), **SOLVER)
    study = Study.begin(
        SWITCHING,
        options,
        setting,
        title="Two centres",
        n_weights=sum(p.numel() for p in field.parameters()),
        dynamics=Dynamics(model, data),
    )
    model.to(study.device)
    truth = sample(switching(), n_times=options.n_times)
    with single_thread(study.device.type == "cpu"):
        study.learn("network", model, _descent(model, data, truth, options, study.device))
        ys = {
            "true": truth.trajectories[0].y,
            "from the true start": _followed(model, truth, truth),
            "from the observed start": _followed(model, data, truth),
        }
    errors = {name: _rmse(y, ys["true"]) for name, y in ys.items() if name != "true"}
    _draw(study, data, ys)
    error = errors["from the true start"]
    return study.finish(
        sentence=f"From observations with noise of {number(options.noise, trim=True)}, the network "
        f"follows the path over its full span to within {number(error, 2)} on average.",
        findings=[Finding("trajectory RMSE over the full span", error, target=0.05)],
        result={f"RMSE {name}": value for name, value in errors.items()},
        solver={**SOLVER, "gradient": "discrete"},
    )


SWITCHING = Experiment(
    "switching",
    "two linear systems blended in the plane, learned from random spans of one path",
    SwitchingOptions,
    run_switching,
)


def _descent(
    model: LearnedDynamics,
    data: Trajectories,
    truth: Trajectories,
    options: SwitchingOptions,
    device: torch.device,
) -> Descent:
    lengths = (min(SHORT, options.longest), options.longest)
    kinds = [cut(data, length).to(torch.float64, device) for length in lengths]

    def batch(step: int, generator: torch.Generator) -> Windows:
        windows = kinds[step >= SHORT_SHARE * options.n_steps]
        chosen = windows.choose(options.batch, generator)
        # Spans that end anywhere in their window.
        last = torch.randint(1, len(chosen.ts), (len(chosen),), generator=generator).to(device)
        beyond = torch.arange(len(chosen.ts), device=device)[:, None] > last
        return replace(chosen, targets=chosen.targets.masked_fill(beyond[..., None], torch.nan))

    def loss(windows: Windows) -> Loss:
        solution = model.solve(windows.y0, windows.ts)
        seen = ~torch.isnan(windows.targets)
        error = torch.where(seen, solution.ys - windows.targets.where(seen, 0.0), 0.0)
        value = error.square().sum() / seen.sum()
        return Loss(value, n_evaluations=int(solution.stats.n_evaluations.max()))

    return Descent(
        torch.optim.Adam(model.parameters(), lr=options.learning_rate),
        options.n_steps,
        batch,
        loss,
        rate=cosine(final=0.02),
        every=min(50, options.n_steps),
        evaluate=lambda: {"rmse": _rmse(_followed(model, truth, truth), truth.trajectories[0].y)},
    )


def _followed(model: LearnedDynamics, start: Trajectories, truth: Trajectories) -> Tensor:
    """The model's states at the times of the truth, from another's first row, [time, dim]."""
    ts, device = truth.trajectories[0].t, model.transform.shift.device
    y0 = start.trajectories[0].y[:1].to(device)
    with torch.no_grad():
        solution = model.solve(y0, ts.to(device), gradient="none", on_failure="mask")
    return solution.ys[:, 0].cpu()


def _rmse(y: Tensor, true: Tensor) -> float:
    return float((y - true).square().mean().sqrt())


def _draw(study: Study, data: Trajectories, ys: dict[str, Tensor]) -> None:
    observed = data.trajectories[0]
    shown = {name: ys[name] for name in ("true", "from the true start")}
    panels = plots.trajectory_panels(
        {"learned − true": (observed.t, ys["from the true start"] - ys["true"])},
        names=[f"error of {name}" for name in data.state_names],
        time_name="t",
    )
    study.draw(
        "error.png",
        panels,
        title="The error.",
        caption="The learned path, from the true start, minus the true one.",
        alt="Difference of the learned and the true path over time",
    )
    low, high = observed.y.min(0).values - 0.5, observed.y.max(0).values + 0.5
    limits: dict[str, Any] = {
        name: (float(low[i]), float(high[i])) for i, name in enumerate(("xlim", "ylim"))
    }
    ax = plots.phase_portrait(
        switching(), trajectories=shown, observed=observed.y, names=data.state_names, **limits
    )
    study.draw(
        "true_field.png",
        ax,
        title="Over the true field.",
        caption="The true and the learned path over the streamlines of the true field.",
        alt="True and learned path over the streamlines of the true field",
    )
