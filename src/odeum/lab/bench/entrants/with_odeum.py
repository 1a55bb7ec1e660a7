"""odeum itself, by the fused engine."""

import torch

from odeum.api import solve
from odeum.lab.bench.entrants.record import Entrant, in_torch
from odeum.lab.bench.workloads import Case
from odeum.types import Tensor


def entrants(case: Case, *, thorough: bool) -> list[Entrant]:
    """With all threads, and with one where a peer has but one."""
    whole = in_torch("odeum", case, solve_fused)
    if case.workload.dtype == torch.float32:
        return [whole]
    return [whole, in_torch("odeum, 1 thread", case, solve_fused, n_threads=1)]


def solve_fused(case: Case) -> Tensor:
    """States at the output times, [time, batch, dim]."""
    tolerance = case.workload.tolerance
    return solve(
        case.field,
        case.y0,
        case.ts,
        method="dopri5",
        rtol=tolerance,
        atol=tolerance,
        engine="fused",
        gradient="discrete" if case.workload.gradient else "none",
    ).ys
