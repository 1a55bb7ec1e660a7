"""Plain, Hamiltonian and Lagrangian networks side by side: who keeps the energy.

Owns how the three are trained alike and compared; what they learn from is `mechanics`'.

Data, sizes of networks and measures are those of Greydanus, Dzamba & Yosinski, Hamiltonian Neural
Networks (NeurIPS 2019). Other than there, the learning rate falls to nothing, noisy systems are
learned in 600 steps rather than 2000 (later ones fit the noise) with more weight decay, and
energies are compared from 50 starts rather than 15.
"""

import copy
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pandas as pd
import torch
from torch import nn

import odeum
from odeum.errors import InputError
from odeum.lab.descent import Descent, cosine
from odeum.lab.experiments.hamiltonian_figures import draw_energies, draw_example
from odeum.lab.experiments.mechanics import (
    PENDULUM,
    SPRING,
    TASKS,
    TWO_BODY,
    InMomenta,
    Observations,
    Task,
)
from odeum.lab.findings import Finding
from odeum.lab.registry import Experiment, Setting
from odeum.lab.specs import draw_weights
from odeum.lab.study import Studied, Study
from odeum.lab.wording import number
from odeum.models import HamiltonianField, LagrangianField, MLPField
from odeum.models.energy import begin_orthogonal, derivative_error
from odeum.types import Tensor

TaskName = Literal["all", "spring", "pendulum", "two-body"]

KINDS = PLAIN, HAMILTONIAN, LAGRANGIAN = ("plain", "Hamiltonian", "Lagrangian")

SOURCE = "Greydanus et al. 2019"
PUBLISHED_LOSS = {
    SPRING.name: {PLAIN: 3.7e-2, HAMILTONIAN: 3.6e-2},
    PENDULUM.name: {PLAIN: 3.5e-2, HAMILTONIAN: 3.6e-2},
    TWO_BODY.name: {PLAIN: 3.0e-5, HAMILTONIAN: 2.8e-6},
}
PUBLISHED_ENERGY = {
    SPRING.name: {PLAIN: 1.7e-1, HAMILTONIAN: 3.8e-4},
    PENDULUM.name: {PLAIN: 4.2e-2, HAMILTONIAN: 2.5e-2},
    TWO_BODY.name: {PLAIN: 6.3e-2, HAMILTONIAN: 3.9e-5},
}
"""Mean square errors of the derivatives and of the energy, table 1 and the authors' code."""

TIMES_BETTER = 10.0
"""What the Hamiltonian network's energy MSE is to be below the plain one's by."""

_TEST_SEED = 10_000
"""Added to the seed for the starts of the tests, which so are others than those learned from."""

RTOL = 1e-7
"""Tolerance of the solves in which energies are compared: what is seen is the network's error."""

N_COMPARED, N_SHOWN = 100, 401
"""Times at which energies are compared, as in the authors' code, and at which paths are shown."""

N_DRIFTS = 15
"""Starts, at most, from which the energy is followed over many periods."""

PER_PERIOD = 40
"""Times per period at which a drift is looked at."""

MOST_STEPS = 5000
"""Steps of a solve, beyond which its row counts as lost: it fell into what was never learned."""


@dataclass(frozen=True)
class Plan:
    """How long networks are trained on a task.

    Attributes:
        n_steps: optimiser steps of the plain and the Hamiltonian network.
        n_lagrangian: of the Lagrangian one, each of which takes several times as long.
        batch: states in a batch; None for all.
        weight_decay: of Adam.
    """

    n_steps: int
    n_lagrangian: int
    batch: int | None
    weight_decay: float


PLANS = {
    SPRING.name: Plan(600, 600, None, 1e-3),
    PENDULUM.name: Plan(600, 600, None, 1e-3),
    TWO_BODY.name: Plan(10_000, 2000, 200, 0.0),
}


@dataclass(frozen=True)
class HamiltonianOptions:
    """Options of ``hamiltonian``.

    Raises:
        InputError: for a value outside its range.
    """

    task: Annotated[TaskName, "system: all, spring, pendulum or two-body"] = "all"
    hidden: Annotated[tuple[int, ...], "widths of every network's hidden layers"] = (200, 200)
    learning_rate: Annotated[float, "of Adam at the start; it falls to nothing"] = 1e-3
    effort: Annotated[float, "optimiser steps, as a share of the usual ones"] = 1.0
    n_trajectories: Annotated[int, "trajectories to learn from, at most"] = 800
    n_tests: Annotated[int, "starts from which energies are compared"] = 50
    n_periods: Annotated[int, "periods over which the energy may drift"] = 20

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < 10:
            raise InputError(f"learning_rate is {self.learning_rate}: give a number such as 0.001")
        if not 0 < self.effort <= 100:
            raise InputError(f"effort is {self.effort}: give a number above 0, such as 1")
        for name in ("n_trajectories", "n_tests", "n_periods"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give at least 1")
        if min(self.hidden, default=0) < 1:
            raise InputError(f"hidden is {self.hidden}: give widths of at least 1, such as 200,200")


def run_hamiltonian(options: HamiltonianOptions, setting: Setting) -> Studied:
    """Learn each system with three networks, and compare how they keep its energy.

    Args:
        options: which systems, and how long.
        setting: where and how.

    Returns:
        The finished study.

    Raises:
        InputError: if the run directory cannot be used.
        SolveError: if a loss is not finite.
    """
    tasks = list(TASKS.values()) if options.task == "all" else [TASKS[options.task]]
    study = Study.begin(
        EXPERIMENT,
        options,
        setting,
        title="Networks that keep the energy",
        n_weights=sum(width**2 for width in options.hidden),
    )
    findings: list[Finding] = []
    tables, ratios = [], {}
    for whole in tasks:
        task = whole.smaller(options.n_trajectories)
        measured, table = _compare(study, task, options, setting.seed)
        findings += _findings(task, measured, options.n_periods)
        ratios[task.title] = measured[PLAIN]["energy"] / measured[HAMILTONIAN]["energy"]
        tables.append(table)
    shares = ", ".join(f"1/{number(ratio, 2)} for the {name}" for name, ratio in ratios.items())
    return study.finish(
        sentence="Along solutions of the Hamiltonian network, the mean square error of the energy "
        f"is this share of the plain network's: {shares}.",
        findings=findings,
        predictions=pd.concat(tables, ignore_index=True),
        solver={"method": "tsit5", "rtol": RTOL, "atol": RTOL},
    )


EXPERIMENT = Experiment(
    "hamiltonian",
    "spring, pendulum and two bodies by plain, Hamiltonian and Lagrangian networks",
    HamiltonianOptions,
    run_hamiltonian,
)


def _field(task: Task, kind: str, hidden: tuple[int, ...]) -> nn.Module:
    """A network of a kind, as a field of (q, p)."""
    if kind == HAMILTONIAN:
        return HamiltonianField(task.dim, hidden)
    if kind == LAGRANGIAN:
        return InMomenta(LagrangianField(task.dim, hidden), task.mass)
    field = MLPField(task.dim, hidden)
    begin_orthogonal(field)  # as the others do
    return field


def _compare(
    study: Study, task: Task, options: HamiltonianOptions, seed: int
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Learn, measure and draw one task: what :func:`_measure` gives per kind, and the example."""
    known, unseen = task.observe(seed)
    learned = {kind: _learned(study, task, kind, known, options, seed) for kind in KINDS}
    measured = study.once(
        f"{task.name}, measured",
        lambda: {k: _measure(task, field, unseen, options, seed) for k, field in learned.items()},
    )
    ts = _times(task, N_SHOWN)
    paths = {
        kind: solve(field, task.example, ts).squeeze(1)
        for kind, field in {"true": task.field, **learned}.items()
    }
    draw_example(study, task, learned, ts, paths)
    draw_energies(study, task, measured, options.n_periods)
    return measured, _table(task, ts, paths)


def _learned(
    study: Study,
    task: Task,
    kind: str,
    known: Observations,
    options: HamiltonianOptions,
    seed: int,
) -> nn.Module:
    """A trained network, in float64 on the CPU."""
    plan = PLANS[task.name]
    field = draw_weights(lambda: _field(task, kind, options.hidden), seed)
    field.to(study.device, torch.float32)
    y, dydt = (x.to(study.device, torch.float32) for x in (known.y, known.dydt))

    def batch(step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if plan.batch is None:
            return y, dydt
        chosen = torch.randint(len(y), (plan.batch,), generator=generator).to(study.device)
        return y[chosen], dydt[chosen]

    n_steps = plan.n_lagrangian if kind == LAGRANGIAN else plan.n_steps
    n_steps = max(1, round(options.effort * n_steps))
    descent = Descent(
        torch.optim.Adam(
            field.parameters(), lr=options.learning_rate, weight_decay=plan.weight_decay
        ),
        n_steps,
        batch,
        lambda batch: derivative_error(field, *batch),
        rate=cosine(),
        every=min(100, n_steps),
    )
    study.learn(f"{task.name}, {kind}", field, descent)
    return copy.deepcopy(field).to("cpu", torch.float64)


def solve(field: nn.Module, y0: Tensor, ts: Tensor) -> Tensor:
    """States of a learned field, [time, batch, dim]; NaN in rows that were lost, from then on."""
    with torch.no_grad():
        return odeum.solve(
            field,
            y0,
            ts,
            method="tsit5",
            rtol=RTOL,
            atol=RTOL,
            gradient="none",
            on_failure="mask",
            step=odeum.StepOptions(max_steps=MOST_STEPS),
        ).ys


def _measure(
    task: Task, field: nn.Module, unseen: Observations, options: HamiltonianOptions, seed: int
) -> dict[str, Any]:
    """Errors of a learned field: of derivatives, of the energy, and how far that drifts.

    The drift is the difference of the mean over the last period from the start, relative to it.
    """
    with torch.no_grad():
        loss = float(derivative_error(field, unseen.y, unseen.dydt))
    y0 = task.draw_tests(options.n_tests, torch.Generator().manual_seed(_TEST_SEED + seed))
    errors = task.energy(solve(field, y0, _times(task, N_COMPARED))) - task.energy(y0)
    y0 = y0[:N_DRIFTS]
    true = task.energy(y0)
    turns = torch.linspace(0, options.n_periods, PER_PERIOD * options.n_periods + 1).double()
    energies = task.energy(solve(field, y0, turns[:, None] * task.period(true)))
    drifts = (energies[-PER_PERIOD:].mean(0) - true).abs() / true.abs()
    lost = drifts.isnan()
    return {
        "loss": loss,
        "energy": float(errors.square().mean()),
        "drift": float(drifts.where(~lost, torch.inf).median()),
        "n_lost": int(lost.sum()),
        "turns": turns,
        "energies": energies[:, 0] / true[0],
    }


def _times(task: Task, n_times: int) -> Tensor:
    """Up to the horizon, [n_times]."""
    return torch.linspace(0, task.horizon, n_times).double()


def _findings(task: Task, measured: dict[str, Any], n_periods: int) -> list[Finding]:
    """The table of a task, what has a target first."""
    published = PUBLISHED_ENERGY[task.name]
    hamiltonian = measured[HAMILTONIAN]["energy"]
    found = [
        Finding(
            f"{task.title}: energy MSE, {HAMILTONIAN}",
            hamiltonian,
            target=published[HAMILTONIAN],
            published=published[HAMILTONIAN],
            source=SOURCE,
        ),
        Finding(
            f"{task.title}: energy MSE, {PLAIN} by {HAMILTONIAN}",
            measured[PLAIN]["energy"] / hamiltonian,
            target=TIMES_BETTER,
            published=published[PLAIN] / published[HAMILTONIAN],
            better="higher",
            source=SOURCE,
        ),
    ]
    for what, key, table in (
        ("energy MSE", "energy", {PLAIN: published[PLAIN]}),
        ("test loss", "loss", PUBLISHED_LOSS[task.name]),
        (f"drift over {n_periods} periods", "drift", {}),
    ):
        for kind in KINDS:
            if key == "energy" and kind == HAMILTONIAN:
                continue
            found.append(
                Finding(
                    f"{task.title}: {what}, {kind}",
                    measured[kind][key],
                    published=table.get(kind),
                    source=SOURCE if kind in table else "",
                )
            )
    return found


def _table(task: Task, ts: Tensor, paths: dict[str, Tensor]) -> pd.DataFrame:
    """States of the example, true and solved."""
    parts = [
        pd.DataFrame(
            {"task": task.name, "model": kind, "t": ts.numpy()}
            | dict(zip(task.state_names, y.T.numpy(), strict=True))
        )
        for kind, y in paths.items()
    ]
    return pd.concat(parts, ignore_index=True)
