"""Peak memory of a solve and its gradient against the number of steps, for every gradient.

    python benchmarks/gradient_memory.py                      # the table
    python benchmarks/gradient_memory.py --draw               # and docs/gradient_memory.png
    python benchmarks/gradient_memory.py --gradients discrete reversible --steps 125 250

One row of 1e5 numbers in float32 (one state is 0.4 MB), classical Runge-Kutta with n steps of equal
size, y' = tanh(a y) + b, gradients of the loss in a and b. Each gradient has a process of its own:
bytes of all tensors that solving and differentiating held at once, and beside it by how much the
process grew until then, as the system counts it. The discrete gradient keeps autograd's records of
steps while its room lasts, and states alone beyond that; so what counts is what a step more costs:
the slope between the two largest n, in states.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import odeum
from odeum.gradient import Discrete
from odeum.gradient.registry import GRADIENTS
from odeum.memory import PeakMemory
from odeum.plots.style import COLOURS, FAINT, applied, dress, save

DOCS = Path(__file__).parent.parent / "docs"
SIZE = 100_000
STATE = 4 * SIZE
STEPS = (125, 250, 500, 1000)
FLAT = 0.05
"""Below this many states a step memory counts as flat: sixteen bytes in a hundred thousand."""

CHECKPOINTS = "discrete, 16 checkpoints"
MARKS = "os^DvPX"


def names() -> list[str]:
    known = [name for name in GRADIENTS if name != "none"]
    return [*known[:1], CHECKPOINTS, *known[1:]]


def peaks_of(name: str, steps: list[int]) -> list[tuple[float, float]]:
    """Bytes of tensors at the peak, and bytes that this process grew by; ``steps`` ascend."""
    torch.set_num_threads(1)
    gradient = Discrete(checkpoints=16) if name == CHECKPOINTS else name
    a, b = (torch.tensor(x, requires_grad=True) for x in (-0.5, 0.1))
    y0 = torch.linspace(-1, 1, SIZE)[None]
    ts = torch.tensor([0.0, 1.0])

    def run(n: int) -> None:
        step = odeum.StepOptions(fixed=1 / n)
        solution = odeum.solve(
            lambda t, y: torch.tanh(a * y) + b,
            y0,
            ts,
            method="rk4",
            step=step,
            gradient=gradient,
            engine="eager",
        )
        torch.autograd.grad(solution.ys[-1].square().mean(), [a, b])

    run(2)  # what is loaded at first use is not what a solve holds
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = []
    for n in steps:
        with PeakMemory() as memory:
            run(n)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        found.append((memory.peak, grown * 1024))
    return found


def measured(name: str, steps: list[int]) -> list[tuple[float, float]]:
    command = [sys.executable, __file__, "--one", name, "--steps", *map(str, steps)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return [(tensors, grown) for tensors, grown in json.loads(ran.stdout)]


def verdict(states: float) -> str:
    if abs(states) < FLAT:
        return "flat"
    if abs(states - 1) < FLAT:
        return "one state a step"
    return f"{states:.1f} states a step"


Peaks = dict[str, list[tuple[float, float]]]


def table(chosen: list[str], steps: list[int]) -> Peaks:
    """Measures, and prints a line as each is done."""
    peaks: Peaks = {}
    print(f"{'MB of tensors (of process)':>26}" + "".join(f"{n:>15}" for n in steps))
    for name in chosen:
        peaks[name] = measured(name, steps)
        cells = "".join(f"{f'{x / 1e6:.1f} ({rss / 1e6:.0f})':>15}" for x, rss in peaks[name])
        slope = ""
        if len(steps) > 1:
            (before, _), (after, _) = peaks[name][-2:]
            slope = verdict((after - before) / (steps[-1] - steps[-2]) / STATE)
        print(f"{name:>26}{cells}   {slope}", flush=True)
    return peaks


def draw(peaks: Peaks, steps: list[int]) -> None:
    with applied():
        figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
        dress(ax)
        reference = [n * STATE / 1e6 for n in steps]
        ax.plot(steps, reference, ":", color=FAINT, linewidth=1.2, label="(one state a step)")
        for i, (name, found) in enumerate(peaks.items()):
            ax.plot(
                steps,
                [tensors / 1e6 for tensors, _ in found],
                color=COLOURS[i % len(COLOURS)],
                marker=MARKS[i % len(MARKS)],
                markersize=4.5,
                linewidth=1.4,
                label=name,
            )
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:.0f}")
        ax.set_xticks(steps, [str(n) for n in steps])
        ax.minorticks_off()
        ax.set_xlabel("steps")
        ax.set_ylabel("peak memory of tensors, MB")
        # In the order in which the lines end.
        drawn = sorted(ax.lines, key=lambda line: -line.get_ydata()[-1])
        figure.legend(drawn, [line.get_label() for line in drawn], loc="outside right center")
        print(f"drew {save(figure, DOCS / 'gradient_memory.png')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gradients", nargs="+", choices=names(), default=names())
    parser.add_argument("--steps", nargs="+", type=int, default=list(STEPS))
    parser.add_argument("--draw", action="store_true", help="write the figure into docs/")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(peaks_of(chosen.one, chosen.steps)))
        return
    print(f"torch {torch.__version__}, {SIZE} numbers in float32, one state is {STATE / 1e6} MB")
    peaks = table(chosen.gradients, chosen.steps)
    if chosen.draw:
        draw(peaks, chosen.steps)


if __name__ == "__main__":
    main()
