"""Eager odeum against torchdiffeq on a small MLP: ratios of medians, measured in one run.

    python benchmarks/against_torchdiffeq.py

MLP 2-64-64-2 (tanh), float32, dopri5, tolerance 1e-6, 32 output times over [0, 5]. odeum's rows
have steps of their own; torchdiffeq's share one step size. Errors are against odeum's dopri8 in
float64 at 1e-12. `torchdiffeq` is odeum's extra `bench`.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torchdiffeq
from torch import nn

import odeum

TOLERANCE = 1e-6
N_REPEATS = {1: 15, 128: 15, 4096: 9}


class Field(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2)
        )

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.net(y)


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    torch.manual_seed(0)
    field = Field()
    for layer in field.net[::2]:
        nn.init.normal_(
            layer.weight, std=layer.in_features**-0.5 * (1 if layer.in_features > 2 else 2**0.5)
        )
        nn.init.normal_(layer.bias, std=0.1)
    ts = torch.linspace(0, 5, 32)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    header = ("rows", "pass", "torchdiffeq ms", "odeum ms", "ratio", "error tde", "error odeum")
    print("{:>5} {:>17} {:>15} {:>9} {:>6} {:>10} {:>11}".format(*header))
    for n_rows, n_repeats in N_REPEATS.items():
        y0 = torch.randn(n_rows, 2, generator=torch.Generator().manual_seed(1))
        compare(field, y0, ts, n_repeats)


def compare(field: Field, y0: torch.Tensor, ts: torch.Tensor, n_repeats: int) -> None:
    with torch.no_grad():
        exact = odeum.solve(
            field.double(), y0.double(), ts.double(), method="dopri8", rtol=1e-12, atol=1e-12
        ).ys
    field.float()

    def theirs() -> torch.Tensor:
        return torchdiffeq.odeint(field, y0, ts, method="dopri5", rtol=TOLERANCE, atol=TOLERANCE)

    def ours() -> torch.Tensor:
        return odeum.solve(field, y0, ts, method="dopri5", rtol=TOLERANCE, atol=TOLERANCE).ys

    def learning(solve: Callable[[], torch.Tensor]) -> Callable[[], None]:
        def step() -> None:
            field.zero_grad()
            solve().square().mean().backward()

        return step

    with torch.no_grad():
        errors = [float((solve() - exact).abs().max()) for solve in (theirs, ours)]
        report(len(y0), "forward", theirs, ours, errors, n_repeats)
    report(len(y0), "forward+backward", learning(theirs), learning(ours), errors, n_repeats)


def report(
    n_rows: int,
    name: str,
    theirs: Callable[[], object],
    ours: Callable[[], object],
    errors: list[float],
    n_repeats: int,
) -> None:
    """Times both in turn, so that a change of the machine's speed hits both."""
    theirs(), ours()
    pairs = [(seconds(theirs), seconds(ours)) for _ in range(n_repeats)]
    a, b = (statistics.median(x) * 1e3 for x in zip(*pairs, strict=True))
    ratio = statistics.median(y / x for x, y in pairs)
    print(
        f"{n_rows:>5} {name:>17} {a:>15.1f} {b:>9.1f} {ratio:>6.2f} "
        f"{errors[0]:>10.1e} {errors[1]:>11.1e}"
    )


if __name__ == "__main__":
    main()
