"""``z(t) = exp(1 - cos t)`` learned from pairs of its values by every gradient there is.

Owns the pairs and what is put side by side: the continuous adjoint over SciPy's LSODA, which is how
the textbooks do it, and odeum's own gradients. Training and the run directory are the
laboratory's.
"""

import statistics
from dataclasses import dataclass
from typing import Annotated, Any

import torch

from odeum import plots
from odeum.datasets import Trajectories, Trajectory
from odeum.errors import InputError
from odeum.lab.descent import Descent, cosine
from odeum.lab.devices import single_thread
from odeum.lab.findings import Finding
from odeum.lab.registry import Experiment, Setting
from odeum.lab.specs import draw_weights
from odeum.lab.study import Dynamics, Studied, Study
from odeum.lab.train import Loss
from odeum.lab.wording import number
from odeum.models import LearnedDynamics, MLPField, StateTransform
from odeum.types import Tensor

LSODA, FORWARD = "adjoint over LSODA", "forward"
WAYS: dict[str, dict[str, Any]] = {
    LSODA: {"method": "scipy:LSODA", "gradient": "adjoint"},
    **{
        name: {"gradient": name}
        for name in ("adjoint", "interpolated", "discrete", "reversible", "autograd", FORWARD)
    },
}
"""How the solve is done and differentiated, by name; what is not said is as in ``SOLVER``."""

SOLVER = {"method": "tsit5", "rtol": 1e-4, "atol": 1e-6}
EARLIEST, LATEST, GAP = -1.0, 9.0, 1.0
"""Pairs begin anywhere between the first two and lie this far apart."""
END = 10.0
UNITS = {"shift": 4.0, "scale": 3.0, "t_shift": 4.5, "t_scale": 0.5}
"""What is learned in: z goes from 1 to e² and t from -1 to 10."""


@dataclass(frozen=True)
class ExpCosOptions:
    """Options of ``exp-cos``.

    Raises:
        InputError: for a value outside its range.
    """

    n_steps: Annotated[int, "optimiser steps with each gradient"] = 400
    n_forward: Annotated[int, "of them, with the gradient that carries sensitivities"] = 10
    batch: Annotated[int, "pairs in a batch"] = 8
    learning_rate: Annotated[float, "at the start of training"] = 0.03
    hidden: Annotated[tuple[int, ...], "widths of the network's hidden layers"] = (32, 32)

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"batch is {self.batch}: give at least 1")
        if not 1 <= self.n_forward <= self.n_steps:
            raise InputError(
                f"n_forward is {self.n_forward} of {self.n_steps} steps: give from 1 to all of them"
            )
        if not 0 < self.learning_rate < 10:
            raise InputError(f"learning_rate is {self.learning_rate}: give a number such as 0.01")
        if min(self.hidden, default=1) < 1:
            raise InputError(f"hidden is {self.hidden}: give widths of at least 1, such as 32,32")


def exact(t: Tensor) -> Tensor:
    """``z(t)``; it solves ``z' = z sin t``.

    Example:
        >>> exact(torch.tensor([0.0, torch.pi / 2]))
        tensor([1.0000, 2.7183])
    """
    return (1 - t.cos()).exp()


def run_exp_cos(options: ExpCosOptions, setting: Setting) -> Studied:
    """Learn from the same pairs with every gradient, from the same weights.

    Args:
        options: how much and how long.
        setting: where and how.

    Returns:
        The finished study, its model the one learned over LSODA; ``summary["result"]`` holds the
        RMSE of each over [0, 10], and how long a step took.

    Raises:
        InputError: if the run directory cannot be used.
        SolveError: if a loss is not finite.
    """
    ts = torch.linspace(0, END, 201, dtype=torch.float64)
    data = Trajectories((Trajectory("exp-cos", ts, exact(ts)[:, None]),), "t", ("z",))
    models = {name: _model(options, setting.seed) for name in WAYS}
    study = Study.begin(
        EXP_COS,
        options,
        setting,
        title="One curve, every gradient",
        n_weights=sum(p.numel() for p in models[LSODA].parameters()),
        dynamics=Dynamics(models[LSODA], data),
    )
    with single_thread(study.device.type == "cpu"):
        for name, model in models.items():
            study.learn(name, model.to(study.device), _descent(name, model, options))
        predicted = {name: _predicted(model, data) for name, model in models.items()}
    errors = {
        name: float((z - exact(ts)).square().mean().sqrt())
        for name, z in predicted.items()
        if name != FORWARD
    }
    milliseconds = {
        name: 1e3 * statistics.median(line["seconds"] for line in study.metrics(name))
        for name in WAYS
    }
    _draw(study, ts, predicted, milliseconds)
    others = [name for name in WAYS if name != LSODA]
    slowest, fastest = (pick(others, key=lambda name: milliseconds[name]) for pick in (max, min))
    return study.finish(
        sentence=f"Learned over LSODA, the curve is off by {number(errors[LSODA], 2)} over "
        f"[0, 10]; a step takes {number(milliseconds[LSODA], 2)} ms there, and from "
        f"{number(milliseconds[fastest], 2)} ms ({fastest}) to "
        f"{number(milliseconds[slowest], 2)} ms ({slowest}) with odeum's own solvers.",
        findings=[
            Finding(f"RMSE over [0, 10], {name}", error, target=0.1)
            for name, error in errors.items()
        ],
        result={f"milliseconds a step, {name}": x for name, x in milliseconds.items()},
        solver=SOLVER,
    )


EXP_COS = Experiment(
    "exp-cos",
    "z = exp(1 - cos t) learned with the adjoint over LSODA and with every other gradient",
    ExpCosOptions,
    run_exp_cos,
)


def _model(options: ExpCosOptions, seed: int) -> LearnedDynamics:
    # Sines learn what swings in far fewer steps than tanh does.
    field = draw_weights(
        lambda: MLPField(1, options.hidden, activation="sin", time_dependent=True), seed
    )
    shift, scale = (torch.tensor([UNITS[x]], dtype=torch.float64) for x in ("shift", "scale"))
    transform = StateTransform(shift, scale, t_shift=UNITS["t_shift"], t_scale=UNITS["t_scale"])
    return LearnedDynamics(field, transform, **SOLVER)


def _descent(name: str, model: LearnedDynamics, options: ExpCosOptions) -> Descent:
    device = model.transform.shift.device
    n_steps = options.n_forward if name == FORWARD else options.n_steps
    slowing = cosine(final=0.01)

    def batch(step: int, generator: torch.Generator) -> Tensor:
        """Times of pairs, [2, batch]."""
        share = torch.rand(options.batch, generator=generator, dtype=torch.float64)
        first = EARLIEST + (LATEST - EARLIEST) * share
        return torch.stack([first, first + GAP]).to(device)

    def loss(times: Tensor) -> Loss:
        before, after = exact(times)[..., None]
        solution = model.solve(before, times, **WAYS[name])
        value = (model.transform.decode(solution.ys[1]) - after).square().mean()
        return Loss(value, n_evaluations=int(solution.stats.n_evaluations.max()))

    return Descent(
        torch.optim.Adam(model.parameters(), lr=options.learning_rate),
        n_steps,
        batch,
        loss,
        # Of all steps, also where only the first of them are taken.
        rate=lambda share: slowing(share * n_steps / options.n_steps),
    )


def _predicted(model: LearnedDynamics, data: Trajectories) -> Tensor:
    """The model's curve from the first value on, [time]."""
    (trajectory,) = data
    device = model.transform.shift.device
    with torch.no_grad():
        y0, ts = trajectory.y[:1].to(device), trajectory.t.to(device)
        solution = model.solve(y0, ts, gradient="none", on_failure="mask")
        return model.transform.decode(solution.ys)[:, 0, 0].cpu()


def _draw(
    study: Study, ts: Tensor, predicted: dict[str, Tensor], milliseconds: dict[str, float]
) -> None:
    ax = plots.trajectories(
        {name: (ts, z) for name, z in predicted.items() if name != FORWARD},
        names=["z"],
        time_name="t",
        observed=(ts[::5], exact(ts[::5])),
    )
    study.draw(
        "fits.png",
        ax,
        title="The fits.",
        caption="Solutions of the equations learned with each gradient, from z(0) = 1; dots are "
        "the true curve. Carrying sensitivities forward costs as many equations as there are "
        "weights: it takes only the first steps, for the comparison of losses and times.",
        alt="The true curve and those learned with each gradient over time",
    )
    ax = plots.bars(milliseconds, name="milliseconds per step", logarithmic=True)
    study.draw(
        "time.png",
        ax,
        title="Time of a step.",
        caption=f"The median over training: {len(milliseconds)} gradients on the same batches.",
        alt="Time per step of training by gradient",
    )
