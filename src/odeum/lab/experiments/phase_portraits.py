"""What a step size does to a phase portrait: Euler and RK4 at large steps beside a reference.

Lotka and Volterra's animals and the pendulum move on closed orbits and conserve a quantity; methods
that let it grow wind their solutions outwards. Nothing is learned here. Owns where the orbits start
and what is measured of them.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import pandas as pd
import torch

from odeum import plots
from odeum.api import solve
from odeum.eager.options import StepOptions
from odeum.errors import InputError
from odeum.lab.findings import Finding
from odeum.lab.registry import Experiment, Setting
from odeum.lab.study import Studied, Study
from odeum.lab.wording import number
from odeum.systems import System, lotka_volterra, pendulum
from odeum.types import Tensor

METHODS: dict[str, dict[str, Any]] = {
    "Euler": {"method": "euler"},
    "RK4": {"method": "rk4"},
    "reference": {"method": "dopri8", "rtol": 1e-10, "atol": 1e-10},
}
"""How each is solved; the first two take fixed steps."""

_FINE = 20
"""Times within a step at which the reference is drawn beside the others."""
_FINEST = 800
"""Times at which it is drawn alone."""


@dataclass(frozen=True)
class PortraitOptions:
    """Options of ``phase-portraits``.

    Raises:
        InputError: for a value outside its range.
    """

    h: Annotated[float, "step of Euler's method and of RK4, in units of time"] = 0.2
    t1: Annotated[float, "end of the solutions, which start at 0"] = 10.0
    n_starts: Annotated[int, "closed orbits of each system"] = 8

    def __post_init__(self) -> None:
        if not 0 < self.h <= self.t1 / 4:
            raise InputError(
                f"h is {self.h} and t1 {self.t1}: give a positive step, of which at least four fit"
            )
        if self.n_starts < 1:
            raise InputError(f"n_starts is {self.n_starts}: give at least 1")


@dataclass(frozen=True, eq=False)
class Portrait:
    """A system, and what of it is drawn and measured.

    Attributes:
        title: its name for readers.
        system: the field.
        rest: where it is at rest, [dim]: what is conserved is measured from there.
        starts: on closed orbits around the rest, [starts, dim], the innermost first.
        others: starts on other orbits, [others, dim], for the portrait alone.
        limits: of the two states shown.
    """

    title: str
    system: System
    rest: Tensor
    starts: Tensor
    others: Tensor
    limits: tuple[tuple[float, float], tuple[float, float]]

    def conserved(self, ys: Tensor) -> Tensor:
        """What a true solution keeps, above its value at rest, [..., dim] -> [...]."""
        ((_, invariant),) = self.system.invariants.items()
        return invariant(ys) - invariant(self.rest)


def portraits(n_starts: int) -> list[Portrait]:
    """The two systems.

    Args:
        n_starts: closed orbits of each.

    Example:
        >>> [portrait.conserved(portrait.rest).item() for portrait in portraits(3)]
        [0.0, 0.0]
    """
    shares = torch.linspace(0.15, 0.85, n_starts, dtype=torch.float64)
    animals, swing = lotka_volterra(), pendulum()
    constants = animals.constants
    rest = torch.tensor(
        [constants["gamma"] / constants["delta"], constants["alpha"] / constants["beta"]],
        dtype=torch.float64,
    )
    fewer_prey = torch.stack([1 - shares, torch.ones_like(shares)], -1)
    angles = torch.pi * shares
    turning = torch.tensor([[-2.0, 7.0], [2.0, -7.0]], dtype=torch.float64)
    turning[:, 0] *= torch.pi
    return [
        Portrait(
            "Predator and prey",
            animals,
            rest,
            rest * fewer_prey,
            rest[None][:0],
            ((0.0, 10.0), (0.0, 6.0)),
        ),
        Portrait(
            "The pendulum",
            swing,
            torch.zeros(2, dtype=torch.float64),
            torch.stack([angles, torch.zeros_like(angles)], -1),
            turning,
            ((-2 * torch.pi, 2 * torch.pi), (-10.0, 10.0)),
        ),
    ]


def solved(system: System, y0: Tensor, ts: Tensor, method: str, h: float) -> Tensor:
    """States at ``ts`` by one of :data:`METHODS`, [time, starts, dim]; NaN after a failure.

    Args:
        system: the field.
        y0: starts, [starts, dim].
        ts: [time]; multiples of ``h`` for methods of fixed steps.
        method: a name.
        h: the step.
    """
    options = METHODS[method]
    if "rtol" not in options:
        options = {**options, "step": StepOptions(fixed=h)}
    return solve(system, y0, ts, **options, gradient="none", on_failure="mask").ys


def largest_change(conserved: Tensor) -> float:
    """The largest relative change of what is conserved, over all times and starts where it exists.

    Args:
        conserved: [time, starts], as of :meth:`Portrait.conserved`; NaN outside its domain.

    Example:
        >>> largest_change(torch.tensor([[1.0, 2.0], [1.5, float("nan")]]))
        0.5
    """
    return float((conserved / conserved[0] - 1).abs().nan_to_num(0.0).max())


def run_phase_portraits(options: PortraitOptions, setting: Setting) -> Studied:
    """Solve both systems by every method, draw them, and measure what they fail to conserve.

    Args:
        options: the step, and from how many starts.
        setting: where and how.

    Returns:
        The finished study.

    Raises:
        InputError: if the run directory cannot be used.
    """
    study = Study.begin(PHASE_PORTRAITS, options, setting, title="Phase portraits and step sizes")
    findings: list[Finding] = []
    result: dict[str, Any] = {}
    tables = []
    ts = options.h * torch.arange(round(options.t1 / options.h) + 1, dtype=torch.float64)
    for portrait in portraits(options.n_starts):
        ys = {
            method: solved(portrait.system, portrait.starts, ts, method, options.h)
            for method in METHODS
        }
        kept = {method: portrait.conserved(states) for method, states in ys.items()}
        for method, values in kept.items():
            what = f"{portrait.title}, {method}: change of what is conserved"
            findings.append(Finding(what, 100 * largest_change(values), unit="%"))
            left = int(torch.isnan(values).any(0).sum())
            if left:
                result[f"{portrait.title}, {method}: orbits that leave the domain"] = left
        tables.append(_table(portrait, ts, ys, kept))
        _draw_methods(study, portrait, options, ts, ys)
        _draw_conserved(study, portrait, options, ts, kept)
        _draw_portrait(study, portrait, options)
    euler, rk4 = (
        max(x.value for x in findings if f", {method}:" in x.what) for method in ("Euler", "RK4")
    )
    return study.finish(
        sentence=f"At steps of {number(options.h, trim=True)}, what a true orbit conserves changes "
        f"by up to {number(rk4, 2, trim=True)}% with RK4, and by "
        f"{number(euler, 2, trim=True)}% with Euler's method, whose solutions wind outwards.",
        predictions=pd.concat(tables, ignore_index=True),
        findings=findings,
        result=result,
    )


PHASE_PORTRAITS = Experiment(
    "phase-portraits",
    "Lotka-Volterra and the pendulum by Euler and RK4 at large steps, beside a reference",
    PortraitOptions,
    run_phase_portraits,
)


def _refined(ts: Tensor) -> Tensor:
    return torch.linspace(0.0, float(ts[-1]), _FINE * (len(ts) - 1) + 1, dtype=ts.dtype)


def _draw_methods(
    study: Study, portrait: Portrait, options: PortraitOptions, ts: Tensor, ys: dict[str, Tensor]
) -> None:
    """One orbit by every method, in the plane and over time."""
    names, middle = portrait.system.state_names, options.n_starts // 2
    y0 = portrait.starts[middle : middle + 1]
    curves = {method: (ts, states[:, middle]) for method, states in ys.items()}
    fine = _refined(ts)
    smooth = solved(portrait.system, y0, fine, "reference", options.h)[:, 0]
    curves["reference"] = (fine, smooth)
    xlim, ylim = portrait.limits
    ax = plots.phase_portrait(
        portrait.system,
        xlim=xlim,
        ylim=ylim,
        trajectories={method: states for method, (_, states) in curves.items()},
        names=names,
    )
    ax.set(xlim=xlim, ylim=ylim)
    stem, step = portrait.system.name, number(options.h, trim=True)
    study.draw(
        f"{stem}_methods.png",
        ax,
        title=f"{portrait.title}.",
        caption=f"One orbit by Euler's method and by RK4 with steps of {step}, and the reference.",
        alt=f"Orbits of three methods in the plane of {names[0]} and {names[1]}",
        section="Methods",
    )
    panels = plots.trajectory_panels(curves, names=names)
    for panel, limits in zip(panels, portrait.limits, strict=True):
        low, high = panel.get_ylim()
        # What runs away would leave the others flat.
        panel.set_ylim(max(low, 2 * limits[0] - limits[1]), min(high, 2 * limits[1] - limits[0]))
    study.draw(
        f"{stem}_time.png",
        panels,
        title=f"{portrait.title}, over time.",
        caption=f"The same orbit, with steps of {step}.",
        alt=f"{names[0]} and {names[1]} over time by three methods",
        section="Methods",
    )


def _draw_conserved(
    study: Study, portrait: Portrait, options: PortraitOptions, ts: Tensor, kept: dict[str, Tensor]
) -> None:
    """How far what should be constant has changed, of one orbit, over time."""
    (name,) = portrait.system.invariants
    middle = options.n_starts // 2
    curves = {
        method: (ts[1:], (values[1:, middle] / values[0, middle] - 1).abs())
        for method, values in kept.items()
    }
    (panel,) = plots.trajectory_panels(curves, names=["relative change"])
    panel.set_yscale("log")
    study.draw(
        f"{portrait.system.name}_conserved.png",
        panel,
        title=f"{portrait.title}, what is conserved.",
        caption=f"How far the {name} above its value at rest has changed from where it began; a "
        "true solution keeps it. A curve ends where the states leave the domain in which it is "
        "defined.",
        alt=f"The change of the {name} over time by three methods",
        section="Conservation",
    )


def _draw_portrait(study: Study, portrait: Portrait, options: PortraitOptions) -> None:
    """Reference solutions from all starts."""
    ts = torch.linspace(0.0, options.t1, _FINEST, dtype=torch.float64)
    y0 = torch.cat([portrait.starts, portrait.others])
    ys = solved(portrait.system, y0, ts, "reference", options.h)
    xlim, ylim = portrait.limits
    ax = plots.phase_portrait(
        portrait.system,
        xlim=xlim,
        ylim=ylim,
        trajectories={"reference": ys},
        names=portrait.system.state_names,
    )
    ax.set(xlim=xlim, ylim=ylim)
    study.draw(
        f"{portrait.system.name}_portrait.png",
        ax,
        title=f"{portrait.title}, from {len(y0)} starts.",
        caption="Reference solutions over the field's streamlines, with its points of rest.",
        alt=f"Phase portrait of {portrait.system.name}",
        section="Portraits",
    )


def _table(
    portrait: Portrait, ts: Tensor, ys: dict[str, Tensor], kept: dict[str, Tensor]
) -> pd.DataFrame:
    """All states by system, method, start and time."""
    n_times, n_starts = len(ts), len(portrait.starts)
    starts = torch.arange(n_starts).repeat(n_times)
    frames = [
        pd.DataFrame(
            {
                "system": portrait.system.name,
                "method": method,
                "start": starts,
                "t": ts.repeat_interleave(n_starts),
                "y1": states[..., 0].flatten(),
                "y2": states[..., 1].flatten(),
                "conserved": kept[method].flatten(),
            }
        )
        for method, states in ys.items()
    ]
    return pd.concat(frames, ignore_index=True)
