"""Lorenz's attractor learned from one noisy trajectory: forecasts, and statistics in the long run.

Owns what is observed, in what stages it is learned and what is held against the truth. What noise
calls for is `smoothed`'s, how a chaotic forecast is judged `chaos`'s; training and the run
directory are the laboratory's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch

from odeum import plots, solve
from odeum.datasets import Trajectories, Trajectory
from odeum.errors import InputError
from odeum.lab.descent import Descent, cosine
from odeum.lab.devices import single_thread
from odeum.lab.experiments import chaos
from odeum.lab.experiments.smoothed import Smoothed
from odeum.lab.findings import Finding
from odeum.lab.registry import Experiment, Setting
from odeum.lab.specs import draw_weights
from odeum.lab.study import Dynamics, Studied, Study
from odeum.lab.wording import number
from odeum.models import LearnedDynamics, MLPField, StateTransform
from odeum.systems import lorenz
from odeum.types import Tensor

LYAPUNOV = 0.9056
"""The largest exponent at the classical constants (Sprott, Chaos and Time-Series Analysis 2003)."""

SOLVER: dict[str, Any] = {"method": "tsit5", "rtol": 1e-6, "atol": 1e-6}
TRUTH: dict[str, Any] = {"method": "tsit5", "rtol": 1e-9, "atol": 1e-9, "gradient": "none"}

UNIT_OF_TIME = 0.125
"""In which states change by about their spread: what the network is to give is of size one."""
TRANSIENT = 30.0
"""Time units in which a state comes to the attractor."""
PIECE = 5.0
"""Time units of a piece of the trajectory: what is solved in one go for the report's scores."""
FORECAST = 14.0
"""Time units that are forecast."""
LONG, SETTLED, N_LONG = 120.0, 20.0, 16
"""Time units of the long runs, those left out at their start, and how many there are."""
EVERY = 0.02
"""Time units between the states that statistics are made of."""


@dataclass(frozen=True)
class LorenzOptions:
    """Options of ``lorenz``.

    Raises:
        InputError: for a value outside its range.
    """

    n_times: Annotated[int, "observations of the trajectory"] = 5000
    spacing: Annotated[float, "time units between them"] = 0.02
    noise: Annotated[float, "standard deviation of the noise, in that of each state"] = 0.01
    hidden: Annotated[tuple[int, ...], "widths of the network's hidden layers"] = (64, 64)
    n_slope_steps: Annotated[int, "optimiser steps on slopes, at first"] = 12000
    n_window_steps: Annotated[int, "optimiser steps on windows, then"] = 5000
    window: Annotated[int, "rows of a window, its start included"] = 11
    batch: Annotated[int, "windows in a batch; of slopes twice as many"] = 256
    learning_rate: Annotated[float, "on slopes at the start; a tenth of it on windows"] = 0.01
    threshold: Annotated[float, "largest error of a valid forecast, in standard deviations"] = 0.4
    n_forecasts: Annotated[int, "forecasts, each from a state of its own on the attractor"] = 100

    def __post_init__(self) -> None:
        if not 2 <= self.window <= self.n_times or self.n_times < 7:
            raise InputError(
                f"window is {self.window} of {self.n_times} rows: give from 2 to all of them, and "
                "at least 7 rows"
            )
        for name in ("spacing", "threshold", "learning_rate"):
            if not 0 < getattr(self, name) < 10:
                raise InputError(f"{name} is {getattr(self, name)}: give a number from 0 to 10")
        if self.noise < 0:
            raise InputError(f"noise is {self.noise}: give a number of at least 0")
        for name in ("n_slope_steps", "n_window_steps", "batch", "n_forecasts"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give at least 1")
        if min(self.hidden, default=1) < 1:
            raise InputError(f"hidden is {self.hidden}: give widths of at least 1, such as 64,64")


def run_lorenz(options: LorenzOptions, setting: Setting) -> Studied:
    """Learn the attractor, forecast from states on it, and run on for long.

    Args:
        options: what is observed and how it is learned.
        setting: where and how.

    Returns:
        The finished study; ``summary["result"]`` holds quartiles of the valid times and the
        distances of distributions.

    Raises:
        InputError: if the run directory cannot be used.
        SolveError: if a loss is not finite.
    """
    observed, spread = _observations(options, setting.seed)
    data = _pieces(observed, options)
    field = draw_weights(lambda: MLPField(3, options.hidden, "silu"), setting.seed)
    units = StateTransform(observed.mean(0), observed.std(0), t_scale=UNIT_OF_TIME)
    model = LearnedDynamics(field, units, **SOLVER)
    study = Study.begin(
        LORENZ,
        options,
        setting,
        title="Lorenz’s attractor",
        n_weights=sum(p.numel() for p in field.parameters()),
        dynamics=Dynamics(model, data),
    )
    model.to(study.device)
    smoothed = Smoothed.of(observed, options.spacing, model)
    with single_thread(study.device.type == "cpu"):
        for part, descent in _descents(model, smoothed, options).items():
            study.learn(part, model, descent)
        forecasts = study.once("forecasts", lambda: _forecasts(model, options, setting.seed))
        long = study.once("long runs", lambda: _long_runs(model, setting.seed))
    error = chaos.forecast_error(forecasts["learned"], forecasts["true"], spread)
    valid = LYAPUNOV * chaos.valid_times(error, forecasts["ts"], options.threshold)
    apart = {
        name: chaos.distances(_visited(long[name]), _visited(long["true"]), spread)
        for name in ("learned", "also true")
    }
    _draw_forecasts(study, forecasts, error, options)
    _draw_long_runs(study, long)
    low, median, high = (float(valid.quantile(q)) for q in (0.25, 0.5, 0.75))
    far, floor = (float(apart[name].max()) for name in ("learned", "also true"))
    return study.finish(
        sentence=f"From one trajectory with {number(100 * options.noise, trim=True)}% noise, a "
        f"network forecasts the attractor for {number(median, 2)} Lyapunov times (the median of "
        f"{options.n_forecasts}). In the long run, its distributions of x, y and z are at most "
        f"{number(far, 2)} standard deviations from the true ones, which are {number(floor, 2)} "
        "apart themselves between one true run and another.",
        findings=[
            Finding(
                f"valid forecast, median of {options.n_forecasts}",
                median,
                target=4.0,
                better="higher",
                unit="Lyapunov times",
            ),
            Finding("distance of distributions in the long run", far, unit="standard deviations"),
            Finding("that distance between two true runs", floor, unit="standard deviations"),
        ],
        result={
            "valid forecast, quartiles (Lyapunov times)": [low, median, high],
            "valid means an error up to (standard deviations)": options.threshold,
            "distances of x, y, z, learned from true": apart["learned"].tolist(),
            "distances of x, y, z, between two true runs": apart["also true"].tolist(),
            "long runs that failed": int(long["learned"].isnan().any(-1).any(0).sum()),
        },
        solver={**SOLVER, "gradient": "discrete"},
    )


LORENZ = Experiment(
    "lorenz",
    "Lorenz's attractor learned from one noisy trajectory: forecasts and long-term statistics",
    LorenzOptions,
    run_lorenz,
)


def _true_states(y0: Tensor, ts: Tensor) -> Tensor:
    """States of the true system at ``ts`` [time], [time, batch, 3]."""
    return solve(lorenz(), y0, ts, **TRUTH).ys


def _on_attractor(n_states: int, generator: torch.Generator) -> Tensor:
    """States that have come to the attractor from about its default start, [n_states, 3]."""
    start = torch.tensor(lorenz().y0, dtype=torch.float64)
    y0 = start + torch.randn(n_states, 3, generator=generator, dtype=torch.float64)
    return _true_states(y0, torch.tensor([0.0, TRANSIENT], dtype=torch.float64))[-1]


def _observations(options: LorenzOptions, seed: int) -> tuple[Tensor, Tensor]:
    """One noisy trajectory on the attractor, [time, 3], and the spread of the true states, [3]."""
    generator = torch.Generator().manual_seed(seed)
    y0 = _on_attractor(1, generator)
    ts = options.spacing * torch.arange(options.n_times, dtype=torch.float64)
    ys = _true_states(y0, ts)[:, 0]
    spread = ys.std(0, correction=0)
    noise = torch.randn(ys.shape, generator=generator, dtype=torch.float64)
    return ys + options.noise * spread * noise, spread


def _pieces(observed: Tensor, options: LorenzOptions) -> Trajectories:
    """The trajectory in pieces: one solve along all of it would be off after the first few."""
    n_rows = max(2, round(PIECE / options.spacing))
    ts = options.spacing * torch.arange(len(observed), dtype=torch.float64)
    firsts = range(0, len(observed) - 1, n_rows)
    pieces = [
        Trajectory(str(i + 1), ts[first : first + n_rows], observed[first : first + n_rows])
        for i, first in enumerate(firsts)
        if len(observed) - first > 1
    ]
    return Trajectories(tuple(pieces), "t", lorenz().state_names, "piece", "lorenz")


def _descents(
    model: LearnedDynamics, smoothed: Smoothed, options: LorenzOptions
) -> dict[str, Descent]:
    """On slopes first, then on windows."""
    device = smoothed.states.device

    def rows(n_rows: int, n_chosen: int) -> Callable[[int, torch.Generator], Tensor]:
        def batch(step: int, generator: torch.Generator) -> Tensor:
            return torch.randint(0, n_rows, (n_chosen,), generator=generator).to(device)

        return batch

    def adam(rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=rate)

    return {
        "slopes": Descent(
            adam(options.learning_rate),
            options.n_slope_steps,
            rows(options.n_times, 2 * options.batch),
            lambda chosen: smoothed.slope_loss(model, chosen),
            rate=cosine(final=0.005),
            every=min(100, options.n_slope_steps),
        ),
        "windows": Descent(
            adam(0.1 * options.learning_rate),
            options.n_window_steps,
            rows(options.n_times - options.window + 1, options.batch),
            lambda chosen: smoothed.window_loss(model, chosen, options.window),
            rate=cosine(final=0.01),
            clip=1.0,
            every=min(50, options.n_window_steps),
        ),
    }


def _learned_states(model: LearnedDynamics, y0: Tensor, ts: Tensor) -> Tensor:
    """The model's states at ``ts`` [time], [time, batch, 3]; NaN after a solve failed."""
    device = model.transform.shift.device
    with torch.no_grad():
        solution = model.solve(y0.to(device), ts.to(device), gradient="none", on_failure="mask")
        return model.transform.decode(solution.ys).cpu()


def _forecasts(model: LearnedDynamics, options: LorenzOptions, seed: int) -> dict[str, Tensor]:
    """True and learned solutions from true states that were not learned from."""
    generator = torch.Generator().manual_seed(seed + 1)
    y0 = _on_attractor(options.n_forecasts, generator)
    ts = torch.linspace(0, FORECAST, round(FORECAST / EVERY) + 1, dtype=torch.float64)
    return {"ts": ts, "true": _true_states(y0, ts), "learned": _learned_states(model, y0, ts)}


def _long_runs(model: LearnedDynamics, seed: int) -> dict[str, Tensor]:
    """Long solutions of the true system, of the learned one, and of the true one once more."""
    generator = torch.Generator().manual_seed(seed + 2)
    y0, other = _on_attractor(2 * N_LONG, generator).chunk(2)
    ts = torch.linspace(0, LONG, round(LONG / EVERY) + 1, dtype=torch.float64)
    settled = ts >= SETTLED
    # Where the true solution goes from one start no longer matters, only how often where.
    loose = {**TRUTH, "rtol": 1e-7, "atol": 1e-7}
    return {
        "true": solve(lorenz(), y0, ts, **loose).ys[settled],
        "learned": _learned_states(model, y0, ts)[settled],
        "also true": solve(lorenz(), other, ts, **loose).ys[settled],
    }


def _visited(states: Tensor) -> Tensor:
    """All states of long runs, [n, 3], without those after a failure."""
    flat = states.flatten(0, 1)
    return flat[torch.isfinite(flat).all(-1)]


def _draw_forecasts(
    study: Study, forecasts: dict[str, Tensor], error: Tensor, options: LorenzOptions
) -> None:
    times = LYAPUNOV * forecasts["ts"]
    # The forecast of the median valid time, neither the best nor the worst.
    valid = chaos.valid_times(error, times, options.threshold)
    row = int(valid.argsort()[len(valid) // 2])
    panels = plots.trajectory_panels(
        {name: (times, forecasts[name][:, row]) for name in ("true", "learned")},
        names=lorenz().state_names,
        time_name="Lyapunov times",
    )
    for ax in panels:
        ax.axvline(float(valid[row]), color="#888888", linestyle=":", linewidth=1.2)
    study.draw(
        "forecast.png",
        panels,
        title="A forecast.",
        caption="The forecast whose valid time is the median one, from a state on the attractor "
        "that was not learned from; dotted, where it stops being valid.",
        alt="True and forecast x, y and z over time",
    )
    quantiles = error.nan_to_num(nan=math.inf).quantile(
        torch.tensor([0.25, 0.5, 0.75], dtype=error.dtype), dim=1
    )
    ax = plots.relation(
        {
            **{
                name: (times[1:], values[1:])
                for name, values in zip(
                    ("a quarter below", "median", "three quarters below"), quantiles, strict=True
                )
            },
            "valid up to": (times[[1, -1]], torch.full((2,), options.threshold)),
        },
        names=("Lyapunov times", "error (standard deviations)"),
        joined=True,
        logarithmic=(False, True),
    )
    study.draw(
        "error.png",
        ax,
        title="Error growth.",
        caption=f"The error of {options.n_forecasts} forecasts: it grows by a factor e in every "
        "Lyapunov time, until it is as large as the attractor.",
        alt="Quartiles of the forecasts’ error over time, on a logarithmic scale",
    )


def _draw_long_runs(study: Study, long: dict[str, Tensor]) -> None:
    shown = round(40 / EVERY)
    axes = plots.panels(2, n_columns=2, size=(3.8, 3.6), projection="3d")
    for ax, name in zip(axes, ("true", "learned"), strict=True):
        plots.state_space(long[name][:shown, 0], names=lorenz().state_names, label=name, ax=ax)
    section = "In the long run"
    study.draw(
        "attractor.png",
        axes,
        title="The attractor.",
        caption="40 time units of the true and of the learned system, long after their common "
        "start.",
        alt="True and learned attractor in three dimensions",
        section=section,
    )
    names = ("true", "learned")
    study.draw(
        "distributions.png",
        plots.distributions(
            {name: _visited(long[name]) for name in names},
            names=lorenz().state_names,
        ),
        title="How often where.",
        caption="Densities of x, y and z over long runs.",
        alt="Histograms of x, y and z of the true and of the learned system",
        section=section,
    )
    study.draw(
        "return_map.png",
        plots.relation(
            {name: chaos.return_map(long[name][..., 2]) for name in names},
            names=("a maximum of z", "the next maximum"),
        ),
        title="The return map.",
        caption="Every maximum of z along long runs and the one after it: Lorenz’s cusp.",
        alt="Successive maxima of z of the true and of the learned system",
        section=section,
    )
