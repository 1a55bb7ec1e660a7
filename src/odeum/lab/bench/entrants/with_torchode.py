"""torchode: rows with steps of their own, as torch operations over the whole batch."""

from dataclasses import replace

import torch
import torchode

from odeum.lab.bench.entrants.record import Entrant, in_torch
from odeum.lab.bench.workloads import Case
from odeum.types import Tensor


def entrants(case: Case, *, thorough: bool) -> list[Entrant]:
    """As it is; if ``thorough`` through torch.compile where that is faster: it takes a minute."""
    tolerance = case.workload.tolerance
    term = torchode.ODETerm(case.field)
    solver = torchode.AutoDiffAdjoint(
        torchode.Dopri5(term=term),
        torchode.IntegralController(atol=tolerance, rtol=tolerance, term=term),
    )
    problem = torchode.InitialValueProblem(
        y0=case.y0, t_eval=case.ts.expand(len(case.y0), len(case.ts))
    )

    def solve(case: Case) -> Tensor:
        return solver.solve(problem).ys.transpose(0, 1)

    plain = in_torch("torchode", case, solve)
    # Through torch.compile, backpropagation is slower than without it.
    if not thorough or case.workload.gradient:
        return [plain]
    compiled = torch.compile(solver.solve)
    compiled_entrant = in_torch("torchode", case, lambda case: compiled(problem).ys.transpose(0, 1))
    return [replace(plain, variants=(compiled_entrant,))]
