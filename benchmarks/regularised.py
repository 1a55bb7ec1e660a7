"""What regularisers buy: evaluations of fields trained with and without them, at equal fit.

Each field learns the map y(0) -> y(1) = y(0) + y(0)^3 (Kelly et al. 2020, fig. 1) from the same
weights, with fixed steps; it is then solved at tight tolerances, where what it costs shows.

    python benchmarks/regularised.py [--epochs 400]
"""

import argparse
import time

import torch
from torch import nn

import odeum
from odeum.regularisers import Derivative, JacobianFrobenius, kinetic_energy

REGULARISERS = {
    "none": (0.0, kinetic_energy),
    "kinetic energy": (0.01, kinetic_energy),
    "Jacobian Frobenius": (0.01, JacobianFrobenius(generator=torch.Generator().manual_seed(0))),
    "R2": (0.01, Derivative(2)),
    "R3": (0.001, Derivative(3)),
}


class Field(nn.Module):
    """An MLP of state and time that winds before it is trained."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 1)).double()
        with torch.no_grad():
            self.layers[0].weight[:, 1] *= 5

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat([y, t.expand(len(y), 1)], -1))


def trained(integrand, weight: float, y0: torch.Tensor, ts: torch.Tensor, n_epochs: int) -> Field:
    field = Field()
    optimizer = torch.optim.Adam(field.parameters(), lr=0.02)
    for _ in range(n_epochs):
        sol = odeum.solve(
            field,
            y0,
            ts,
            method="rk4",
            step=odeum.StepOptions(fixed=0.2),
            integrals={"penalty": integrand} if weight else None,
        )
        loss = (sol.ys[-1] - target(y0)).pow(2).mean()
        if weight:
            loss = loss + weight * sol.integrals["penalty"][-1].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return field


def target(y0: torch.Tensor) -> torch.Tensor:
    return y0 + y0**3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=200)
    n_epochs = parser.parse_args().epochs
    y0 = torch.linspace(-1, 1, 24, dtype=torch.float64).unsqueeze(-1)
    ts = torch.tensor([0.0, 1.0], dtype=torch.float64)
    tolerances = (1e-4, 1e-6, 1e-8)
    evaluations = "".join(f"{f'n_f at {tol:.0e}':>14}" for tol in tolerances)
    print(f"{'regulariser':<20}{'weight':>8}{'RMS error':>11}{evaluations}{'ms an epoch':>13}")
    for name, (weight, integrand) in REGULARISERS.items():
        begin = time.perf_counter()
        field = trained(integrand, weight, y0, ts, n_epochs)
        spent = 1000 * (time.perf_counter() - begin) / n_epochs
        counts = ""
        with torch.no_grad():
            for tol in tolerances:
                sol = odeum.solve(field, y0, ts, rtol=tol, atol=tol)
                counts += f"{float(sol.stats.n_evaluations.double().mean()):>14.1f}"
        error = float((sol.ys[-1] - target(y0)).pow(2).mean().sqrt())
        print(f"{name:<20}{weight:>8g}{error:>11.4f}{counts}{spent:>13.1f}", flush=True)


if __name__ == "__main__":
    main()
