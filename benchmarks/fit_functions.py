"""Derives the coefficients in odeum.compile.emit.functions_*: minimax fits.

    python benchmarks/fit_functions.py [NAME ...]

Each fit minimises the largest ``weight(x) * |p(x) - f(x)|``, with weights that make it the relative
error of the function emitted: polynomials by Remez exchange, the rational function by reweighted
least squares. Printed: the coefficients, constant term first, and that error as a power of two.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mpmath
from mpmath import atanh, erf, erfc, exp, expm1, ln, mpf, pi, sin, sqrt, tanh

mpmath.mp.dps = 60
Real = Callable[[mpf], mpf]


@dataclass(frozen=True)
class Fit:
    """A function on an interval, the weight of its error, and how many coefficients to fit."""

    function: Real
    weight: Real
    interval: tuple[mpf, mpf]
    n_terms: int
    n_denominator: int = 0  # coefficients of a denominator 1 + x (...)


half_ln2 = ln(2) / 2
s2 = ((sqrt(2) - 1) / (sqrt(2) + 1)) ** 2  # of s = f / (2 + f), squared, at the ends of a binade


def log_tail(z: mpf) -> mpf:
    return (2 * atanh(sqrt(z)) / sqrt(z) - 2) / z


def pow_tail(z: mpf) -> mpf:
    return (2 * atanh(sqrt(z)) / sqrt(z) - 2 - 2 * z / 3) / z**2 / ln(2)


def exp_fit(n: int) -> Fit:
    interval = (-half_ln2 * mpf("1.001"), half_ln2 * mpf("1.001"))
    return Fit(lambda r: (expm1(r) - r) / r**2, lambda r: r**2 / expm1(r), interval, n)


def exp2_fit(n: int) -> Fit:
    interval = (mpf("-0.5001"), mpf("0.5001"))
    return Fit(lambda r: expm1(r * ln(2)) / r, lambda r: r / exp(r * ln(2)), interval, n)


def log_fit(n: int) -> Fit:
    return Fit(log_tail, lambda z: z, (mpf(0), s2 * mpf("1.001")), n)


def erf_fit(n: int, end: str) -> Fit:
    return Fit(lambda x: -ln(erfc(x)) / x, lambda x: x * erfc(x) / erf(x), (mpf(0), mpf(end)), n)


def sin_fit(n: int) -> Fit:
    return Fit(
        lambda z: (sin(sqrt(z)) / sqrt(z) - 1) / z,
        lambda z: z * sqrt(z) / sin(sqrt(z)),
        (mpf(0), (pi / 2 * mpf("1.0001")) ** 2),
        n,
    )


def tanh_fit(n: int, m: int, end: str) -> Fit:
    return Fit(
        lambda z: tanh(sqrt(z)) / sqrt(z),
        lambda z: sqrt(z) / tanh(sqrt(z)),
        (mpf(0), mpf(end) ** 2),
        n,
        m,
    )


FITS = {
    "exp64": exp_fit(11),
    "exp32": exp_fit(5),
    "exp2_64": exp2_fit(11),
    "exp2_32": exp2_fit(6),
    "log64": log_fit(7),
    "log32": log_fit(3),
    "pow64": Fit(pow_tail, lambda z: z**2, (mpf(0), s2 * mpf("1.001")), 7),
    "erf64": erf_fit(24, "5.95"),
    "erf32": erf_fit(9, "3.95"),
    "sin64": sin_fit(8),
    "sin32": sin_fit(4),
    "tanh32": tanh_fit(5, 4, "9.02"),
}


def remez(fit: Fit) -> tuple[list[mpf], mpf]:
    """Coefficients and the largest weighted error of a polynomial."""
    n, (start, end) = fit.n_terms, fit.interval
    n_grid = 60 * (n + 1)
    angles = [pi * (i + mpf("0.37")) / n_grid for i in range(n_grid)]
    grid = [(start + end) / 2 - (end - start) / 2 * mpmath.cos(angle) for angle in angles]
    values = [fit.function(x) for x in grid]
    weights = [abs(fit.weight(x)) for x in grid]
    chosen = [round((i + 0.5) * n_grid / (n + 1)) for i in range(n + 1)]
    while True:
        rows = [
            [*(grid[i] ** k for k in range(n)), (-1) ** sign / weights[i]]
            for sign, i in enumerate(chosen)
        ]
        right = mpmath.matrix([values[i] for i in chosen])
        *p, level = mpmath.lu_solve(mpmath.matrix(rows), right)
        errors = [w * (at(p, x) - f) for x, f, w in zip(grid, values, weights, strict=True)]
        worst = max(map(abs, errors))
        extremes = list(between_changes_of_sign(errors))
        while len(extremes) > n + 1:  # the smaller end goes
            extremes.pop(0 if abs(errors[extremes[0]]) < abs(errors[extremes[-1]]) else -1)
        if worst <= abs(level) * mpf("1.0001") or len(extremes) < n + 1:
            return p, worst
        chosen = extremes


def between_changes_of_sign(errors: list[mpf]) -> Iterator[int]:
    """Where the error is largest between two of its changes of sign."""
    best = 0
    for i, error in enumerate(errors):
        if error * errors[best] <= 0:
            yield best
            best = i
        elif abs(error) > abs(errors[best]):
            best = i
    yield best


def rational(fit: Fit) -> tuple[list[mpf], list[mpf], mpf]:
    """Numerator, denominator 1 + ..., and the largest weighted error; dense towards 0.

    Least squares of the error times the last denominator; then points count by how much they err.
    """
    n, m, end = fit.n_terms, fit.n_denominator, fit.interval[1]
    grid = [end * mpmath.sin(pi * (i + mpf("0.5")) / 400) ** 6 for i in range(200)]
    values, weights = [fit.function(x) for x in grid], [fit.weight(x) for x in grid]
    last, importance = [mpf(1)] * len(grid), [mpf(1)] * len(grid)
    for _ in range(30):
        rows = mpmath.matrix(len(grid), n + m)
        right = mpmath.matrix(len(grid), 1)
        for row, (x, f) in enumerate(zip(grid, values, strict=True)):
            scale = weights[row] * sqrt(importance[row]) / last[row]
            for k in range(n):
                rows[row, k] = scale * x**k
            for k in range(m):
                rows[row, n + k] = -scale * f * x ** (k + 1)
            right[row] = scale * f
        solution = list(mpmath.lu_solve(rows.T * rows, rows.T * right))
        top, bottom = solution[:n], [mpf(1), *solution[n:]]
        last = [at(bottom, x) for x in grid]
        errors = [
            abs(w * (at(top, x) / q - f))
            for x, f, w, q in zip(grid, values, weights, last, strict=True)
        ]
        importance = [i * (e / max(errors) + 0.02) for i, e in zip(importance, errors, strict=True)]
        importance = [i / max(importance) for i in importance]
    return top, bottom, max(errors)


def at(coefficients: list[mpf], x: mpf) -> mpf:
    return mpmath.polyval(coefficients[::-1], x)


if __name__ == "__main__":
    for name in sys.argv[1:] or FITS:
        fit = FITS[name]
        *polynomials, error = (rational if fit.n_denominator else remez)(fit)
        print(f"{name}: 2^{float(mpmath.log(error, 2)):.1f}")
        for coefficients in polynomials:
            print("   ", ", ".join(repr(float(c)) for c in coefficients))
