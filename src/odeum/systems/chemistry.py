"""Reacting substances: oscillating and stiff networks of reactions.

Rates of reactions span up to 15 powers of ten, so all but the Brusselator want a stiff method.
Nothing here knows of solvers or plots.
"""

import torch

from odeum.errors import InputError
from odeum.systems.system import Constant, State, System, register
from odeum.types import Tensor

_TEST_SET = "Mazzia & Magherini, Test Set for Initial Value Problem Solvers (2008)"


def _brusselator(t: Tensor, state: State, a: Constant, b: Constant) -> State:
    x, y = state
    made = x * x * y
    return a + made - (b + 1) * x, b * x - made


@register
def brusselator(a: Constant = 1.0, b: Constant = 3.0) -> System:
    """A chemical clock: one cycle attracts all but the fixed point ``(a, b / a)`` if b > 1 + a^2.

    ``x' = a + x^2 y - (b + 1) x``, ``y' = b x - x^2 y``

    Args:
        a: inflow of the first substance, dimensionless.
        b: rate at which the first turns into the second, dimensionless.

    Source:
        Prigogine & Lefever, J. Chem. Phys. 48 (1968); Hairer, Norsett & Wanner, Solving Ordinary
        Differential Equations I (1993), section I.16.

    Example:
        >>> brusselator()(0.0, torch.tensor([1.5, 3.0]))
        tensor([ 1.7500, -2.2500])
    """
    return System(
        name="brusselator",
        state_names=("x", "y"),
        constants={"a": a, "b": b},
        y0=(1.5, 3.0),
        span=(0.0, 20.0),
        description="Two substances whose concentrations swing around a cycle.",
        reference="Prigogine & Lefever, J. Chem. Phys. 48 (1968)",
        derivative=_brusselator,
    )


def _robertson(t: Tensor, state: State, k1: Constant, k2: Constant, k3: Constant) -> State:
    a, b, c = state
    slow, back, fast = k1 * a, k2 * b * c, k3 * b * b
    return back - slow, slow - back - fast, fast


def _total(state: State, **constants: Constant) -> Tensor:
    return torch.cat(tuple(state), dim=-1).sum(-1, keepdim=True)


@register
def robertson(k1: Constant = 0.04, k2: Constant = 1e4, k3: Constant = 3e7) -> System:
    """Robertson's three reactions: nine powers of ten between rates, followed for as many of time.

    ``A -> B`` (k1), ``B + C -> A + C`` (k2), ``B + B -> B + C`` (k3):
    ``a' = -k1 a + k2 b c``, ``b' = k1 a - k2 b c - k3 b^2``, ``c' = k3 b^2``; the sum is conserved.

    Args:
        k1: rate of the slow reaction, 1/time.
        k2: rate of the reaction back, 1/(time concentration).
        k3: rate of the very fast reaction, 1/(time concentration).

    Source:
        Robertson, The solution of a set of reaction rate equations, Numerical Analysis: An
        Introduction (1966); ROBER in Mazzia & Magherini, Test Set for Initial Value Problem
        Solvers (2008).

    Example:
        >>> robertson()(0.0, torch.tensor([1.0, 1e-5, 0.1]))
        tensor([-0.0300,  0.0270,  0.0030])
    """
    return System(
        name="robertson",
        state_names=("a", "b", "c"),
        constants={"k1": k1, "k2": k2, "k3": k3},
        y0=(1.0, 0.0, 0.0),
        span=(0.0, 1e11),
        description="Three reactions of very different speeds: the classic stiff problem.",
        reference=f"Robertson, Numerical Analysis: An Introduction (1966); {_TEST_SET}",
        derivative=_robertson,
        conserved={"total": _total},
    )


def _oregonator(t: Tensor, state: State, s: Constant, q: Constant, w: Constant) -> State:
    x, y, z = state
    return s * (y + x * (1 - q * x - y)), (z - (1 + x) * y) / s, w * (x - z)


@register
def oregonator(s: Constant = 77.27, q: Constant = 8.375e-6, w: Constant = 0.161) -> System:
    """The Belousov-Zhabotinskii reaction in three variables: a stiff limit cycle.

    ``x' = s (y + x (1 - q x - y))``, ``y' = (z - (1 + x) y) / s``, ``z' = w (x - z)``

    Args:
        s: ratio of time scales, dimensionless.
        q: how far the first substance grows, dimensionless.
        w: rate of the slow substance, dimensionless.

    Source:
        Field & Noyes, J. Chem. Phys. 60 (1974); OREGO in Mazzia & Magherini, Test Set for Initial
        Value Problem Solvers (2008).

    Example:
        >>> oregonator(s=2.0, q=0.5, w=0.25)(0.0, torch.tensor([1.0, 2.0, 3.0]))
        tensor([ 1.0000, -0.5000, -0.5000])
    """
    return System(
        name="oregonator",
        state_names=("x", "y", "z"),
        constants={"s": s, "q": q, "w": w},
        y0=(1.0, 2.0, 3.0),
        span=(0.0, 360.0),
        description="A reaction that changes its colour in sudden, regular turns.",
        reference=f"Field & Noyes, J. Chem. Phys. 60 (1974); {_TEST_SET}",
        derivative=_oregonator,
    )


def _hires(
    t: Tensor,
    state: State,
    k1: Constant,
    k2: Constant,
    k3: Constant,
    k4: Constant,
    k5: Constant,
    k6: Constant,
    k_bind: Constant,
    k_part: Constant,
    k_act: Constant,
    inflow: Constant,
) -> State:
    y1, y2, y3, y4, y5, y6, y7, y8 = state
    bound = k_bind * y6 * y8 - (k_part + k2 + k_act) * y7
    return (
        -k1 * y1 + k2 * y2 + k6 * y3 + inflow,
        k1 * y1 - (k2 + k3) * y2,
        -(k6 + k1) * y3 + k2 * y4 + k5 * y5,
        k3 * y2 + k1 * y3 - (k4 + k2) * y4,
        -(k5 + k1) * y5 + k2 * y6 + k2 * y7,
        -k_bind * y6 * y8 + k4 * y4 + k1 * y5 - k2 * y6 + k_part * y7,
        bound,
        -bound,
    )


def _hires_enzyme(state: State, **constants: Constant) -> Tensor:
    return state[6] + state[7]


@register
def hires(
    k1: Constant = 1.71,
    k2: Constant = 0.43,
    k3: Constant = 8.32,
    k4: Constant = 0.69,
    k5: Constant = 0.035,
    k6: Constant = 8.32,
    k_bind: Constant = 280.0,
    k_part: Constant = 0.69,
    k_act: Constant = 0.69,
    inflow: Constant = 0.0007,
) -> System:
    """HIRES, the High Irradiance Response of plants to light, in eight concentrations.

    Phytochrome absorbs red (``r``) or far-red light (``fr``), free or on one of two receptors
    (``x``, ``x2``); on the second it binds the enzyme ``e`` to the complex ``xe``. The sum of
    enzyme and complex is conserved.

    Args:
        k1: light turns ``r`` into ``fr``, 1/time.
        k2: light turns ``fr`` into ``r``, 1/time.
        k3: ``fr`` goes onto the first receptor, 1/time.
        k4: ``fr`` goes from the first receptor to the second, 1/time.
        k5: ``r`` goes from the second receptor to the first, 1/time.
        k6: ``r`` comes off the first receptor, 1/time.
        k_bind: binding to the enzyme, 1/(time concentration).
        k_part: the complex comes apart, 1/time.
        k_act: the complex acts and leaves the enzyme, 1/time.
        inflow: production of ``r``, concentration/time.

    Source:
        Schaefer, J. Math. Biol. 2 (1975); HIRES in Mazzia & Magherini, Test Set for Initial Value
        Problem Solvers (2008), which calls the last four k+, k-, k* and o_ks.

    Example:
        >>> system = hires()
        >>> system(0.0, torch.tensor(system.y0))[:2]
        tensor([-1.7093,  1.7100])
    """
    return System(
        name="hires",
        state_names=("r", "fr", "x_r", "x_fr", "x2_r", "x2_fr", "xe", "e"),
        constants={
            "k1": k1,
            "k2": k2,
            "k3": k3,
            "k4": k4,
            "k5": k5,
            "k6": k6,
            "k_bind": k_bind,
            "k_part": k_part,
            "k_act": k_act,
            "inflow": inflow,
        },
        y0=(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0057),
        span=(0.0, 321.8122),
        description="How light shapes a plant: eight concentrations, moderately stiff.",
        reference=f"Schaefer, J. Math. Biol. 2 (1975); {_TEST_SET}",
        derivative=_hires,
        conserved={"enzyme": _hires_enzyme},
    )


_SPECIES = (
    *("NO2", "NO", "O3P", "O3", "HO2", "OH", "HCHO", "CO", "ALD", "MEO2"),
    *("C2O3", "CO2", "PAN", "CH3O", "HNO3", "O1D", "SO2", "SO4", "NO3", "N2O5"),
)

_REACTIONS = (
    ("NO2 -> NO + O3P", 0.35),
    ("NO + O3 -> NO2", 26.6),
    ("HO2 + NO -> NO2 + OH", 12300.0),
    ("HCHO -> HO2 + HO2 + CO", 0.00086),
    ("HCHO -> CO", 0.00082),
    ("HCHO + OH -> HO2 + CO", 15000.0),
    ("ALD -> MEO2 + HO2 + CO", 0.00013),
    ("ALD + OH -> C2O3", 24000.0),
    ("C2O3 + NO -> NO2 + MEO2 + CO2", 16500.0),
    ("C2O3 + NO2 -> PAN", 9000.0),
    ("PAN -> C2O3 + NO2", 0.022),
    ("MEO2 + NO -> CH3O + NO2", 12000.0),
    ("CH3O -> HCHO + HO2", 1.88),
    ("NO2 + OH -> HNO3", 16300.0),
    ("O3P -> O3", 4.8e6),
    ("O3 -> O1D", 0.00035),
    ("O3 -> O3P", 0.0175),
    ("O1D -> OH + OH", 1e8),
    ("O1D -> O3P", 4.44e11),
    ("SO2 + OH -> SO4 + HO2", 1240.0),
    ("NO3 -> NO", 2.1),
    ("NO3 -> NO2 + O3P", 5.78),
    ("NO2 + O3 -> NO3", 0.0474),
    ("NO3 + NO2 -> N2O5", 1780.0),
    ("N2O5 -> NO3 + NO2", 3.12),
)
"""Each reaction between the named substances (those of constant concentration, oxygen above all,
are part of the rate), and its rate in 1/min or 1/(min ppm)."""


def _read_network() -> tuple[Tensor, Tensor]:
    """``[2, 25]`` which substances meet, 20 standing for none; ``[20, 25]`` changes of each."""
    meeting, changes = [], torch.zeros(len(_SPECIES), len(_REACTIONS), dtype=torch.float64)
    for column, (equation, _) in enumerate(_REACTIONS):
        left, right = (
            [_SPECIES.index(name) for name in side.split(" + ")] for side in equation.split(" -> ")
        )
        meeting.append([*left, len(_SPECIES)][:2])
        for side, sign in ((left, -1.0), (right, 1.0)):
            for row in side:
                changes[row, column] += sign
    return torch.tensor(meeting).T.contiguous(), changes


_MEETING, _CHANGES = _read_network()


def _pollu(t: Tensor, state: State, rates: tuple[float, ...] | Tensor) -> State:
    amounts = torch.cat((*state, torch.ones_like(state[0])), dim=-1)
    first, second = _MEETING.to(amounts.device)
    rates = torch.as_tensor(rates, dtype=amounts.dtype, device=amounts.device)
    speeds = rates * amounts[..., first] * amounts[..., second]
    # No matrix product: a row has the same bits whatever the batch.
    return ((_CHANGES.to(amounts) * speeds[..., None, :]).sum(-1),)


def _nitrogen(state: State, **constants: Tensor) -> Tensor:
    amount = dict(zip(_SPECIES, state, strict=True))
    once = sum(amount[name] for name in ("NO", "PAN", "HNO3", "NO3"))
    return amount["NO2"] + once + 2 * amount["N2O5"]


def _sulphur(state: State, **constants: Tensor) -> Tensor:
    amount = dict(zip(_SPECIES, state, strict=True))
    return amount["SO2"] + amount["SO4"]


@register
def pollu(
    rates: tuple[float, ...] | Tensor = tuple(rate for _, rate in _REACTIONS),
) -> System:
    """The chemistry of polluted air: 20 substances in 25 reactions; very stiff.

    Every reaction runs at its rate times the concentrations of what it consumes; nitrogen and
    sulphur are conserved. Concentrations are in ppm, time in minutes.

    Args:
        rates: of the 25 reactions: a tuple, or a tensor ``[25]`` or ``[batch, 25]``; 1/min, or
            1/(min ppm) where two substances meet.

    Raises:
        InputError: if there are not 25 rates.

    Source:
        Verwer, Gauss-Seidel iteration for stiff ODEs from chemical kinetics, SIAM J. Sci. Comput.
        15 (1994); POLLU in Mazzia & Magherini, Test Set for Initial Value Problem Solvers (2008).

    Example:
        >>> system = pollu()
        >>> system(0.0, torch.tensor(system.y0))[:2]
        tensor([ 0.2128, -0.2128])
    """
    shape = list(rates.shape) if isinstance(rates, Tensor) else [len(rates)]
    if shape[-1:] != [len(_REACTIONS)]:
        raise InputError(f"rates of pollu have shape {shape}: give 25, or [batch, 25]")
    start = {"NO": 0.2, "O3": 0.04, "HCHO": 0.1, "CO": 0.3, "ALD": 0.01, "SO2": 0.007}
    return System(
        name="pollu",
        state_names=_SPECIES,
        constants={"rates": rates},
        y0=tuple(start.get(name, 0.0) for name in _SPECIES),
        span=(0.0, 60.0),
        description="Polluted air: 25 reactions whose rates differ by fifteen powers of ten.",
        reference=f"Verwer, SIAM J. Sci. Comput. 15 (1994); {_TEST_SET}",
        derivative=_pollu,
        conserved={"nitrogen": _nitrogen, "sulphur": _sulphur},
    )
