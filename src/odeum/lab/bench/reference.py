"""What every answer is held to: SciPy's DOP853 in float64, and the adjoint equation solved by it.

The loss is the mean square of all outputs. Its gradient comes from ``a' = -a df/dy``,
``g' = -a df/dp``, solved back from output to output with the states known there: Chen et al.,
Neural Ordinary Differential Equations (2018), algorithm 1, but for the states.
"""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy.integrate import solve_ivp

from odeum.lab.bench.entrants.record import Answer
from odeum.lab.bench.threads import threads
from odeum.lab.bench.workloads import Case

STATES, GRADIENTS = 1e-12, 1e-10
"""Tolerances, far below those of any workload."""


def solve(case: Case) -> Answer:
    """The first rows' states at the output times, and the gradient of all rows' loss.

    Args:
        case: to solve; its weights are used as they are, in float64.

    Returns:
        States of the rows to be checked; the gradient where the workload wants it.

    Example:
        >>> from odeum.lab.bench.workloads import draw, find
        >>> solve(draw(find("mlp-1"))).ys.shape
        (32, 1, 2)
    """
    workload = case.workload
    field = copy.deepcopy(case.field).double()
    ts = case.ts.double().numpy()
    n_rows = workload.n_rows if workload.gradient else min(workload.n_rows, workload.n_checked)
    y0 = case.y0[:n_rows].double().numpy()
    exact = replace(case, field=field)

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return _field(exact, t, torch.from_numpy(y).view(y0.shape)).numpy().ravel()

    with threads(1):  # small arrays, among them some whose sums would depend on the threads
        ys = _solved(slope, (ts[0], ts[-1]), y0.ravel(), STATES, ts).reshape(len(ts), *y0.shape)
        return Answer(ys, _gradient(exact, ts, ys) if workload.gradient else None)


def _gradient(case: Case, ts: np.ndarray, ys: np.ndarray) -> np.ndarray:
    parameters = tuple(case.field.parameters())
    shape, n = ys.shape[1:], ys[0].size

    def slope(t: float, augmented: np.ndarray) -> np.ndarray:
        y, a = (
            torch.from_numpy(part).view(shape) for part in (augmented[:n], augmented[n : 2 * n])
        )
        y.requires_grad_()
        with torch.enable_grad():
            f = _field(case, t, y)
        pulled = torch.autograd.grad(
            f, (y, *parameters), -a, allow_unused=True, materialize_grads=True
        )
        return torch.cat([f.detach().ravel(), *(x.ravel() for x in pulled)]).numpy()

    # The sum of squares, whose gradients are of the size of tolerances' units.
    a = 2 * ys[-1].ravel()
    g = np.zeros(sum(p.numel() for p in parameters))
    for i in range(len(ts) - 1, 0, -1):
        start = np.concatenate([ys[i].ravel(), a, g])
        end = _solved(slope, (ts[i], ts[i - 1]), start, GRADIENTS)[-1]
        a = end[n : 2 * n] + 2 * ys[i - 1].ravel()
        g = end[2 * n :]
    return g / ys.size


def _field(case: Case, t: float, y: torch.Tensor) -> torch.Tensor:
    return case.field(torch.tensor(t, dtype=torch.float64), y)


def _solved(
    slope: Callable[[float, np.ndarray], np.ndarray],
    span: tuple[float, float],
    y0: np.ndarray,
    tolerance: float,
    ts: np.ndarray | None = None,
) -> np.ndarray:
    solution = solve_ivp(
        slope, span, y0, method="DOP853", rtol=tolerance, atol=tolerance, t_eval=ts
    )
    assert solution.success, solution.message
    return solution.y.T
