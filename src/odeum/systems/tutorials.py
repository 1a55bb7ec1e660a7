"""Systems that tutorials on neural differential equations learn: springs in a row, two centres.

As in `classical`: equations, then one registered factory. Nothing here knows of solvers or plots.
"""

import torch

from odeum.errors import InputError
from odeum.systems.system import Constant, State, System, register
from odeum.types import Tensor

Matrix = tuple[tuple[float, float], tuple[float, float]] | Tensor
Pair = tuple[float, float] | Tensor


def _stretches(
    q1: Tensor, q2: Tensor, q3: Tensor, l1: Constant, l2: Constant, l3: Constant
) -> tuple[Tensor, Tensor, Tensor]:
    """How much longer than at rest each spring is."""
    return q1 - l1, q2 - q1 - l2, q3 - q2 - l3


def _chain(
    t: Tensor,
    state: State,
    k1: Constant,
    k2: Constant,
    k3: Constant,
    l1: Constant,
    l2: Constant,
    l3: Constant,
) -> State:
    q1, q2, q3, v1, v2, v3 = state
    x1, x2, x3 = _stretches(q1, q2, q3, l1, l2, l3)
    return v1, v2, v3, k2 * x2 - k1 * x1, k3 * x3 - k2 * x2, -k3 * x3


def _chain_energy(
    state: State,
    k1: Constant,
    k2: Constant,
    k3: Constant,
    l1: Constant,
    l2: Constant,
    l3: Constant,
) -> Tensor:
    q1, q2, q3, v1, v2, v3 = state
    x1, x2, x3 = _stretches(q1, q2, q3, l1, l2, l3)
    return 0.5 * (v1 * v1 + v2 * v2 + v3 * v3 + k1 * x1 * x1 + k2 * x2 * x2 + k3 * x3 * x3)


@register
def oscillator_chain(
    k1: Constant = 0.5,
    k2: Constant = 2.0,
    k3: Constant = 3.4,
    l1: Constant = 1.0,
    l2: Constant = 2.0,
    l3: Constant = 1.1,
) -> System:
    """Three unit masses in a row, each tied to the one before it by a spring, the first to a wall.

    ``q' = v`` and ``v1' = k2 x2 - k1 x1``, ``v2' = k3 x3 - k2 x2``, ``v3' = -k3 x3`` with the
    stretches ``x1 = q1 - l1``, ``x2 = q2 - q1 - l2``, ``x3 = q3 - q2 - l3``. That is linear,
    ``A (q, v) + b``, driven by the lengths of the springs: at the default constants the rows of A
    for v act on q as ``[-2.5, 2, 0]``, ``[2, -5.4, 3.4]`` and ``[0, 3.4, -3.4]``, and b is
    ``[0, 0, 0, -3.5, 0.26, 3.74]``. The energy is conserved.

    Args:
        k1: stiffness of the first spring, force/length at unit mass.
        k2: of the second.
        k3: of the third.
        l1: length of the first spring at rest.
        l2: of the second.
        l3: of the third.

    Source:
        Goldstein, Poole & Safko, Classical Mechanics (2002), chapter 6.

    Example:
        >>> oscillator_chain()(0.0, torch.zeros(6))
        tensor([ 0.0000,  0.0000,  0.0000, -3.5000,  0.2600,  3.7400])
    """
    return System(
        name="oscillator_chain",
        state_names=("q1", "q2", "q3", "v1", "v2", "v3"),
        constants={"k1": k1, "k2": k2, "k3": k3, "l1": l1, "l2": l2, "l3": l3},
        y0=(2.0, 0.0, 0.0, 1.0, 0.0, 0.0),
        span=(0.0, 20.0),
        description="Masses in a row on springs, swinging in all their modes at once.",
        reference="Goldstein, Poole & Safko, Classical Mechanics (2002), chapter 6",
        derivative=_chain,
        conserved={"energy": _chain_energy},
    )


def _switching(t: Tensor, state: State, a: Matrix, b: Matrix, centre: Pair) -> State:
    x, y = state
    cx, cy = centre
    share = torch.sigmoid(cx * x + cy * y)
    return tuple(
        share * (a[i][0] * (x - cx) + a[i][1] * (y - cy))
        + (1 - share) * (b[i][0] * (x + cx) + b[i][1] * (y + cy))
        for i in range(2)
    )


@register
def switching(
    a: Matrix = ((-0.1, -0.5), (0.5, -0.1)),
    b: Matrix = ((0.2, 1.0), (-1.0, 0.2)),
    centre: Pair = (-1.0, 0.0),
) -> System:
    """Two linear systems about opposite centres, blended by the side of the plane.

    ``y' = s(y . c) A (y - c) + s(-y . c) B (y + c)`` with the logistic function ``s``: at the
    default constants an attracting focus on one side and a repelling one on the other, which turn
    opposite ways.

    Args:
        a: the matrix ``A`` in rows, nested sequences or a tensor [2, 2]; unit 1/time.
        b: the matrix ``B`` likewise.
        centre: ``c``; the other centre is ``-c``.

    Raises:
        InputError: if a matrix is not 2 x 2 or the centre no pair.

    Source:
        Surtsukov, Neural Ordinary Differential Equations (2019), a notebook on Chen et al. 2018.

    Example:
        >>> switching()(0.0, torch.tensor([-1.0, 0.0]))
        tensor([-0.1076,  0.5379])
    """
    for name, value in (("a", a), ("b", b)):
        if len(value) != 2 or any(len(row) != 2 for row in value):
            raise InputError(f"constant {name!r} of switching must be a 2 x 2 matrix, got {value}")
    if len(centre) != 2:
        raise InputError(f"constant 'centre' of switching must be two numbers, got {centre!r}")
    return System(
        name="switching",
        state_names=("x", "y"),
        constants={"a": a, "b": b, "centre": centre},
        y0=(0.6, 0.3),
        span=(0.0, 31.45),
        description="A whirl that draws in beside one that throws out.",
        reference="Surtsukov, Neural Ordinary Differential Equations (2019), a notebook on Chen "
        "et al. 2018",
        derivative=_switching,
    )
