"""SciPy: the whole batch as one system of NumPy arrays, in float64; no gradients."""

from collections.abc import Callable

import numpy as np
from scipy.integrate import solve_ivp

from odeum.lab.bench.entrants.record import Answer, Entrant
from odeum.lab.bench.workloads import Case


def entrants(case: Case, *, thorough: bool) -> list[Entrant]:
    """RK45, which is dopri5; nothing where a gradient is asked for."""
    if case.workload.gradient:
        return []
    y0 = case.y0.double().numpy()
    ts = case.ts.double().numpy()
    tolerance = case.workload.tolerance
    slope = FIELDS[case.workload.field](case)

    def run() -> np.ndarray:
        return solve_ivp(
            lambda t, y: slope(y.reshape(y0.shape)).ravel(),
            (ts[0], ts[-1]),
            y0.ravel(),
            method="RK45",
            rtol=tolerance,
            atol=tolerance,
            t_eval=ts,
        ).y

    return [Entrant("SciPy", run, lambda y: Answer(y.T.reshape(len(ts), *y0.shape)))]


Slope = Callable[[np.ndarray], np.ndarray]


def _mlp(case: Case) -> Slope:
    parameters = [p.detach().double().numpy() for p in case.field.parameters()]
    *hidden, (weight, bias) = zip(parameters[::2], parameters[1::2], strict=True)

    def slope(y: np.ndarray) -> np.ndarray:
        for w, b in hidden:
            y = np.tanh(y @ w.T + b)
        return y @ weight.T + bias

    return slope


def _lorenz(case: Case) -> Slope:
    def slope(y: np.ndarray) -> np.ndarray:
        x, v, z = y.T
        return np.stack([10 * (v - x), x * (28 - z) - v, x * v - 8 / 3 * z], -1)

    return slope


FIELDS: dict[str, Callable[[Case], Slope]] = {"mlp": _mlp, "lorenz": _lorenz}
"""``[batch, dim] -> [batch, dim]``, for the fields that are solved without a gradient."""
