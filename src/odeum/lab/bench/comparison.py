"""Workload after workload, with the libraries that are asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from odeum.lab.bench import reference
from odeum.lab.bench.entrants import taking_part
from odeum.lab.bench.race import race
from odeum.lab.bench.table import Compared
from odeum.lab.bench.workloads import Workload, draw, find

QUICK = (
    find("mlp-128"),
    find("mlp-128-gradient"),
    replace(find("lorenz"), name="lorenz-1000", n_rows=1000),
)
"""Workloads for an impression: a minute or two."""


def compare(
    libraries: Sequence[str],
    workloads: Sequence[Workload],
    n_rounds: int = 5,
    *,
    thorough: bool = False,
) -> Iterator[Compared]:
    """Measures odeum beside other libraries.

    Args:
        libraries: keys of ``LIBRARIES``, installed.
        workloads: what to measure.
        n_rounds: turns of everyone.
        thorough: whether to try also what takes long to compile, and keep the fastest.

    Yields:
        What was found for each workload, as soon as it is.
    """
    for workload in workloads:
        case = draw(workload)
        entrants = taking_part(case, libraries, thorough=thorough)
        yield Compared(workload, tuple(race(entrants, reference.solve(case), n_rounds)))
