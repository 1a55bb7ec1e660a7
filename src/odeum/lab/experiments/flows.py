"""Continuous normalising flows on FFJORD's toy densities of the plane, by maximum likelihood.

Owns how a flow is trained and how it is judged: by the entropy of what it learned from, which no
model's mean negative log-density falls below, by its mass, and by the determinant of its map.
Training and the run directory are the laboratory's.
"""

import copy
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pandas as pd
import torch

from odeum import plots
from odeum.datasets import TOYS, toy, toy_log_density
from odeum.errors import InputError
from odeum.lab.descent import Descent, cosine
from odeum.lab.findings import Finding
from odeum.lab.registry import Experiment, Setting
from odeum.lab.specs import draw_weights
from odeum.lab.study import Studied, Study
from odeum.lab.wording import number
from odeum.models import ContinuousFlow, FlowField
from odeum.types import Tensor

Data = Literal[
    "eight_gaussians",
    "moons",
    "circles",
    "rings",
    "swissroll",
    "two_spirals",
    "checkerboard",
    "pinwheel",
    "all",
]

MARGINS = {"eight_gaussians": 0.1, "moons": 0.1, "pinwheel": 0.1}
"""Nats above the entropy that a flow may stay; 0.2 for the others."""

SOLVER: dict[str, Any] = {"method": "tsit5", "rtol": 1e-4, "atol": 1e-5}
JUDGED: dict[str, Any] = {"method": "tsit5", "rtol": 1e-6, "atol": 1e-6}

LIMITS = (-6.0, 6.0)
"""Of the square over which a density is integrated."""

DRAWN = (-4.5, 4.5)
"""Of the square that is drawn: it holds all toys."""

N_SIDE = 300
"""Points of its grid on a side: two to a standard deviation of the sharpest toy's noise."""

N_CHECKED = 64
"""Points at which the log-determinant is held against that of the map."""

HELD_OUT_SEED = 2**40
"""Of the points that flows are judged on. Those they learn from have seeds below it."""


@dataclass(frozen=True)
class FlowsOptions:
    """Options of ``flows``.

    Raises:
        InputError: for a value outside its range.
    """

    data: Annotated[Data, "a toy density, or all of them"] = "pinwheel"
    n_steps: Annotated[int, "optimiser steps"] = 5000
    n_rows: Annotated[int, "points a step, all of them new"] = 512
    learning_rate: Annotated[float, "at the start of training"] = 0.005
    hidden: Annotated[tuple[int, ...], "widths of the network's two hidden layers"] = (64, 64)
    trace: Annotated[Literal["exact", "hutchinson"], "how training takes it"] = "exact"
    kinetic: Annotated[float, "weight of the kinetic energy in the loss"] = 0.0
    jacobian: Annotated[float, "weight of the Jacobian's norm in the loss"] = 0.0
    n_held_out: Annotated[int, "points that it is judged on"] = 20_000

    def __post_init__(self) -> None:
        if min(self.n_steps, self.n_rows, self.n_held_out) < 1:
            raise InputError(
                f"n_steps is {self.n_steps}, n_rows {self.n_rows} and n_held_out "
                f"{self.n_held_out}: give at least 1 for each"
            )
        if not 0 < self.learning_rate < 1:
            raise InputError(f"learning_rate is {self.learning_rate}: give a number such as 0.005")
        if min(self.kinetic, self.jacobian) < 0:
            raise InputError(
                f"kinetic is {self.kinetic} and jacobian {self.jacobian}: give weights of 0 or more"
            )
        if len(self.hidden) != 2 or min(self.hidden) < 1:
            raise InputError(f"hidden is {self.hidden}: give two widths, such as 64,64")


def run_flows(options: FlowsOptions, setting: Setting) -> Studied:
    """Learn one toy density or all of them, and judge each flow.

    Args:
        options: what to learn, by what network, how long.
        setting: where and how.

    Returns:
        The finished study; its findings hold, for each toy, the held-out negative log-density
        beside the entropy.

    Raises:
        InputError: if the run directory cannot be used.
        SolveError: if a loss is not finite, or a row cannot be solved.
    """
    names = list(TOYS) if options.data == "all" else [options.data]
    flows = {name: _flow(options, setting.seed) for name in names}
    n_weights = sum(weights.numel() for weights in flows[names[0]].parameters())
    study = Study.begin(
        FLOWS, options, setting, title="Continuous normalising flows", n_weights=n_weights
    )
    findings: list[Finding] = []
    result: dict[str, Any] = {}
    tables = []
    for name, flow in flows.items():
        judged = _learned(study, name, flow.to(study.device), options)
        findings += _findings(name, judged)
        result |= {f"{name}: {what}": judged[what] for what in RESULTS}
        tables.append(_table(name, judged))
        _draw(study, name, flow, judged)
    return study.finish(
        sentence=_sentence(findings, list(names)),
        predictions=pd.concat(tables),
        findings=findings,
        result=result,
        solver=SOLVER,
    )


FLOWS = Experiment(
    "flows",
    "continuous normalising flows on toy densities of the plane",
    FlowsOptions,
    run_flows,
)


def _learned(
    study: Study, name: str, flow: ContinuousFlow, options: FlowsOptions
) -> dict[str, Any]:
    """Trains a flow, and what is found of it."""
    progress = study.learn(name, flow, _descent(flow, name, options))
    judged = study.once(f"{name}, judged", lambda: _judged(flow, name, options.n_held_out))
    return judged | {"seconds": progress.seconds}


def _flow(options: FlowsOptions, seed: int) -> ContinuousFlow:
    field = draw_weights(lambda: FlowField(2, options.hidden), seed)
    flow = ContinuousFlow(
        field, trace=options.trace, kinetic=options.kinetic, jacobian=options.jacobian, **SOLVER
    )
    return flow.float()


def _descent(flow: ContinuousFlow, name: str, options: FlowsOptions) -> Descent:
    like = next(flow.parameters())
    validation = toy(name, 2000, HELD_OUT_SEED + 1)[0].to(like)

    def batch(step: int, generator: torch.Generator) -> Tensor:
        seed = int(torch.randint(HELD_OUT_SEED, (), generator=generator))
        return toy(name, options.n_rows, seed)[0].to(like)

    return Descent(
        torch.optim.Adam(flow.parameters(), lr=options.learning_rate),
        options.n_steps,
        batch,
        flow.loss,
        rate=cosine(warm_up=min(0.01, 1 / options.n_steps)),
        every=max(1, options.n_steps // 30),
        evaluate=lambda: {key: float(x) for key, x in flow.metrics(validation).items()},
    )


RESULTS = ("Kullback-Leibler divergence", "negative log-density by Hutchinson's estimate")
"""What is told of a flow beside the findings."""


def _judged(flow: ContinuousFlow, name: str, n_held_out: int) -> dict[str, Any]:
    """Numbers about a flow in float64, with exact traces, at a tight tolerance.

    The divergence is the mean of ``log p - log q`` over points of p: from the same points, far
    more certain than either mean.
    """
    flow = copy.deepcopy(flow).double()
    flow.options, flow.trace = JUDGED, "exact"
    like = next(flow.parameters())
    points = toy(name, n_held_out, HELD_OUT_SEED)[0].to(like)
    grid, cell = _grid(LIMITS, N_SIDE)
    with torch.no_grad():
        learned = flow.log_prob(points).cpu()
        density = flow.log_prob(grid.to(like)).exp().cpu()
        true = toy_log_density(name, points).cpu()
        flow.trace = "hutchinson"
        estimated = -float(flow.log_prob(points).mean())
    return {
        "negative log-density": -float(learned.mean()),
        "Kullback-Leibler divergence": float((true - learned).mean()),
        "mass": float(density.sum()) * cell,
        "identity": _error_of_determinant(flow, points[:N_CHECKED]),
        "negative log-density by Hutchinson's estimate": estimated,
        "points": points.cpu(),
        "learned": learned,
        "true": true,
        "density": density.float(),
    }


def _error_of_determinant(flow: ContinuousFlow, x: Tensor) -> float:
    """The largest distance of ``log|det dz/dx|`` as integrated from that of the map itself."""
    flow.options, flow.trace = {**JUDGED, "rtol": 1e-9, "atol": 1e-9}, "exact"
    x = x.clone().requires_grad_()
    z, log_det = flow.inverse(x)
    rows = [torch.autograd.grad(z[:, i].sum(), x, retain_graph=True)[0] for i in range(2)]
    return float((torch.linalg.slogdet(torch.stack(rows, 1))[1] - log_det).detach().abs().max())


def _grid(limits: tuple[float, float], n_side: int) -> tuple[Tensor, float]:
    """The middles of the cells of a square, [n_side^2, 2], and the area of a cell."""
    side = (limits[1] - limits[0]) / n_side
    axis = limits[0] + side * (torch.arange(n_side, dtype=torch.float64) + 0.5)
    return torch.cartesian_prod(axis, axis), side**2


def _findings(name: str, judged: dict[str, Any]) -> list[Finding]:
    entropy = TOYS[name].entropy
    return [
        Finding(
            f"{name}: negative log-density, held out",
            judged["negative log-density"],
            target=round(entropy + MARGINS.get(name, 0.2), 4),
            published=entropy,
            unit="nats",
            source="the entropy: no model is lower",
        ),
        Finding(f"{name}: mass, distance from 1", abs(judged["mass"] - 1), target=0.01),
        Finding(f"{name}: log-determinant, largest error", judged["identity"], target=1e-6),
        Finding(f"{name}: training", judged["seconds"], target=300, unit="s"),
    ]


def _sentence(findings: list[Finding], names: list[str]) -> str:
    held_out = findings[:: len(findings) // len(names)]
    n_reached = sum(bool(finding.reached) for finding in held_out)
    distances = ", ".join(
        f"{number(finding.value - (finding.published or 0), 2)} ({name})"
        for finding, name in zip(held_out, names, strict=True)
    )
    return (
        f"Held-out points are less likely to the flow than to the density itself by {distances} "
        f"nats; {n_reached} of {len(names)} within the target."
    )


def _table(name: str, judged: dict[str, Any], n: int = 2000) -> pd.DataFrame:
    """Points with both log-densities, the first of those held out."""
    points = judged["points"][:n]
    return pd.DataFrame(
        {
            "data": name,
            "x1": points[:, 0],
            "x2": points[:, 1],
            "log_density": judged["learned"][:n],
            "true_log_density": judged["true"][:n],
        }
    )


def _draw(study: Study, name: str, flow: ContinuousFlow, judged: dict[str, Any]) -> None:
    inside = slice(*(round((x - LIMITS[0]) / (LIMITS[1] - LIMITS[0]) * N_SIDE) for x in DRAWN))
    grid, _ = _grid(DRAWN, N_SIDE // 2)
    like = next(flow.parameters())
    with torch.no_grad():
        samples = flow.sample(3000).cpu()
        start = flow.base.rsample(torch.Size([3000]))
        on_grid, times = grid.to(like), [flow.t1 * share for share in (0.25, 0.5, 0.75, 1.0)]
        densities = {"t = 0": flow.base.log_prob(on_grid)}
        carried = {"t = 0": start}
        for t in times:
            densities[f"t = {t:g}"] = flow.log_prob(on_grid, t)
            carried[f"t = {t:g}"] = flow.transform(start, t)[0]
    square: dict[str, Any] = {"xlim": DRAWN, "ylim": DRAWN, "names": ("$x_1$", "$x_2$")}
    truth = toy_log_density(name, grid).exp().reshape(N_SIDE // 2, -1)
    learned = judged["density"].reshape(N_SIDE, N_SIDE)[inside, inside]
    study.draw(
        f"{name}.png",
        plots.density_panels(
            {"the density": truth, "the flow": learned},
            {"the density": judged["points"][:3000], "the flow": samples},
            alike=True,
            **square,
        ),
        title="Densities and samples.",
        caption="What was learned from, and what was learned; one colour is one density in both.",
        alt=f"The {name} density beside that of the flow, over samples of both",
        section=name,
    )
    study.draw(
        f"{name}_over_time.png",
        plots.density_panels(
            {title: x.exp().reshape(N_SIDE // 2, -1) for title, x in densities.items()},
            carried,
            **square,
        ),
        title="The way there.",
        caption="The flow's density from the standard normal one to the data, over the same 3000 "
        "points at these times; the darkest colour is each density's own highest.",
        alt=f"The density of the flow at five times, from a normal one to {name}",
        section=name,
    )
