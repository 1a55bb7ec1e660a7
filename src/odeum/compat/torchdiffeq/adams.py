"""Adams's methods on a grid, with the coefficients of equal steps, as torchdiffeq takes them.

Coefficients are integrals of Lagrange's polynomials, computed exactly. A step weighs the
derivatives of the steps before it; the first three are taken by the 3/8 rule.
"""

import warnings
from collections import deque
from fractions import Fraction
from functools import lru_cache

import torch

from odeum.compat.torchdiffeq.call import Call
from odeum.compat.torchdiffeq.grid import GridStep, perturbed
from odeum.compat.torchdiffeq.options import AdamsOptions, GridOptions
from odeum.eager.explicit import stepper
from odeum.tableaus import EXPLICIT
from odeum.types import Tensor

FEWEST = 3
"""Past derivatives below which a step is the 3/8 rule's."""


@lru_cache(maxsize=64)
def weights(n: int, newest: int) -> tuple[float, ...]:
    """Weights over one step of derivatives at ``newest, newest - 1, ...``, the step being [0, 1].

    Args:
        n: number of derivatives.
        newest: 0 for Bashforth's explicit formulae, 1 for Moulton's implicit ones.

    Source:
        Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I (1993), III.1.

    Example:
        >>> weights(2, 0), weights(2, 1)
        ((1.5, -0.5), (0.5, 0.5))
    """
    nodes = [newest - i for i in range(n)]
    found = []
    for node in nodes:
        polynomial = [Fraction(1)]
        for other in nodes:
            if other != node:
                # Times (x - other) / (node - other).
                shifted = [Fraction(0), *polynomial]
                for power, coefficient in enumerate(polynomial):
                    shifted[power] -= other * coefficient
                polynomial = [coefficient / (node - other) for coefficient in shifted]
        found.append(float(sum(c / (power + 1) for power, c in enumerate(polynomial))))
    return tuple(found)


def adams(call: Call, grid: GridOptions, options: AdamsOptions) -> GridStep:
    """The step of Bashforth's formulae, corrected by Moulton's for an implicit method.

    One solve's own: it remembers derivatives from step to step.
    """
    if options.max_order <= FEWEST:
        warnings.warn(
            f"max_order = {options.max_order} leaves every step to the 3/8 rule, as rk4 takes it",
            stacklevel=5,
        )
    start = stepper(EXPLICIT["kutta38"], call.y0.dtype, call.y0.device)
    row_field, implicit = call.row_field(), call.method.name != "explicit_adams"
    past: deque[Tensor] = deque(maxlen=max(1, int(options.max_order) - 1))

    def step(t0: Tensor, t1: Tensor, y0: Tensor) -> tuple[Tensor, Tensor]:
        field = call.row_field(perturbed(call, t0, t1)) if grid.perturb else row_field
        t, h, y = t0.reshape(1, 1), (t1 - t0).reshape(1, 1), y0.unsqueeze(0)
        dt = h.to(y.dtype)
        f0 = field(t.to(y.dtype), y)
        past.appendleft(f0)
        if len(past) < FEWEST:
            return start.step(field, t, h, y, f0).y1.squeeze(0), f0.squeeze(0)
        change = dt * _weighed(weights(len(past), 0), past)
        if implicit:
            newest, *others = weights(len(past) + 1, 1)
            known = dt * _weighed(others, past)
            for _ in range(options.max_iters):
                f1 = field(t1.reshape(1, 1).to(y.dtype), y + change)
                before, change = change, dt * newest * f1 + known
                if _converged(call, before, change):
                    break
            else:
                warnings.warn(
                    f"implicit Adams did not converge in {options.max_iters} corrections at "
                    f"t = {float(t1.detach()):g}: take smaller steps, or allow more with max_iters",
                    stacklevel=5,
                )
                past.pop()
        return (y + change).squeeze(0), f0.squeeze(0)

    return step


def _weighed(coefficients: tuple[float, ...] | list[float], past: deque[Tensor]) -> Tensor:
    terms = zip(coefficients, past, strict=True)
    return torch.stack([coefficient * f for coefficient, f in terms]).sum(0)


@torch.no_grad()
def _converged(call: Call, before: Tensor, change: Tensor) -> bool:
    """Whether no element of a step changed by more than the tolerance of it."""
    magnitude = call.layout.magnitude
    before, change = before.squeeze(0), change.squeeze(0)
    allowed = call.atol + call.rtol * torch.maximum(magnitude(before), magnitude(change))
    return bool((magnitude(before - change) < allowed).all())
