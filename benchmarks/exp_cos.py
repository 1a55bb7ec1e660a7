"""Learning z(t) = exp(1 - cos t) from single pairs: odeum beside the textbook loop and torchdiffeq.

    python benchmarks/exp_cos.py                              # each library's own tolerances
    python benchmarks/exp_cos.py --rtol 1e-3 --atol 1e-6      # the same for all
    python benchmarks/exp_cos.py --profile discrete

A step of training sees one pair ``(z(t0), z(t0 + 1))`` with t0 uniform in [-1, 9]; the field is an
MLP 2-50-75-1 with GELU on (z, t), in float32. All start from the same weights, see the same pairs
and use the same Adam, in turn within one run, so that a change of the machine's speed hits all. The
textbook loop solves with SciPy's LSODA over torch, and back by the augmented system of state,
adjoint and parameter gradients, written out by hand. Before a table of medians comes one of loss
curves: means over a tenth of the run each. `torchdiffeq` is odeum's extra `bench`.
"""

import argparse
import copy
import cProfile
import math
import pstats
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torchdiffeq
from scipy.integrate import solve_ivp
from torch import nn

import odeum
from odeum.gradient.registry import GRADIENTS

LEFT_OUT = ("none", "forward")
"""No gradient; and one that integrates a sensitivity for each of 4051 parameters."""

DEFAULTS = {"LSODA": (1e-3, 1e-6), "torchdiffeq": (1e-7, 1e-9), "odeum": (1e-4, 1e-6)}
SEED = 0


class Field(nn.Module):
    """MLP on (z, t)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2, 50), nn.GELU(), nn.Linear(50, 75), nn.GELU(), nn.Linear(75, 1)
        )

    def forward(self, t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat([z, t.expand(len(z), 1)], -1))


def exact(t: torch.Tensor) -> torch.Tensor:
    return torch.exp(1 - torch.cos(t))


class ByHand(torch.autograd.Function):
    """The textbook: LSODA there, and the augmented system by LSODA back."""

    @staticmethod
    def forward(
        ctx: Any, net: Field, z0: torch.Tensor, ts: torch.Tensor, tolerance: Any, *params: Any
    ) -> torch.Tensor:
        def slope(t: float, z: np.ndarray) -> np.ndarray:
            state = torch.as_tensor(z, dtype=torch.float32)[None]
            with torch.no_grad():
                return net(torch.tensor(t, dtype=torch.float32), state).numpy()[0]

        rtol, atol = tolerance
        t0, t1 = ts.tolist()
        solved = solve_ivp(slope, (t0, t1), z0[0].numpy(), method="LSODA", rtol=rtol, atol=atol)
        z1 = torch.as_tensor(solved.y[:, -1], dtype=torch.float32)[None]
        ctx.net, ctx.span, ctx.tolerance, ctx.params = net, (t0, t1), tolerance, params
        ctx.save_for_backward(z1)
        return z1

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[Any, ...]:
        net, params = ctx.net, ctx.params
        (z1,) = ctx.saved_tensors
        dim = z1.shape[1]

        def slope(t: float, augmented: np.ndarray) -> np.ndarray:
            state = torch.as_tensor(augmented[: 2 * dim], dtype=torch.float32)
            z = state[None, :dim].requires_grad_()
            a = state[None, dim:]
            with torch.enable_grad():
                dz = net(torch.tensor(t, dtype=torch.float32), z)
            pulled = torch.autograd.grad(dz, [z, *params], -a)
            return torch.cat([dz.detach()[0], *(x.reshape(-1) for x in pulled)]).numpy()

        n_params = sum(p.numel() for p in params)
        start = torch.cat([z1[0], g[0], torch.zeros(n_params)]).numpy()
        rtol, atol = ctx.tolerance
        t0, t1 = ctx.span
        solved = solve_ivp(slope, (t1, t0), start, method="LSODA", rtol=rtol, atol=atol)
        end = torch.as_tensor(solved.y[:, -1], dtype=torch.float32)
        g_params = end[2 * dim :].split([p.numel() for p in params])
        shaped = [x.view_as(p) for x, p in zip(g_params, params, strict=True)]
        return (None, end[None, dim : 2 * dim], None, None, *shaped)


Solve = Callable[[Field, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass
class Entrant:
    """A way to learn, with weights and an optimiser of its own."""

    name: str
    solve: Solve
    field: Field
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.field = copy.deepcopy(self.field)
        self.optimiser = torch.optim.Adam(self.field.parameters(), lr=1e-3)

    def step(self, t0: float) -> None:
        """One step of training on the pair at ``t0``, timed whole."""
        start = time.perf_counter()
        ts = torch.tensor([t0, t0 + 1])
        z0, z1 = exact(ts).view(2, 1, 1)
        self.optimiser.zero_grad()
        loss = (self.solve(self.field, z0, ts) - z1).square().mean()
        loss.backward()
        self.optimiser.step()
        self.seconds.append(time.perf_counter() - start)
        self.losses.append(float(loss.detach()))


def entrants(field: Field, tolerance: tuple[float, float] | None) -> list[Entrant]:
    lsoda, theirs, ours = (tolerance or DEFAULTS[who] for who in ("LSODA", "torchdiffeq", "odeum"))

    def peer(solve: Callable[..., torch.Tensor]) -> Solve:
        return lambda net, z0, ts: solve(net, z0, ts, rtol=theirs[0], atol=theirs[1])[-1]

    def odeum_by(gradient: str, engine: str = "auto") -> Solve:
        return lambda net, z0, ts: odeum.solve(
            net, z0, ts, rtol=ours[0], atol=ours[1], gradient=gradient, engine=engine
        ).ys[-1]

    ways: dict[str, Solve] = {
        "LSODA by hand": lambda net, z0, ts: ByHand.apply(net, z0, ts, lsoda, *net.parameters()),
        "torchdiffeq adjoint": peer(torchdiffeq.odeint_adjoint),
        "torchdiffeq backprop": peer(torchdiffeq.odeint),
    }
    ways |= {f"odeum {name}": odeum_by(name) for name in GRADIENTS if name not in LEFT_OUT}
    ways |= {f"odeum {name}, eager": odeum_by(name, "eager") for name in ("discrete", "adjoint")}
    return [Entrant(name, solve, field) for name, solve in ways.items()]


def report(taking_part: list[Entrant]) -> None:
    n = len(taking_part[0].losses) // 10
    print(f"\nmean loss of each tenth of the run, {n} steps")
    for entrant in taking_part:
        means = [statistics.mean(entrant.losses[i * n : (i + 1) * n]) for i in range(10)]
        print(f"{entrant.name:>22}" + "".join(f"{mean:>9.4f}" for mean in means))
    medians = [statistics.median(e.seconds) for e in taking_part]
    first = taking_part[0]
    curve = math.sqrt(statistics.mean(x**2 for x in first.losses))
    print(f"\n{'':>22} {'ms a step':>10} {'x faster':>9} {'loss curve apart':>17}")
    for entrant, median in zip(taking_part, medians, strict=True):
        pairs = zip(first.seconds, entrant.seconds, strict=True)
        faster = statistics.median(a / b for a, b in pairs)
        pairs = zip(first.losses, entrant.losses, strict=True)
        apart = math.sqrt(statistics.mean((a - b) ** 2 for a, b in pairs)) / curve
        print(f"{entrant.name:>22} {median * 1e3:>10.2f} {faster:>9.2f} {apart:>17.1e}")


def profile(taking_part: list[Entrant], gradient: str, times: list[float]) -> None:
    """Where the time of one of odeum's goes."""
    entrant = next(e for e in taking_part if e.name == f"odeum {gradient}")
    for t0 in times[:20]:
        entrant.step(t0)
    profiler = cProfile.Profile()
    profiler.enable()
    for t0 in times:
        entrant.step(t0)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rtol", type=float, help="for all; each library's default where left out")
    parser.add_argument("--atol", type=float, default=1e-6, help="with --rtol")
    parser.add_argument("--profile", metavar="GRADIENT", help="profile it instead")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    tolerance = None if chosen.rtol is None else (chosen.rtol, chosen.atol)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {chosen.steps} steps")
    print(f"rtol, atol: {tolerance or DEFAULTS}")
    torch.manual_seed(SEED)
    taking_part = entrants(Field(), tolerance)
    times = np.random.default_rng(SEED).uniform(-1, 9, chosen.steps).tolist()
    if chosen.profile:
        profile(taking_part, chosen.profile, times)
        return
    for t0 in times:
        for entrant in taking_part:
            entrant.step(t0)
    report(taking_part)


if __name__ == "__main__":
    main()
