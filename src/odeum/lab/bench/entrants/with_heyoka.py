"""heyoka: Taylor series compiled for as many rows as there are SIMD lanes, on one thread."""

import math
from collections.abc import Callable
from typing import Any

import heyoka
import numpy as np

from odeum.lab.bench.entrants.record import Answer, Entrant
from odeum.lab.bench.workloads import Case


def entrants(case: Case, *, thorough: bool) -> list[Entrant]:
    """Lorenz's system; and the sensitivities of a network in float64 to all of its weights."""
    if case.workload.field == "lorenz":
        return [_lorenz(case)]
    # Compiling the sensitivities takes half a minute.
    if thorough and case.workload.name == "mlp-20-gradient":
        return [_variational(case)]
    return []


def _lorenz(case: Case) -> Entrant:
    x, v, z = variables = heyoka.make_vars("x", "v", "z")
    field = (10.0 * (v - x), x * (28.0 - z) - v, x * v - 8 / 3 * z)
    system = list(zip(variables, field, strict=True))
    solve = _over_rows(case, lambda zeros: _integrator(case, system, zeros))

    def run() -> np.ndarray:
        ys = np.empty((len(case.ts), *case.y0.shape))
        for rows, found in solve():
            ys[:, rows] = found.transpose(0, 2, 1)
        return ys

    return Entrant("heyoka, batch, 1 thread", run, Answer, 1, "odeum, 1 thread")


def _variational(case: Case) -> Entrant:
    dim, sizes = case.workload.dim, case.workload.sizes
    variables = heyoka.make_vars(*[f"y{i}" for i in range(dim)])
    network = heyoka.model.ffnn(
        inputs=variables,
        nn_hidden=list(sizes[1:-1]),
        n_out=dim,
        activations=[*[heyoka.tanh] * (len(sizes) - 2), lambda x: x],
    )
    pairs = list(zip(variables, network, strict=True))
    system = heyoka.var_ode_sys(pairs, heyoka.var_args.params, order=1)
    parameters = [p.detach().double().numpy() for p in case.field.parameters()]
    # heyoka has all weights first, then all biases.
    order = [*range(0, len(parameters), 2), *range(1, len(parameters), 2)]
    values = np.concatenate([parameters[i].ravel() for i in order])

    def integrator(zeros: np.ndarray) -> Any:
        pars = np.repeat(values[:, None], zeros.shape[1], 1)
        return _integrator(case, system, zeros, pars=pars, compact_mode=True)

    solve = _over_rows(case, integrator)
    n = len(case.ts) * case.y0.numel()

    def run() -> tuple[np.ndarray, np.ndarray]:
        ys = np.empty((len(case.ts), *case.y0.shape))
        gradient = np.zeros(len(values))
        for rows, found in solve():
            states, sensitivities = found[:, :dim], found[:, dim:]
            ys[:, rows] = states.transpose(0, 2, 1)
            by_weight = sensitivities.reshape(len(found), dim, len(values), -1)
            gradient += np.einsum("tib,tipb->p", 2 / n * states, by_weight)
        return ys, gradient

    def answer(found: tuple[np.ndarray, np.ndarray]) -> Answer:
        ys, gradient = found
        ends = np.cumsum([parameters[i].size for i in order])
        parts = dict(zip(order, np.split(gradient, ends[:-1]), strict=True))
        return Answer(ys, np.concatenate([parts[i] for i in range(len(parameters))]))

    return Entrant("heyoka, variational, 1 thread", run, answer, 1, "odeum, 1 thread")


def _integrator(case: Case, system: Any, zeros: np.ndarray, **options: Any) -> Any:
    return heyoka.taylor_adaptive_batch(system, zeros, tol=case.workload.tolerance, **options)


def _over_rows(case: Case, integrator: Callable[[np.ndarray], Any]) -> Callable[[], Any]:
    """Solves the rows, as many at once as fill the lanes; yields which rows, and what was found."""
    n_rows, dim = case.y0.shape
    n_lanes = math.gcd(n_rows, heyoka.recommended_simd_size())
    taylor = integrator(np.zeros((dim, n_lanes)))
    start = np.array(taylor.state)
    grid = np.repeat(case.ts.numpy()[:, None], n_lanes, 1)
    y0 = case.y0.numpy()

    def solve() -> Any:
        for first in range(0, n_rows, n_lanes):
            rows = slice(first, first + n_lanes)
            taylor.set_time(0.0)
            taylor.state[:] = start
            taylor.state[:dim] = y0[rows].T
            yield rows, taylor.propagate_grid(grid)[-1]

    return solve
