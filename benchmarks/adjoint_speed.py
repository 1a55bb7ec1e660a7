"""Gradients of odeum against those of torchdiffeq on a small MLP: ratios measured in one run.

    OMP_NUM_THREADS=1 python benchmarks/adjoint_speed.py

One training step (solve, loss, backpropagation) of an MLP 2-64-64-2 (tanh), dopri5, 32 output
times over [0, 5]. Ratios are medians over rounds in which everyone takes a turn, against
torchdiffeq's `odeint_adjoint`. Errors are those of the gradient of all weights, relative, against
odeum's discrete gradient by dopri8 in float64 at 1e-11. `torchdiffeq` is odeum's extra `bench`.
"""

import statistics
from dataclasses import dataclass

import torch
import torchdiffeq
from against_torchdiffeq import Field, seconds

import odeum

THEIRS = {"torchdiffeq adjoint": torchdiffeq.odeint_adjoint, "torchdiffeq": torchdiffeq.odeint}
OURS = ("adjoint", "interpolated", "discrete")


@dataclass(frozen=True)
class Setting:
    n_rows: int
    tolerance: float
    dtype: torch.dtype
    n_rounds: int


SETTINGS = (
    Setting(1, 1e-4, torch.float32, 7),
    Setting(1, 1e-6, torch.float32, 7),
    Setting(128, 1e-4, torch.float32, 7),
    Setting(128, 1e-6, torch.float32, 7),
    Setting(128, 1e-6, torch.float64, 5),
    Setting(4096, 1e-4, torch.float32, 3),
    Setting(4096, 1e-6, torch.float32, 3),
)


def standard_field() -> Field:
    """Weights of the size that keeps signals of one size: the field is neither dull nor wild."""
    torch.manual_seed(0)
    field = Field()
    for layer, gain in zip(field.net[::2], (2**0.5, 1.0, 1.0), strict=True):
        torch.nn.init.normal_(layer.weight, std=gain * layer.in_features**-0.5)
        torch.nn.init.normal_(layer.bias, std=0.1)
    return field


class Counted(torch.nn.Module):
    """A field that counts its calls."""

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.field = field
        self.n_calls = 0

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.n_calls += 1
        return self.field(t, y)


def learn(field: Counted, name: str, y0: torch.Tensor, ts: torch.Tensor, tolerance: float) -> None:
    """One training step; leaves the gradient in the weights."""
    field.zero_grad()
    how = {"method": "dopri5", "rtol": tolerance, "atol": tolerance}
    if name in THEIRS:
        ys = THEIRS[name](field, y0, ts, **how)
    else:
        ys = odeum.solve(field, y0, ts, gradient=name, **how).ys
    ys.square().mean().backward()


def gradient(field: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in field.parameters()]).double()


def exact_gradient(y0: torch.Tensor, ts: torch.Tensor) -> torch.Tensor:
    field = standard_field().double()
    how = {"method": "dopri8", "rtol": 1e-11, "atol": 1e-11}
    odeum.solve(field, y0.double(), ts.double(), **how).ys.square().mean().backward()
    return gradient(field)


def compare(setting: Setting) -> None:
    y0 = torch.randn(setting.n_rows, 2, generator=torch.Generator().manual_seed(1))
    ts = torch.linspace(0, 5, 32)
    exact = exact_gradient(y0, ts)
    y0, ts = y0.to(setting.dtype), ts.to(setting.dtype)
    field = Counted(standard_field().to(setting.dtype))
    names = (*THEIRS, *OURS)
    errors, calls = {}, {}
    for name in names:
        field.n_calls = 0
        learn(field, name, y0, ts, setting.tolerance)
        errors[name] = float((gradient(field) - exact).norm() / exact.norm())
        calls[name] = field.n_calls
    rounds = [
        {
            name: seconds(lambda name=name: learn(field, name, y0, ts, setting.tolerance))
            for name in names
        }
        for _ in range(setting.n_rounds)
    ]
    for name in names:
        ms = statistics.median(times[name] for times in rounds) * 1e3
        ratio = statistics.median(times[name] / times["torchdiffeq adjoint"] for times in rounds)
        kind = str(setting.dtype).removeprefix("torch.")
        print(
            f"{setting.n_rows:>5} {setting.tolerance:>9.0e} {kind:>8} {name:>20} {ms:>8.1f} "
            f"{ratio:>6.2f} {calls[name]:>6} {errors[name]:>8.1e}",
            flush=True,
        )


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    header = ("rows", "tolerance", "dtype", "gradient", "ms", "ratio", "calls", "error")
    print("{:>5} {:>9} {:>8} {:>20} {:>8} {:>6} {:>6} {:>8}".format(*header))
    for setting in SETTINGS:
        compare(setting)


if __name__ == "__main__":
    main()
