"""torchdiffeq: backpropagation through the solver, and its adjoint."""

import torchdiffeq

from odeum.lab.bench.entrants.record import Entrant, in_torch
from odeum.lab.bench.workloads import Case
from odeum.types import Tensor


def entrants(case: Case, *, thorough: bool) -> list[Entrant]:
    """The batch has one step size, as always in torchdiffeq."""

    def backprop(case: Case) -> Tensor:
        return torchdiffeq.odeint(case.field, case.y0, case.ts, **_how(case))

    def adjoint(case: Case) -> Tensor:
        return torchdiffeq.odeint_adjoint(case.field, case.y0, case.ts, **_how(case))

    if not case.workload.gradient:
        return [in_torch("torchdiffeq", case, backprop)]
    return [
        in_torch("torchdiffeq, backprop", case, backprop),
        in_torch("torchdiffeq, adjoint", case, adjoint),
    ]


def _how(case: Case) -> dict[str, object]:
    tolerance = case.workload.tolerance
    return {"method": "dopri5", "rtol": tolerance, "atol": tolerance}
