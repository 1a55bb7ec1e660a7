"""End states of the test problems, far closer than float64 solvers get: the truth of benchmarks.

Radau IIA with 7 stages, of order 13, in NumPy's long double, one method for stiff and nonstiff
problems alike. Newton's matrix is float64, its residual long double, so that the iteration ends at
long double's rounding. Each problem is solved at two tolerances; how far their ends lie apart is
stored as ``uncertainty``. Nothing here is shared with the solvers that are measured.

    python benchmarks/work_precision.py --references
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import mpmath
import numpy as np
import torch
from problems import REFERENCES, PlainField, Problem
from scipy.linalg import lu_factor, lu_solve

N_STAGES = 7
N_NEWTON = 25
TOLERANCES = (1e-10, 1e-11)
"""Of the error estimate, whose order is only 7: errors of the solution are far smaller."""

Real = np.longdouble


@dataclass(frozen=True)
class Collocation:
    """Radau IIA: ``nodes`` and ``b_error`` [stages], ``a`` [stages, stages], the error's f(y0)."""

    nodes: np.ndarray
    a: np.ndarray
    b_error: np.ndarray
    start_weight: Real


def radau(n_stages: int) -> Collocation:
    """The coefficients; the estimate is Hairer & Wanner II, IV.8, with A's real eigenvalue."""
    mpmath.mp.dps = 50

    def polynomial(x: mpmath.mpf) -> mpmath.mpf:
        return mpmath.legendre(n_stages, 2 * x - 1) - mpmath.legendre(n_stages - 1, 2 * x - 1)

    # Interior nodes interlace with the zeros of a Jacobi polynomial: a fine grid separates them.
    grid = [mpmath.mpf(i) / 2000 for i in range(1, 2000)]
    brackets = [(x, y) for x, y in pairwise(grid) if polynomial(x) * polynomial(y) < 0]
    nodes = [mpmath.findroot(polynomial, pair, solver="anderson") for pair in brackets]
    nodes.append(mpmath.mpf(1))
    assert len(nodes) == n_stages
    powers = mpmath.matrix(n_stages, n_stages)
    integrals = mpmath.matrix(n_stages, n_stages)
    for i, node in enumerate(nodes):
        for q in range(n_stages):
            powers[i, q] = node**q
            integrals[i, q] = node ** (q + 1) / (q + 1)
    a = integrals * powers**-1
    eigenvalues = mpmath.eig(a, left=False, right=False)
    start = min(eigenvalues, key=lambda value: abs(mpmath.im(value)))
    start = mpmath.re(start)
    # b_error integrates t^q to 0, but for the start's weight at q = 0.
    target = mpmath.matrix([-start] + [0] * (n_stages - 1))
    b_error = mpmath.lu_solve(powers.T, target)

    def real(value: mpmath.mpf) -> Real:
        return Real(mpmath.nstr(value, 30))

    return Collocation(
        nodes=np.array([real(x) for x in nodes]),
        a=np.array([[real(a[i, j]) for j in range(n_stages)] for i in range(n_stages)]),
        b_error=np.array([real(x) for x in b_error]),
        start_weight=real(start),
    )


def extrapolated(method: Collocation, z: np.ndarray, ratio: Real) -> np.ndarray:
    """The last step's polynomial at the next step's nodes, from its end on; [dim, stages]."""
    x = np.concatenate([[Real(0)], method.nodes])
    values = np.concatenate([np.zeros((len(z), 1), Real), z], axis=1)
    guesses = np.zeros_like(z)
    for i, node in enumerate(1 + ratio * method.nodes):
        for j, own in enumerate(x):
            others = np.delete(x, j)
            guesses[:, i] += values[:, j] * np.prod((node - others) / (own - others))
    return guesses - z[:, -1:]


def solve(problem: Problem, method: Collocation, tolerance: float) -> np.ndarray:
    """The end state, long double [dim]."""
    field: PlainField = problem.field
    y = np.array(problem.system.y0, Real)
    dim, n_stages = len(y), len(method.nodes)
    t, t1 = Real(0), Real(problem.t1)
    scale = np.broadcast_to(np.array(problem.scale, Real), dim)
    h, z, z_step = Real(1e-6) * min(t1, Real(1)), None, Real(1)
    while t < t1:
        h = min(h, t1 - t)
        jacobian = torch.func.jacrev(lambda y: problem.system(0.0, y))(
            torch.from_numpy(y.astype(np.float64))
        ).numpy()
        step = float(h)
        newton = lu_factor(
            np.eye(dim * n_stages) - step * np.kron(jacobian, method.a.astype(np.float64))
        )
        unit = np.abs(y) + scale
        trial = (
            np.zeros((dim, n_stages), Real) if z is None else extrapolated(method, z, h / z_step)
        )
        trial, f = iterate(field, y, h, method, newton, unit, trial)
        if trial is None:
            h, z = h / 4, None
            continue
        raw = h * (method.start_weight * field(t, y) + f @ method.b_error)
        filter_matrix = np.eye(dim) - step * float(method.start_weight) * jacobian
        estimate = np.linalg.solve(filter_matrix, raw.astype(np.float64))
        ratio = float(np.max(np.abs(estimate) / unit)) / tolerance
        factor = min(4.0, max(0.2, 0.8 * max(ratio, 1e-30) ** (-1 / (n_stages + 1))))
        if ratio <= 1:
            t = t1 if h == t1 - t else t + h
            y, z, z_step = y + trial[:, -1], trial, h
        else:
            z = None
        h = h * Real(factor)
    return y


def iterate(
    field: PlainField,
    y: np.ndarray,
    h: Real,
    method: Collocation,
    newton: tuple[np.ndarray, np.ndarray],
    unit: np.ndarray,
    z: np.ndarray,
) -> tuple[np.ndarray | None, np.ndarray]:
    """Stage increments [dim, stages] and their derivatives by Newton's method, None if it fails."""
    last = np.inf
    f = np.zeros_like(z)
    for _ in range(N_NEWTON):
        f = field(Real(0), y[:, None] + z)
        residual = z - h * (f @ method.a.T)
        change = lu_solve(newton, residual.astype(np.float64).ravel()).reshape(z.shape)
        z = z - change
        size = float(np.max(np.abs(change) / unit[:, None]))
        if size < 1e-17:
            return z, f
        if not size < 2 * last:
            # Rounding alone moves it, or it diverges.
            return (z if last < 1e-15 else None), f
        last = size
    return (z if last < 1e-15 else None), f


def write(problems: Iterable[Problem]) -> None:
    """Recomputes the end states of these problems in the file, and leaves the others."""
    method = radau(N_STAGES)
    known = json.loads(REFERENCES.read_text()) if REFERENCES.exists() else {}
    for problem in problems:
        coarse, fine = (solve(problem, method, tolerance) for tolerance in TOLERANCES)
        unit = np.abs(fine) + np.array(problem.scale, Real)
        uncertainty = float(np.max(np.abs(fine - coarse) / unit))
        known[problem.name] = {
            "t1": problem.t1,
            "y": [float(value) for value in fine],
            "uncertainty": float(f"{uncertainty:.1e}"),
        }
        print(f"{problem.name}: two solutions differ by {uncertainty:.1e}", flush=True)
        REFERENCES.write_text(json.dumps(known, indent=1) + "\n")
