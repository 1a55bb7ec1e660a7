"""The fused engine beside torchdiffeq, torchode, diffrax, heyoka and SciPy, measured in one run.

    python benchmarks/fused.py                          # all of it: half an hour
    python benchmarks/fused.py --workloads mlp-128 lorenz --against diffrax --rounds 3
    python benchmarks/fused.py --draw                   # and into docs/benchmarks.md

All have the same weights, initial states, times and tolerances, and solve by dopri5; diffrax may
take tsit5, and torchode torch.compile, where that is faster. Entrants take turns; a ratio is the
median over rounds of an entrant's time over odeum's. Errors are relative, in norm, against SciPy's
DOP853 at 1e-12 in float64: of the states, or of the gradient to all weights, for which SciPy solves
the adjoint equation. An entrant whose error is over ten times odeum's is marked: it has won
nothing. Compilation is left out; odeum's is told at the end: the first solve of a process that
finds no kernel, and of one that finds it on disk, the import of what the engine needs included.
The libraries are odeum's extra `bench`; those that are missing are left out.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import torch
from fused_page import write_page

from odeum.lab import bench
from odeum.lab.bench.entrants.with_odeum import entrants as ours
from odeum.lab.bench.table import HEADER, plain, plain_lines

N_PROCESSES = 3
"""That find a kernel on disk; the median counts."""


def first_solve(name: str) -> float:
    """Seconds of this process's first solve of a workload, with its gradient if it has one."""
    entrant = ours(bench.draw(bench.find(name)), thorough=False)[0]
    start = time.perf_counter()
    entrant.run()
    return time.perf_counter() - start


def first_solves(name: str) -> tuple[float, float]:
    """Seconds of the first solve without a kernel on disk, and with it."""
    asked = [sys.executable, __file__, "--first", name]
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "ODEUM_CACHE": cache}
        # Users' modules are compiled once, not at every start.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def seconds() -> float:
            done = subprocess.run(asked, env=environment, capture_output=True, check=True)
            return float(done.stdout)

        cold = seconds()
        return cold, sorted(seconds() for _ in range(N_PROCESSES))[N_PROCESSES // 2]


def setting(libraries: list[str], n_threads: int, n_rounds: int) -> str:
    """Where and with what this is measured, in one sentence."""
    packages = ["torch", *libraries, *(["jax"] if "diffrax" in libraries else [])]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return f"{_processor()}, {n_threads} threads, medians of {n_rounds} rounds; {versions}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", nargs="+", default=list(bench.WORKLOADS), metavar="NAME")
    parser.add_argument("--against", nargs="+", default=list(bench.LIBRARIES), metavar="LIBRARY")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="of torch and of XLA")
    parser.add_argument("--draw", action="store_true", help="write docs/benchmarks.md's table")
    parser.add_argument("--first", metavar="NAME", help="only this process's first solve")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.first:
        print(first_solve(chosen.first))
        return
    if hasattr(os, "sched_setaffinity"):  # XLA sizes its pool by the cores it may use
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: chosen.threads])
    workloads = [bench.find(name) for name in chosen.workloads]
    libraries = [name for name in chosen.against if bench.is_installed(name)]
    if missing := sorted({*chosen.against} - {*libraries}):
        print(f"not installed: {', '.join(missing)} (pip install 'odeum[bench]')")
    where = setting(libraries, chosen.threads, chosen.rounds)
    print(where)
    print(plain(HEADER))
    measured = []
    for compared in bench.compare(libraries, workloads, chosen.rounds, thorough=True):
        print("\n".join(plain_lines(compared)), flush=True)
        measured.append(compared)
    print("\nodeum's first solve in seconds: nothing compiled; a kernel on disk")
    cold = {}
    for workload in workloads:
        cold[workload.name] = first_solves(workload.name)
        print(
            f"{workload.name:<20} {cold[workload.name][0]:6.2f} {cold[workload.name][1]:6.2f}",
            flush=True,
        )
    if chosen.draw:
        write_page(measured, cold, where)


if __name__ == "__main__":
    main()
