"""The classic test problems as benchmarks run them: span, units of tolerances, reference, field.

SciPy's solvers get a field of plain Python numbers or NumPy, faster for one small system than
torch, so that times compare each library as its own users would use it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from odeum import systems

REFERENCES = Path(__file__).with_name("references.json")

PlainField = Callable[[Any, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Problem:
    """A system, how long it is followed, and in what units its errors are measured.

    ``scale`` (one number, or one per component) is the ratio of the absolute to the relative
    tolerance, and of the error: ``max |y - reference| / (|reference| + scale)``.
    """

    name: str
    system: systems.System
    t1: float
    scale: tuple[float, ...]
    stiff: bool

    @property
    def field(self) -> PlainField:
        """``f(t, y)`` on arrays ``[dim]`` or ``[dim, columns]``, of any floating type."""
        return VECTORISED.get(self.system.name) or _componentwise(self.system)

    def atol(self, rtol: float) -> np.ndarray:
        return rtol * np.broadcast_to(self.scale, len(self.system.y0)).copy()

    def error(self, y: np.ndarray) -> float:
        reference = np.array(references()[self.name]["y"])
        return float(np.max(np.abs(y - reference) / (np.abs(reference) + np.array(self.scale))))


@cache
def references() -> dict[str, Any]:
    return json.loads(REFERENCES.read_text())


def _componentwise(system: systems.System) -> PlainField:
    """The system's own equations: nothing but arithmetic, which Python's numbers can do too."""
    derivative, constants = system.derivative, dict(system.constants)

    def field(t: Any, y: np.ndarray) -> np.ndarray:
        components = y.tolist() if y.ndim == 1 and y.dtype == np.float64 else list(y)
        return np.array(derivative(t, components, **constants))

    return field


def _pleiades(t: Any, y: np.ndarray) -> np.ndarray:
    masses = np.arange(1.0, 8.0).reshape(1, 7, *(1,) * (y.ndim - 1))
    positions = y[:7], y[7:14]
    dx, dy = (p[None] - p[:, None] for p in positions)
    square = dx * dx + dy * dy + np.eye(7).reshape(7, 7, *(1,) * (y.ndim - 1))
    pull = masses / (square * np.sqrt(square))
    return np.concatenate([y[14:], (pull * dx).sum(1), (pull * dy).sum(1)])


_RATES = np.array(systems.pollu().constants["rates"])


def _pollu(t: Any, y: np.ndarray) -> np.ndarray:
    """Each sum of rates as the test set writes it, numbered from 0."""
    k = _RATES
    y0, y1, y2, y3, y4, y5, y6, _, y8, y9, y10, _, y12, y13, _, y15, y16, _, y18, y19 = y
    r = (k[0] * y0, k[1] * y1 * y3, k[2] * y4 * y1, k[3] * y6, k[4] * y6, k[5] * y6 * y5)
    r += (k[6] * y8, k[7] * y8 * y5, k[8] * y10 * y1, k[9] * y10 * y0, k[10] * y12)
    r += (k[11] * y9 * y1, k[12] * y13, k[13] * y0 * y5, k[14] * y2, k[15] * y3, k[16] * y3)
    r += (k[17] * y15, k[18] * y15, k[19] * y16 * y5, k[20] * y18, k[21] * y18)
    r += (k[22] * y0 * y3, k[23] * y18 * y0, k[24] * y19)
    return np.array(
        [
            r[1] + r[2] + r[8] + r[10] + r[11] + r[21] + r[24]
            - r[0] - r[9] - r[13] - r[22] - r[23],
            r[0] + r[20] - r[1] - r[2] - r[8] - r[11],
            r[0] + r[16] + r[18] + r[21] - r[14],
            r[14] - r[1] - r[15] - r[16] - r[22],
            2 * r[3] + r[5] + r[6] + r[12] + r[19] - r[2],
            r[2] + 2 * r[17] - r[5] - r[7] - r[13] - r[19],
            r[12] - r[3] - r[4] - r[5],
            r[3] + r[4] + r[5] + r[6],
            -r[6] - r[7],
            r[6] + r[8] - r[11],
            r[7] + r[10] - r[8] - r[9],
            r[8],
            r[9] - r[10],
            r[11] - r[12],
            r[13],
            r[15] - r[17] - r[18],
            -r[19],
            r[19],
            r[22] + r[24] - r[20] - r[21] - r[23],
            r[23] - r[24],
        ]
    )  # fmt: skip


VECTORISED: dict[str, PlainField] = {"pleiades": _pleiades, "pollu": _pollu}


def _van_der_pol(mu: float) -> Problem:
    """To t = 2 mu, past two jumps; the velocity between them is of the size of 1 / mu."""
    name = f"van_der_pol_1e{round(np.log10(mu))}"
    return Problem(name, systems.van_der_pol(mu=mu), 2 * mu, (1.0, 1 / mu), stiff=True)


def _default(name: str, scale: float = 1.0, *, stiff: bool, t1: float | None = None) -> Problem:
    system = systems.get(name)
    return Problem(name, system, t1 or system.span[1], (scale,), stiff)


PROBLEMS = (
    _default("arenstorf", stiff=False),
    _default("pleiades", stiff=False),
    _default("kepler", stiff=False),
    _default("lorenz", stiff=False, t1=10.0),
    _default("brusselator", stiff=False),
    _default("rigid_body", stiff=False),
    _default("robertson", 1e-8, stiff=True),
    _van_der_pol(1e3),
    _van_der_pol(1e6),
    _default("hires", 1e-4, stiff=True),
    _default("oregonator", 1e-6, stiff=True),
    _default("pollu", 1e-6, stiff=True),
)
