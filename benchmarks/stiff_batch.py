"""1000 stiff rows at once: odeum beside a Python loop over SciPy's Radau and diffrax's Kvaerno5.

    python benchmarks/stiff_batch.py              # all, a few minutes
    python benchmarks/stiff_batch.py --rows 100 --repeats 1

Van der Pol from (2, 0) over [0, 10], mu log-uniform in [1, 1e3], rtol 1e-6, atol 1e-8, float64, one
process and as many threads for torch as for JAX. Solvers take turns, times are medians, diffrax's
compilation is left out. Errors are at the end, ``|y - reference| / (|reference| + 0.01)``, against
SciPy's LSODA at rtol 1e-12, so that nobody wins by being wrong. SciPy's field is plain Python.
At last: what one stiff row beside 255 mild ones does to their numbers of evaluations.
`diffrax` is in odeum's extra `bench`; without it the script goes on with SciPy.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import solve_ivp

import odeum

N_THREADS = 2
T1, RTOL, ATOL = 10.0, 1e-6, 1e-8
OURS = ("radau5", "rodas5p", "rodas4", "kvaerno5", "kvaerno4", "auto")
SMALL = 1e-2
"""Errors are relative to states above this; below, absolute: velocities cross zero."""

Solve = Callable[[], np.ndarray]


def draw_mu(n_rows: int) -> np.ndarray:
    return 10 ** (3 * np.random.default_rng(0).random(n_rows))


def scipy_solve(mu: np.ndarray, method: str, rtol: float, atol: float) -> np.ndarray:
    def end(m: float) -> np.ndarray:
        def field(t: float, y: np.ndarray) -> list[float]:
            x, v = y.tolist()
            return [v, m * (1 - x * x) * v - x]

        solution = solve_ivp(field, (0, T1), [2.0, 0.0], method=method, rtol=rtol, atol=atol)
        assert solution.success
        return solution.y[:, -1]

    return np.stack([end(float(m)) for m in mu])


def odeum_solve(method: str, mu: np.ndarray, tighter: float = 1.0) -> Solve:
    system = odeum.systems.van_der_pol()
    args = {"mu": odeum.per_row(torch.from_numpy(mu)[:, None])}
    y0 = torch.tensor([[2.0, 0.0]], dtype=torch.float64).repeat(len(mu), 1)
    ts = torch.tensor([0.0, T1], dtype=torch.float64)

    def solve() -> np.ndarray:
        solution = odeum.solve(
            system,
            y0,
            ts,
            args,
            method=method,
            rtol=RTOL / tighter,
            atol=ATOL / tighter,
            gradient="none",
        )
        return solution.ys[-1].numpy()

    return solve


def diffrax_solve(mu: np.ndarray) -> Solve | None:
    """diffrax's Kvaerno5 under jit(vmap), compiled before it is timed; None where not installed."""
    try:
        import diffrax
        import jax
        import jax.numpy as jnp
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)
    controller = diffrax.PIDController(rtol=RTOL, atol=ATOL)

    def field(t: object, y: "jax.Array", m: "jax.Array") -> "jax.Array":
        x, v = y
        return jnp.stack([v, m * (1 - x * x) * v - x])

    def end(m: "jax.Array") -> "jax.Array":
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Kvaerno5(),
            t0=0.0,
            t1=T1,
            dt0=None,
            y0=jnp.array([2.0, 0.0]),
            args=m,
            stepsize_controller=controller,
            saveat=diffrax.SaveAt(t1=True),
            max_steps=100_000,
        )
        return solution.ys[0]

    compiled = jax.jit(jax.vmap(end))
    rows = jnp.asarray(mu)
    compiled(rows).block_until_ready()
    return lambda: np.asarray(compiled(rows).block_until_ready())


def errors(ends: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return np.max(abs(ends - reference) / (abs(reference) + SMALL), axis=1)


def compare(n_rows: int, n_repeats: int, methods: list[str]) -> None:
    mu = draw_mu(n_rows)
    reference = scipy_solve(mu, "LSODA", 1e-12, 1e-13)
    entrants: dict[str, Solve] = {"SciPy Radau": lambda: scipy_solve(mu, "Radau", RTOL, ATOL)}
    theirs = diffrax_solve(mu)
    if theirs is None:
        print("diffrax is not installed: pip install 'odeum[bench]'")
    else:
        entrants["diffrax Kvaerno5"] = theirs
    entrants |= {f"odeum {name}": odeum_solve(name, mu) for name in methods}
    seconds: dict[str, list[float]] = {name: [] for name in entrants}
    ends = {}
    for _ in range(n_repeats):
        for name, solve in entrants.items():
            start = time.perf_counter()
            ends[name] = solve()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    header = ("solver", "seconds", "SciPy/this", "diffrax/this", "error median", "error max")
    print("{:>18} {:>9} {:>11} {:>13} {:>13} {:>10}".format(*header))
    for name, median in medians.items():
        ratios = [
            medians.get(peer, np.nan) / median for peer in ("SciPy Radau", "diffrax Kvaerno5")
        ]
        error = errors(ends[name], reference)
        print(
            f"{name:>18} {median:>9.3f} {ratios[0]:>11.2f} {ratios[1]:>13.2f} "
            f"{np.median(error):>13.1e} {error.max():>10.1e}"
        )
    wanted = errors(ends["SciPy Radau"], reference)
    print("\nodeum at tolerances tightened until its median and largest error are SciPy's at most:")
    for name in methods:
        equally_accurate(name, mu, reference, wanted, medians["SciPy Radau"])


def equally_accurate(
    method: str, mu: np.ndarray, reference: np.ndarray, wanted: np.ndarray, scipy_seconds: float
) -> None:
    for tighter in (1.0, 10.0, 100.0, 1000.0):
        solve = odeum_solve(method, mu, tighter)
        start = time.perf_counter()
        error = errors(solve(), reference)
        seconds = time.perf_counter() - start
        if np.median(error) <= np.median(wanted) and error.max() <= wanted.max():
            break
    else:
        print(f"{'odeum ' + method:>18} not even at rtol {RTOL / tighter:g}")
        return
    print(
        f"{'odeum ' + method:>18} {seconds:>9.3f} {scipy_seconds / seconds:>11.2f}   at rtol "
        f"{RTOL / tighter:g}: {np.median(error):.1e}, {error.max():.1e}"
    )


def isolation(methods: list[str]) -> None:
    """255 mild rows alone, then with one of mu = 1e3 beside them."""
    mild = np.linspace(1.0, 2.0, 255)
    ts = torch.tensor([0.0, T1], dtype=torch.float64)

    def n_evaluations(method: str, mu: np.ndarray) -> torch.Tensor:
        solution = odeum.solve(
            odeum.systems.van_der_pol(),
            torch.tensor([[2.0, 0.0]], dtype=torch.float64).repeat(len(mu), 1),
            ts,
            {"mu": odeum.per_row(torch.from_numpy(mu)[:, None])},
            method=method,
            rtol=RTOL,
            atol=ATOL,
            gradient="none",
        )
        return solution.stats.n_evaluations

    print("\nevaluations of 255 mild rows, without and with one stiff row beside them:")
    for method in methods:
        alone = n_evaluations(method, mild)
        beside = n_evaluations(method, np.append(mild, 1e3))
        same = bool(torch.equal(alone, beside[:255]))
        print(
            f"{'odeum ' + method:>18} {int(alone.sum())} and {int(beside[:255].sum())}, "
            f"{'the same in every row' if same else 'CHANGED'}; the stiff row's own {beside[255]}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=OURS, help="of odeum; default all stiff")
    chosen = parser.parse_args()
    torch.set_num_threads(N_THREADS)
    # JAX sizes its pool by the cores it may use.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:N_THREADS])
    methods = [name for name in chosen.methods if name in odeum.methods.names()]
    print(f"torch {torch.__version__}, {N_THREADS} threads, {chosen.rows} rows, rtol {RTOL:g}")
    compare(chosen.rows, chosen.repeats, methods)
    isolation(methods)


if __name__ == "__main__":
    main()
