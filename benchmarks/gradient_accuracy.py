"""How right every gradient is: against finite differences, and against the tolerance.

    python benchmarks/gradient_accuracy.py                    # the tables
    python benchmarks/gradient_accuracy.py --draw             # and docs/gradient_error.png
    python benchmarks/gradient_accuracy.py --problems spiral --rtols 1e-3 1e-5

In float64, of the mean square of the states, in the initial states and all parameters. The first
table has steps of fixed size and central finite differences of those very steps: a gradient that is
exact for the steps taken agrees to 1e-6. The second has steps that adapt, and errors relative to
the gradient of a solve at rtol = 1e-12 (1e-11 where stiff): they follow the tolerance. atol is a
hundredth of rtol. A "-" means that the gradient does not apply, and the reason stands below.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn

import odeum
from odeum.gradient.registry import GRADIENTS
from odeum.plots.style import COLOURS, FAINT, applied, dress, save

DOCS = Path(__file__).parent.parent / "docs"
EXACT = ("discrete", "reversible", "autograd")
"""Gradients of the steps taken; the others are of the equation that the steps approximate."""

RTOLS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
AGREES = 1e-6
WITHIN = 10.0
MARKS = "os^DvPX"


class Spiral(nn.Module):
    """y' = A y^3 (Chen et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[-0.1, 2.0], [-2.0, -0.1]]))

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y**3 @ self.matrix


class TimeDependent(nn.Module):
    """An MLP of the state and the time."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2))

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat([y, torch.sin(t).expand(len(y), 1)], -1))


class Hamiltonian(nn.Module):
    """A network's energy, and the dynamics that conserve it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        slope = torch.func.grad(lambda y: self.net(y).sum() + 0.5 * y.square().sum())(y)
        q, p = slope.chunk(2, -1)
        return torch.cat([p, -q], -1)


class VanDerPol(nn.Module):
    """Stiff: its slow variable waits on a fast one."""

    def __init__(self) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.tensor(100.0))

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x, v = y.chunk(2, -1)
        return torch.cat([v, self.mu * (1 - x**2) * v - x], -1)


@dataclass(frozen=True)
class Problem:
    """A field, where it starts, how long it runs, and the methods that suit it."""

    name: str
    field: nn.Module
    y0: torch.Tensor
    t1: float
    fixed: str
    n_steps: int
    adaptive: str
    reference: str
    finest: float

    @property
    def ts(self) -> torch.Tensor:
        return torch.linspace(0, self.t1, 5)


def problems() -> list[Problem]:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    mild = {"fixed": "rk4", "n_steps": 40, "adaptive": "tsit5", "reference": "dopri8"}
    stiff = {"fixed": "radau5", "n_steps": 20, "adaptive": "kvaerno5", "reference": "radau5"}
    pair = torch.tensor([[1.0, 0.5], [-0.5, 1.2]])
    return [
        Problem("spiral", Spiral(), pair, 2.0, finest=1e-12, **mild),
        Problem("time-dependent MLP", TimeDependent(), pair, 2.0, finest=1e-12, **mild),
        Problem("Hamiltonian network", Hamiltonian(), pair, 2.0, finest=1e-12, **mild),
        Problem(
            "Van der Pol, mu = 100",
            VanDerPol(),
            torch.tensor([[2.0, 0.0], [1.8, 0.0]]),
            20.0,
            finest=1e-11,
            **stiff,
        ),
    ]


def loss(ys: torch.Tensor) -> torch.Tensor:
    return ys.square().mean()


def gradient_of(problem: Problem, gradient: str, method: str, rtol: float) -> torch.Tensor:
    y0 = problem.y0.clone().requires_grad_()
    ys = odeum.solve(
        problem.field,
        y0,
        problem.ts,
        method=method,
        rtol=rtol,
        atol=rtol / 100,
        gradient=gradient,
        engine="eager",
    ).ys
    inputs = [y0, *problem.field.parameters()]
    found = torch.autograd.grad(loss(ys), inputs, materialize_grads=True)
    return torch.cat([g.reshape(-1) for g in found])


def names() -> list[str]:
    return [name for name in GRADIENTS if name != "none"]


def header(first: str, columns: Sequence[str]) -> None:
    print(f"\n{first:<24}" + "".join(f"{column:>14}" for column in columns), flush=True)


def against_differences(chosen: list[Problem], reasons: dict[str, str]) -> None:
    header("fixed steps, difference", names())
    missed = []
    for problem in chosen:
        found = odeum.gradient.audit(
            problem.field,
            problem.y0,
            problem.ts,
            loss,
            method=problem.fixed,
            step=odeum.StepOptions(fixed=problem.t1 / problem.n_steps),
            rtol=1e-10,
            atol=1e-12,
            show=False,
        )
        cells = []
        for row in found.rows:
            cells.append("-" if row.reason else f"{row.difference:.1e}")
            if row.reason:
                reasons[f"{row.gradient}, {problem.name}, {problem.fixed}"] = row.reason
            elif row.gradient in EXACT and row.difference > AGREES:
                missed.append(f"{row.gradient} on {problem.name}")
        print(f"{problem.name:<24}" + "".join(f"{cell:>14}" for cell in cells), flush=True)
    print(f"exact ones within {AGREES:.0e}: {'all' if not missed else 'not ' + ', '.join(missed)}")


Errors = dict[tuple[str, str], list[tuple[float, float]]]


def against_tolerance(
    chosen: list[Problem], rtols: Sequence[float], reasons: dict[str, str]
) -> Errors:
    errors: Errors = {}
    missed = []
    for problem in chosen:
        reference = gradient_of(problem, "discrete", problem.reference, problem.finest)
        header(f"{problem.name}, error", names())
        for rtol in rtols:
            cells = []
            for name in names():
                try:
                    found = gradient_of(problem, name, problem.adaptive, rtol)
                except (RuntimeError, ValueError) as error:
                    key = f"{name}, {problem.name}, {problem.adaptive}, rtol = {rtol:.0e}"
                    reasons[key] = str(error).split("\n")[0]
                    cells.append("-")
                    continue
                error = float((found - reference).norm() / reference.norm())
                errors.setdefault((problem.name, name), []).append((rtol, error))
                cells.append(f"{error:.1e}")
                if error > WITHIN * rtol:
                    missed.append(f"{name} on {problem.name} at {rtol:.0e}: {error / rtol:.0f}x")
            print(f"{f'  rtol = {rtol:.0e}':<24}" + "".join(f"{c:>14}" for c in cells), flush=True)
    within = "all" if not missed else "not " + "; ".join(missed)
    print(f"\nwithin {WITHIN:g} times the tolerance: {within}")
    return errors


def draw(chosen: list[Problem], errors: Errors) -> None:
    rtols = [rtol for found in errors.values() for rtol, _ in found]
    span = [min(rtols), max(rtols)]
    with applied():
        figure, axes = plt.subplots(
            1,
            len(chosen),
            figsize=(2.6 * len(chosen), 3.6),
            layout="constrained",
            squeeze=False,
            sharey=True,
        )
        lines = {}
        for ax, problem in zip(axes[0], chosen, strict=True):
            dress(ax)
            for i, name in enumerate(names()):
                found = errors.get((problem.name, name), [])
                if not found:
                    continue
                x, y = zip(*found, strict=True)
                # The exact ones lie on one another: what is drawn later is thinner.
                style = {"color": COLOURS[i % 7], "marker": MARKS[i % 7]}
                (lines[name],) = ax.plot(x, y, markersize=8 - i, linewidth=3.4 - 0.5 * i, **style)
            bound = [WITHIN * x for x in span]
            (lines[f"({WITHIN:g} rtol)"],) = ax.plot(span, bound, ":", color=FAINT, linewidth=1.2)
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.set_title(problem.name, fontsize=10)
            ax.set_xlabel("rtol")
        axes[0, 0].set_ylabel("relative error of the gradient")
        # The bound comes last, wherever a gradient was first met.
        shown = sorted(lines, key=lambda name: name.startswith("("))
        figure.legend(
            [lines[name] for name in shown], shown, loc="outside lower center", ncols=len(shown)
        )
        print(f"drew {save(figure, DOCS / 'gradient_error.png')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = problems()
    known = [problem.name for problem in every]
    parser.add_argument("--problems", nargs="+", choices=known, default=known)
    parser.add_argument("--rtols", nargs="+", type=float, default=RTOLS)
    parser.add_argument("--draw", action="store_true", help="write the figure into docs/")
    given = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [problem for problem in every if problem.name in given.problems]
    reasons: dict[str, str] = {}
    against_differences(chosen, reasons)
    errors = against_tolerance(chosen, given.rtols, reasons)
    for what, reason in reasons.items():
        print(f"{what}: {reason}")
    if given.draw:
        draw(chosen, errors)


if __name__ == "__main__":
    main()
