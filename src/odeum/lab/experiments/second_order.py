"""Curves that cross: a second-order neural ODE against a first-order one.

On a line, two solutions of a first-order equation never meet, so that they keep their order
whatever the field. Owns the families of curves, and the least error that this leaves to any
first-order equation. Training and the run directory are the laboratory's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from odeum import plots
from odeum.errors import InputError
from odeum.lab.descent import Descent, cosine
from odeum.lab.devices import single_thread
from odeum.lab.findings import Finding
from odeum.lab.registry import Experiment, Setting
from odeum.lab.specs import draw_weights
from odeum.lab.study import Studied, Study
from odeum.lab.wording import number
from odeum.models import MLPAcceleration, MLPField, NeuralODE, SecondOrder
from odeum.types import Tensor

KINDS = ("first order", "second order")
SOLVER: dict[str, Any] = {"method": "tsit5", "rtol": 1e-5, "atol": 1e-5}
SPAN = math.pi


@dataclass(frozen=True)
class SecondOrderOptions:
    """Options of ``second-order``.

    Raises:
        InputError: for a value outside its range.
    """

    n_curves: Annotated[int, "curves of each family to learn from"] = 16
    n_times: Annotated[int, "times at which each is observed"] = 25
    n_steps: Annotated[int, "optimiser steps of each model"] = 2000
    learning_rate: Annotated[float, "at the start of training"] = 0.01
    hidden: Annotated[tuple[int, ...], "widths of the networks' hidden layers"] = (32, 32)

    def __post_init__(self) -> None:
        if self.n_curves < 2 or self.n_times < 2:
            raise InputError(
                f"n_curves is {self.n_curves} and n_times is {self.n_times}: give at least 2"
            )
        if self.n_steps < 1:
            raise InputError(f"n_steps is {self.n_steps}: give at least 1")
        if not 0 < self.learning_rate < 10:
            raise InputError(f"learning_rate is {self.learning_rate}: give a number such as 0.01")
        if min(self.hidden, default=1) < 1:
            raise InputError(f"hidden is {self.hidden}: give widths of at least 1, such as 32,32")


def _flip(y0: Tensor, t: Tensor) -> Tensor:
    """Half a swing: every x ends at -x."""
    return y0 * t.cos()


def _waves(y0: Tensor, t: Tensor) -> Tensor:
    """Sine waves whose velocity at the start depends on where they start."""
    frequency, v0 = 2.0, (2 * y0).cos() - y0
    return y0 * (frequency * t).cos() + v0 / frequency * (frequency * t).sin()


def _damped(y0: Tensor, t: Tensor) -> Tensor:
    """Damped oscillations that all start with one velocity."""
    damping, frequency, v0 = 0.25, 3.0, 1.5
    swing = (v0 + damping * y0) / frequency
    return (-damping * t).exp() * (y0 * (frequency * t).cos() + swing * (frequency * t).sin())


FAMILIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "x to −x": _flip,
    "sine waves": _waves,
    "damped oscillations": _damped,
}
"""Curves by name: from starts [batch, 1] and times [time, 1, 1], positions [time, batch, 1]."""


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves of one family at shared times.

    Attributes:
        y0: where they start, [batch, 1].
        ts: times, [time].
        positions: [time, batch, 1].
    """

    y0: Tensor
    ts: Tensor
    positions: Tensor

    def error(self, model: nn.Module) -> Tensor:
        """Mean square error of a model ``(y0, ts) -> positions``, with its graph."""
        return (model(self.y0, self.ts) - self.positions).square().mean()

    def rmse(self, model: nn.Module) -> float:
        """Its root, of the model as it is."""
        with torch.no_grad():
            return float(self.error(model).sqrt())


def least_first_order_error(curves: Curves) -> float:
    """The least RMSE that solutions of any first-order equation on a line can have.

    They keep their order, so at every time the best are the nearest values that do not decrease
    with the start: ``max over a <= i of min over b >= i of mean(y_a .. y_b)``.

    Args:
        curves: their starts increasing.

    Source:
        Barlow, Bartholomew, Bremner & Brunk, Statistical Inference under Order Restrictions
        (1972), section 1.4.

    Example:
        >>> y0 = torch.tensor([[-1.0], [0.0], [1.0]])
        >>> round(least_first_order_error(Curves(y0, torch.zeros(1), -y0[None])), 4)  # all at 0
        0.8165
    """
    squares = []
    for y in curves.positions[..., 0].numpy():
        n = len(y)
        means = {(a, b): y[a : b + 1].mean() for b in range(n) for a in range(b + 1)}
        best = [max(min(means[a, b] for b in range(i, n)) for a in range(i + 1)) for i in range(n)]
        squares.append(np.square(y - best).mean())
    return float(np.sqrt(np.mean(squares)))


def run_second_order(options: SecondOrderOptions, setting: Setting) -> Studied:
    """Learn each family of curves with a first-order and with a second-order model.

    Args:
        options: how many curves, what networks, how long.
        setting: where and how.

    Returns:
        The finished study; ``summary["result"]`` holds the RMSE on curves in between those that
        were learned from, by family and model.

    Raises:
        InputError: if the run directory cannot be used.
        SolveError: if a loss is not finite.
    """
    study = Study.begin(SECOND_ORDER, options, setting, title="Curves that cross")
    errors: dict[str, dict[str, float]] = {}
    tables = []
    with single_thread(study.device.type == "cpu"):
        for family in FAMILIES:
            known, held_out = _curves(family, options)
            known, held_out = (_placed(x, study.device) for x in (known, held_out))
            models = {kind: _model(kind, options, setting.seed).to(study.device) for kind in KINDS}
            for kind, model in models.items():
                descent = _descent(model, known, held_out, options)
                study.learn(f"{family}, {kind}", model, descent)
            errors[family] = {kind: held_out.rmse(model) for kind, model in models.items()}
            errors[family]["least of first order"] = least_first_order_error(
                _placed(held_out, torch.device("cpu"))
            )
            _draw(study, family, models, held_out)
            tables.append(_table(family, models, held_out))
    return study.finish(
        sentence=_sentence(errors),
        predictions=pd.concat(tables),
        findings=_findings(errors),
        result={
            f"{family}, {kind}": value
            for family, found in errors.items()
            for kind, value in found.items()
        },
        solver=SOLVER,
    )


SECOND_ORDER = Experiment(
    "second-order",
    "curves that cross, learned with an initial velocity and by a first-order equation",
    SecondOrderOptions,
    run_second_order,
)


def _curves(family: str, options: SecondOrderOptions) -> tuple[Curves, Curves]:
    """Curves to learn from, and those that start halfway between two of them."""
    y0 = torch.linspace(-1, 1, 2 * options.n_curves - 1, dtype=torch.float64)[:, None]
    ts = torch.linspace(0, SPAN, options.n_times, dtype=torch.float64)
    positions = FAMILIES[family](y0, ts[:, None, None])
    return Curves(y0[::2], ts, positions[:, ::2]), Curves(y0[1::2], ts, positions[:, 1::2])


def _placed(curves: Curves, device: torch.device) -> Curves:
    return Curves(*(x.to(device) for x in (curves.y0, curves.ts, curves.positions)))


def _model(kind: str, options: SecondOrderOptions, seed: int) -> nn.Module:
    """Models of about as many weights; the first-order one may also look at the time."""

    def make() -> nn.Module:
        if kind == "first order":
            field = MLPField(1, options.hidden, time_dependent=True)
            return NeuralODE(field, **SOLVER)
        velocity = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
        return SecondOrder(MLPAcceleration(1, options.hidden), velocity, **SOLVER)

    return draw_weights(make, seed)


def _descent(
    model: nn.Module, known: Curves, held_out: Curves, options: SecondOrderOptions
) -> Descent:
    return Descent(
        torch.optim.Adam(model.parameters(), lr=options.learning_rate),
        options.n_steps,
        lambda step, generator: known,
        lambda curves: curves.error(model),
        rate=cosine(final=0.01),
        every=min(20, options.n_steps),
        evaluate=lambda: {"held_out": held_out.rmse(model)},
    )


def _draw(study: Study, family: str, models: dict[str, nn.Module], held_out: Curves) -> None:
    y0 = held_out.y0
    fine = torch.linspace(0, SPAN, 200, dtype=y0.dtype, device=y0.device)
    axes = plots.panels(len(models), n_columns=2, size=(4.0, 3.3), share=True)
    for ax, (kind, model) in zip(axes, models.items(), strict=True):
        with torch.no_grad():
            ys = model(y0, fine)
        seen = (held_out.ts, held_out.positions)
        plots.trajectories(fine, ys, names=["y"], time_name="t", observed=seen, label=kind, ax=ax)
    file = f"{''.join(c if c.isascii() and c.isalnum() else '_' for c in family)}.png"
    study.draw(
        file,
        axes,
        title=f"{family[0].upper()}{family[1:]}.",
        caption="Lines are solutions of the learned equations, dots the curves, which start in "
        "between those that were learned from.",
        alt=f"Curves of the family {family} and the solutions of a first-order and a second-order "
        "model",
    )


def _table(family: str, models: dict[str, nn.Module], held_out: Curves) -> pd.DataFrame:
    n_times, n_curves = held_out.positions.shape[:2]
    columns: dict[str, Any] = {
        "family": family,
        "curve": np.tile(np.arange(1, n_curves + 1), n_times),
        "t": np.repeat(held_out.ts.cpu().numpy(), n_curves),
        "y": held_out.positions.cpu().numpy().ravel(),
    }
    with torch.no_grad():
        for kind, model in models.items():
            columns[kind] = model(held_out.y0, held_out.ts).cpu().numpy().ravel()
    return pd.DataFrame(columns)


def _findings(errors: dict[str, dict[str, float]]) -> list[Finding]:
    """The second-order model is held against the least that any first-order one can reach."""
    kinds = [("second order", "least of first order"), ("first order", None)]
    return [
        Finding(f"RMSE on {family}, {kind}", found[kind], target=found[least] if least else None)
        for kind, least in kinds
        for family, found in errors.items()
    ]


def _sentence(errors: dict[str, dict[str, float]]) -> str:
    second, first, least = (
        ", ".join(number(found[kind], 2) for found in errors.values())
        for kind in ("second order", "first order", "least of first order")
    )
    return (
        f"On curves in between, the second-order model is off by {second} ({', '.join(errors)}), "
        f"the first-order one by {first}; no first-order equation can be off by less than {least}."
    )
