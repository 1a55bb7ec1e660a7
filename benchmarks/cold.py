"""What the fused engine costs where it is small or cold.

    python benchmarks/cold.py

Prints, for an MLP 2-64-64-2: the first solve with its gradient where nothing is compiled; the same
in a second process, which finds the kernel on disk; and the Python around one solve of one row, as
the time of a solve so short that its kernel takes a microsecond. Importing torch and odeum is left
out, importing what the engine needs is not.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch

import odeum

ROUNDS = 5


class Field(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(2, 64),
            torch.nn.Tanh(),
            torch.nn.Linear(64, 64),
            torch.nn.Tanh(),
            torch.nn.Linear(64, 2),
        )

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.net(y)


def first_solve() -> None:
    """The seconds of the first solve of this process, and of its gradient."""
    torch.manual_seed(0)
    field, y0, ts = Field(), torch.randn(128, 2), torch.linspace(0, 5, 32)
    solve = odeum.solve
    start = time.perf_counter()
    solve(field, y0, ts, engine="fused").ys.square().mean().backward()
    print(time.perf_counter() - start)


def in_another_process(cache: str) -> float:
    environment = {**os.environ, "ODEUM_CACHE": cache}
    # Users' modules are compiled once, not at every start.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    asked = [sys.executable, __file__, "--first"]
    return float(subprocess.run(asked, env=environment, capture_output=True, check=True).stdout)


def dispatch(n: int = 3000) -> float:
    """Seconds of Python around one solve of one row, the median."""
    torch.manual_seed(0)
    field, y0, ts = Field(), torch.randn(1, 2), torch.tensor([0.0, 1e-4])
    step = odeum.StepOptions(fixed=1.0)
    seconds = []
    with torch.no_grad():
        for _ in range(n):
            start = time.perf_counter()
            odeum.solve(field, y0, ts, method="euler", step=step, engine="fused")
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[n // 10 :])


def main() -> None:
    if "--first" in sys.argv:
        first_solve()
        return
    cold, warm = [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(in_another_process(cache))
            warm.append(in_another_process(cache))
    with tempfile.TemporaryDirectory() as cache:
        os.environ["ODEUM_CACHE"] = cache
        around = dispatch()
    print(f"first solve and gradient, compiled    {statistics.median(cold):6.2f} s   target 3")
    print(f"the same in a second process          {statistics.median(warm):6.2f} s   target 0.5")
    print(f"Python around a solve of one row      {around * 1e6:6.0f} us  target 50")


if __name__ == "__main__":
    main()
