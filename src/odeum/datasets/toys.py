"""Toy densities in the plane, at the scales of FFJORD's: points, and which part each one is of.

Owns the shapes. Each is drawn from a generator of its own: one seed, one set of points.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch

from odeum.errors import InputError, unknown_name
from odeum.types import Tensor


@dataclass(frozen=True)
class Toy:
    """A density in the plane: a shape, blurred.

    Attributes:
        parts: how many parts it has, equally likely.
        noise: standard deviation of the Gaussian noise about the shape.
        entropy: in nats, with that noise.
        uniforms: how many uniform numbers place a point on the shape.
        shape: ``(labels, uniforms) -> points`` [n, 2]: from the label of each point's part [n] and
            numbers in [0, 1) [n, uniforms].
    """

    parts: int
    noise: float
    entropy: float
    uniforms: int
    shape: Callable[[Tensor, Tensor], Tensor]


def toy(name: str, n: int, seed: int = 0, noise: float | None = None) -> tuple[Tensor, Tensor]:
    """Points from a toy density in the plane, with the part of it that each belongs to.

    ``eight_gaussians`` in a ring of radius 2.8; two interleaved ``moons``; two concentric
    ``circles``; four concentric ``rings``; a ``swissroll``; ``two_spirals`` one in the other; a
    ``checkerboard`` of eight fields; and a ``pinwheel`` of five bent arms. All lie within about 4
    of the origin.

    Args:
        name: one of ``odeum.datasets.TOYS``.
        n: how many points, at least 1.
        seed: of the generator, which is the toy's own.
        noise: standard deviation of the Gaussian noise about the shape, in units of the points; the
            toy's own if None, which is zero for the checkerboard and the pinwheel.

    Returns:
        Points [n, 2] in torch's default dtype, in random order, and labels [n], whole numbers from
        0 on, as equally frequent as can be. (Of moons and circles 0 is the upper, the outer one.)

    Raises:
        InputError: for an unknown name, an ``n`` below 1 or a negative noise.

    Source:
        Grathwohl et al., FFJORD (2019), figure 2, with the scales of the authors' code. There
        moons and circles are spaced evenly in angle; here angles are drawn.

    Example:
        >>> points, labels = toy("moons", 100)
        >>> points.shape, labels.bincount()
        (torch.Size([100, 2]), tensor([50, 50]))
    """
    if name not in TOYS:
        raise unknown_name("toy", str(name), TOYS)
    if n < 1:
        raise InputError(f"n is {n}: give at least 1 point")
    chosen = TOYS[name]
    if noise is None:
        noise = chosen.noise
    elif not 0 <= noise < math.inf:
        raise InputError(f"noise is {noise}: give a standard deviation, 0 or more")
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.arange(n) % chosen.parts)[torch.randperm(n, generator=generator)]
    uniforms = torch.rand(n, chosen.uniforms, generator=generator, dtype=torch.float64)
    normals = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    points = chosen.shape(labels, uniforms) + noise * normals
    return points.to(torch.get_default_dtype()), labels


def _eight_gaussians(labels: Tensor, u: Tensor) -> Tensor:
    return 4 / 1.414 * _on_circle(labels * (math.pi / 4))


def _moons(labels: Tensor, u: Tensor) -> Tensor:
    upper = _on_circle(math.pi * u[:, 0])
    lower = _vector(1, 0.5) - upper
    return 2 * torch.where(labels[:, None] == 0, upper, lower) - _vector(1, 0.2)


def _circles(labels: Tensor, u: Tensor) -> Tensor:
    return _vector(3, 1.5)[labels, None] * _on_circle(2 * math.pi * u[:, 0])


def _rings(labels: Tensor, u: Tensor) -> Tensor:
    return _vector(3, 2.25, 1.5, 0.75)[labels, None] * _on_circle(2 * math.pi * u[:, 0])


def _swissroll(labels: Tensor, u: Tensor) -> Tensor:
    angles = 1.5 * math.pi * (1 + 2 * u[:, 0])
    return angles[:, None] / 5 * _on_circle(angles)


def _two_spirals(labels: Tensor, u: Tensor) -> Tensor:
    angles = 3 * math.pi * u[:, 0].sqrt()
    arm = angles[:, None] * _on_circle(math.pi - angles) + 0.5 * u[:, 1:]
    return (1 - 2 * labels[:, None]) * arm / 3


def _checkerboard(labels: Tensor, u: Tensor) -> Tensor:
    column = labels // 2
    row = 2 * (labels % 2) + column % 2
    return 2 * (torch.stack([column, row], -1) - 2 + u)


def _pinwheel(labels: Tensor, u: Tensor) -> Tensor:
    along, across = (_vector(1, 0) + _vector(0.3, 0.1) * torch.special.ndtri(u)).unbind(-1)
    angles = 2 * math.pi / 5 * labels + 0.25 * along.exp()
    forward, sideways = _on_circle(-angles), _on_circle(math.pi / 2 - angles)
    return 2 * (along[:, None] * forward + across[:, None] * sideways)


def _on_circle(angles: Tensor) -> Tensor:
    """Points of the unit circle, [n, 2]."""
    return torch.stack([angles.cos(), angles.sin()], -1)


def _vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


TOYS = MappingProxyType(
    {
        "eight_gaussians": Toy(8, 0.5 / 1.414, 2.8319, 0, _eight_gaussians),
        "moons": Toy(2, 0.2, 2.3939, 1, _moons),
        "circles": Toy(2, 0.24, 3.2681, 1, _circles),
        "rings": Toy(4, 0.08, 2.6232, 1, _rings),
        "swissroll": Toy(1, 0.2, 2.6696, 1, _swissroll),
        "two_spirals": Toy(2, 0.1, 2.6455, 3, _two_spirals),
        "checkerboard": Toy(8, 0.0, math.log(32), 2, _checkerboard),
        "pinwheel": Toy(5, 0.0, 2.3178, 2, _pinwheel),
    }
)
"""Every toy density by name."""
