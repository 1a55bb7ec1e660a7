"""Accuracy and work of odeum's solvers beside SciPy's on the classic test problems.

    python benchmarks/work_precision.py                       # all of it: long
    python benchmarks/work_precision.py --problems lorenz robertson --rtols 1e-4 1e-7
    python benchmarks/work_precision.py --problems pollu --rtols 1e-7 --neighbours 9
    python benchmarks/work_precision.py --references          # recompute references.json

One row in float64. Every entrant gets the same rtol and atol; errors are at the end time, against
`references.json`, as ``max |y - reference| / (|reference| + scale)`` with each problem's scale.
Evaluations count a Jacobian as one evaluation a component, but for LSODA, which counts its own.
SciPy has fields in plain Python or NumPy (see `problems`), so seconds compare what users of each
would write. A table's "-" was not run: a method of low order at tolerances it is not made for.

The error at one tolerance is partly luck: near it, errors scatter by up to a factor of ten. With
`--neighbours` every number is the geometric mean over that many tolerances within a factor of two.
"""

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from contests import CONTESTS, Contest, Entrant
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter
from problems import PROBLEMS, Problem, references
from scipy.integrate import solve_ivp

import odeum
from odeum.plots.style import COLOURS, applied, save

DOCS = Path(__file__).parent.parent / "docs"
RTOLS = tuple(10.0**-k for k in range(3, 13))
WITHIN = 3.0
GREYS = ("#000000", "#6b6b6b", "#a9a9a9")
QUICK = 0.2
"""Solves shorter than this, in seconds, are timed three times and the shortest is kept."""


@dataclass(frozen=True)
class Measured:
    """One solve; ``failure`` says why there is no error."""

    error: float
    n_evaluations: int
    seconds: float
    failure: str = ""


class Kept:
    """Measurements in a file of JSON lines, so that an interrupted sweep goes on where it was."""

    def __init__(self, path: Path | None, neighbours: int) -> None:
        self._path = path
        self._neighbours = neighbours
        self._known: dict[tuple[str, str, float, int], Measured] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                problem, name, rtol, n, *measured = json.loads(line)
                self._known[problem, name, rtol, n] = Measured(*measured)

    def measure(self, entrant: Entrant, problem: Problem, rtol: float) -> Measured:
        n = self._neighbours
        key = (problem.name, entrant.name, rtol, n)
        if key not in self._known:
            rtols = rtol * 2.0 ** np.linspace(-1, 1, n) if n > 1 else [rtol]
            measured = typical([measure(entrant, problem, float(near)) for near in rtols])
            self._known[key] = measured
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps([*key, *astuple(measured)]) + "\n")
        return self._known[key]


def typical(measured: Sequence[Measured]) -> Measured:
    """The geometric mean of each quantity; a failure where one of them failed."""

    def mean(values: Sequence[float]) -> float:
        return float(np.exp(np.mean(np.log(np.maximum(values, 1e-17)))))

    failure = next((m.failure for m in measured if m.failure), "")
    return Measured(
        math.nan if failure else mean([m.error for m in measured]),
        round(mean([m.n_evaluations for m in measured])),
        mean([m.seconds for m in measured]),
        failure,
    )


def measure(entrant: Entrant, problem: Problem, rtol: float) -> Measured:
    run = run_scipy if entrant.theirs else run_odeum
    end, n_evaluations, seconds, failure = run(entrant.name, problem, rtol)
    error = math.nan if failure else problem.error(end)
    return Measured(error, n_evaluations, seconds, failure)


def timed(call: Callable[[], object]) -> tuple[object, float]:
    times = []
    while not times or (times[0] < QUICK and len(times) < 3):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return result, min(times)


Ran = tuple[np.ndarray, int, float, str]


def run_odeum(name: str, problem: Problem, rtol: float) -> Ran:
    y0 = torch.tensor([problem.system.y0], dtype=torch.float64)
    ts = torch.tensor([0.0, problem.t1], dtype=torch.float64)
    atol = torch.from_numpy(problem.atol(rtol))

    def call() -> odeum.Solution:
        return odeum.solve(
            problem.system,
            y0,
            ts,
            method=name,
            rtol=rtol,
            atol=atol,
            gradient="none",
            on_failure="mask",
        )

    solution, seconds = timed(call)
    stats = solution.stats
    n_evaluations = int(stats.n_evaluations)
    if stats.n_jacobians is not None:
        n_evaluations += problem.system.dim * int(stats.n_jacobians)
    status = odeum.Status(int(solution.status))
    failure = "" if status == odeum.Status.SUCCESS else status.name
    return solution.ys[-1, 0].numpy(), n_evaluations, seconds, failure


def run_scipy(name: str, problem: Problem, rtol: float) -> Ran:
    def call() -> object:
        return solve_ivp(
            problem.field,
            (0.0, problem.t1),
            problem.system.y0,
            method=name,
            rtol=rtol,
            atol=problem.atol(rtol),
            t_eval=[problem.t1],
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LSODA warns where it fails; its status says so too
        solution, seconds = timed(call)
    n_evaluations = solution.nfev
    if name in ("Radau", "BDF"):
        n_evaluations += problem.system.dim * solution.njev
    end = solution.y[:, -1] if solution.success else np.full(problem.system.dim, np.nan)
    return end, n_evaluations, seconds, "" if solution.success else "FAILED"


Results = dict[tuple[str, float, str], Measured]


def best(contest: Contest, results: Results, problem: str, rtol: float) -> float:
    """The smaller error of odeum's methods of the class, NaN where all failed."""
    found = [results.get((problem, rtol, name)) for name in contest.ours]
    errors = [m.error for m in found if m is not None and not math.isnan(m.error)]
    return min(errors, default=math.nan)


def ratio(ours: float, theirs: float, floor: float) -> float:
    """Errors below what the reference itself is known to are equal."""
    if math.isnan(ours):
        return math.inf
    return max(ours, floor) / max(theirs, floor)


def run_contest(
    contest: Contest, problems: Sequence[Problem], rtols: Sequence[float], kept: Kept
) -> Results:
    """Solves, and prints a line of errors for every problem and tolerance as it is done."""
    results: Results = {}
    names = [entrant.name for entrant in contest.entrants]
    print(f"\n{contest.title}: error at the end time")
    print(
        f"{'problem':>16} {'rtol':>6}" + "".join(f"{name:>10}" for name in names) + "    best/peer"
    )
    for problem in problems:
        floor = references()[problem.name]["uncertainty"]
        for rtol in rtols:
            cells = []
            for entrant in contest.entrants:
                if rtol < 0.99 * entrant.finest:
                    cells.append("-")
                    continue
                measured = kept.measure(entrant, problem, rtol)
                results[problem.name, rtol, entrant.name] = measured
                cells.append(measured.failure[:9] or f"{measured.error:.1e}")
            peer = results.get((problem.name, rtol, contest.against))
            if peer is not None and set(contest.ours) & set(names):
                ours = best(contest, results, problem.name, rtol)
                cells.append(f"{ratio(ours, peer.error, floor):.2g}")
            line = "".join(f"{cell:>10}" for cell in cells)
            print(f"{problem.name:>16} {rtol:>6.0e}{line}", flush=True)
    return results


def verdict(contest: Contest, results: Results) -> None:
    """How often each of odeum's, and the better of them, is within the factor of the peer."""
    pairs = [(p, rtol) for p, rtol, name in results if name == contest.against]

    def within(errors: Callable[[str, float], float]) -> list[bool]:
        held = []
        for problem, rtol in pairs:
            floor = references()[problem]["uncertainty"]
            theirs = results[problem, rtol, contest.against].error
            # Where the peer failed, any answer of ours is as good.
            ok = math.isnan(theirs) or ratio(errors(problem, rtol), theirs, floor) <= WITHIN
            held.append(ok)
        return held

    def report(who: str, errors: Callable[[str, float], float]) -> None:
        held = within(errors)
        missed = [f"{p} at {rtol:.0e}" for (p, rtol), ok in zip(pairs, held, strict=True) if not ok]
        print(
            f"{contest.title}: {who} within a factor of {WITHIN:g} of SciPy's {contest.against} in "
            f"{sum(held)} of {len(held)} pairs"
            + (f"; not in {', '.join(missed)}" if missed else "")
        )

    if not pairs:
        return
    print()
    taking_part = [name for name in contest.ours if any(key[2] == name for key in results)]
    for name in taking_part:
        report(name, lambda p, rtol, name=name: results[p, rtol, name].error)
    if len(taking_part) > 1:
        report("the best of them", lambda p, rtol: best(contest, results, p, rtol))


def draw(contest: Contest, problems: Sequence[Problem], results: Results) -> None:
    """One column a problem; error against evaluations above, against seconds below."""
    with applied():
        n = len(problems)
        figure, axes = plt.subplots(
            2, n, figsize=(2.6 * n + 0.6, 6.2), layout="constrained", squeeze=False, sharey="col"
        )
        for column, problem in enumerate(problems):
            for row, (field, label) in enumerate(
                (("n_evaluations", "evaluations"), ("seconds", "seconds"))
            ):
                ax = axes[row, column]
                curves(ax, contest, problem, results, field)
                ax.set_xlabel(label)
            axes[0, column].set_title(problem.name.replace("_", " "), fontsize=10)
        for ax in axes[:, 0]:
            ax.set_ylabel("error at the end")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 10))
        print(f"drew {save(figure, DOCS / f'work_precision_{contest.title}.png')}")


def curves(ax: Axes, contest: Contest, problem: Problem, results: Results, quantity: str) -> None:
    """odeum in colours and full lines, SciPy in black to grey and dashes, each with its mark."""
    taking_part = {key[2] for key in results}
    marks = "os^DvPX*"
    counts = {False: 0, True: 0}
    for entrant in contest.entrants:
        if entrant.name not in taking_part:
            continue
        i = counts[entrant.theirs]
        counts[entrant.theirs] += 1
        points = [
            (getattr(m, quantity), max(m.error, 1e-17))
            for (p, _, name), m in sorted(results.items(), key=lambda item: -item[0][1])
            if (p, name) == (problem.name, entrant.name) and not m.failure
        ]
        x, y = zip(*points, strict=True) if points else ((), ())
        ax.plot(
            x,
            y,
            linestyle="--" if entrant.theirs else "-",
            color=GREYS[i] if entrant.theirs else COLOURS[i],
            marker=marks[(7 - i) if entrant.theirs else i],
            markersize=3.5,
            linewidth=1.2,
            label=f"SciPy {entrant.name}" if entrant.theirs else entrant.name,
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.xaxis.set_minor_formatter(NullFormatter())  # on less than a decade they would overlap
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="#e9e9e9", linewidth=0.7)


def available(contest: Contest, wanted: Sequence[str] | None) -> Contest:
    """Those odeum has, and of them those asked for."""
    ready = set(odeum.methods.names())
    missing = [e.name for e in contest.entrants if not e.theirs and e.name not in ready]
    if missing:
        print(f"not in this odeum: {', '.join(missing)}")
    kept = tuple(
        e
        for e in contest.entrants
        if (e.theirs or e.name in ready) and (wanted is None or e.name in wanted)
    )
    ours = tuple(name for name in contest.ours if name in ready)
    return Contest(contest.title, contest.stiff, kept, ours, contest.against)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [problem.name for problem in PROBLEMS]
    parser.add_argument("--problems", nargs="+", choices=names, default=names)
    parser.add_argument("--methods", nargs="+", help="of odeum and SciPy; default all")
    parser.add_argument("--rtols", nargs="+", type=float, default=RTOLS)
    parser.add_argument("--kept", type=Path, help="file of measurements, read and added to")
    parser.add_argument("--neighbours", type=int, default=1, help="tolerances a number is over")
    parser.add_argument("--references", action="store_true", help="recompute and stop")
    parser.add_argument("--draw", action="store_true", help="write the figures into docs/")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    problems = [problem for problem in PROBLEMS if problem.name in chosen.problems]
    if chosen.references:
        import references as recompute

        recompute.write(problems)
        return
    print(f"odeum, torch {torch.__version__}, one thread, float64, one row")
    kept = Kept(chosen.kept, chosen.neighbours)
    for contest in CONTESTS:
        own = [problem for problem in problems if problem.stiff == contest.stiff]
        contest = available(contest, chosen.methods)
        if not own or not contest.entrants:
            continue
        results = run_contest(contest, own, chosen.rtols, kept)
        verdict(contest, results)
        if chosen.draw:
            draw(contest, own, results)


if __name__ == "__main__":
    main()
