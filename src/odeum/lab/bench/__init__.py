"""How fast odeum is beside other libraries, measured in one run, accuracy told beside speed."""

from odeum.lab.bench.comparison import QUICK, compare
from odeum.lab.bench.entrants import LIBRARIES, Answer, Entrant, is_installed, taking_part
from odeum.lab.bench.race import Result, race
from odeum.lab.bench.table import Compared
from odeum.lab.bench.workloads import WORKLOADS, Case, Workload, draw, find

__all__ = [
    "LIBRARIES",
    "QUICK",
    "WORKLOADS",
    "Answer",
    "Case",
    "Compared",
    "Entrant",
    "Result",
    "Workload",
    "compare",
    "draw",
    "find",
    "is_installed",
    "race",
    "taking_part",
]
