"""The densities that toys are drawn from: what a model of one is held against.

Owns the integrals over the shapes of `odeum.datasets.toys`, and what has a closed form.
"""

import math

import numpy as np
import torch

from odeum.datasets.toys import TOYS, Toy
from odeum.errors import InputError, unknown_name
from odeum.types import Tensor

_NODES: dict[str, tuple[int, ...]] = {
    "eight_gaussians": (),
    "moons": (200,),
    "circles": (400,),
    "rings": (800,),
    "swissroll": (400,),
    "two_spirals": (400, 4, 4),
}
"""Nodes for each of a shape's uniform numbers: two or more to a standard deviation of the noise."""

_CHUNK = 512
"""Points looked at together: they and the nodes make a matrix."""


def toy_log_density(name: str, x: Tensor) -> Tensor:
    """The log-density in nats of a toy with the noise that is its own.

    Its mean over points of the toy is minus the entropy: no model's log-density has a higher one.

    Args:
        name: one of ``odeum.datasets.TOYS``.
        x: points, [n, 2].

    Returns:
        [n], in the dtype of ``x``, exact to about six digits; minus infinity where there are no
        points.

    Raises:
        InputError: for an unknown name, or points that are not of the plane.

    Example:
        >>> toy_log_density("checkerboard", torch.tensor([[1.0, 1.0], [1.0, -1.0]])).exp()
        tensor([0.0312, 0.0000])
    """
    if name not in TOYS:
        raise unknown_name("toy", str(name), TOYS)
    if x.ndim != 2 or x.shape[1] != 2:
        raise InputError(f"x has shape {list(x.shape)}: give points of the plane, [n, 2]")
    points = x.detach().to("cpu", torch.float64)
    if name == "checkerboard":
        found = _checkerboard(points)
    elif name == "pinwheel":
        found = torch.cat([_pinwheel(part) for part in points.split(_CHUNK)])
    else:
        found = _blurred(TOYS[name], _NODES[name], points)
    return found.to(x)


def _blurred(toy: Toy, n_nodes: tuple[int, ...], x: Tensor) -> Tensor:
    """The integral of the noise's density over the shape."""
    nodes, weights = torch.zeros(1, 0, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for n in n_nodes:
        new, new_weights = _gauss_legendre(n)
        pairs = (nodes.repeat_interleave(n, 0), new.repeat(len(nodes))[:, None])
        nodes, weights = torch.cat(pairs, -1), torch.outer(weights, new_weights).flatten()
    labels = torch.arange(toy.parts).repeat_interleave(len(nodes))
    shape = toy.shape(labels, nodes.repeat(toy.parts, 1))
    log_weights = (weights.repeat(toy.parts) / toy.parts).log()
    variance = toy.noise**2
    parts = [
        torch.logsumexp(log_weights - torch.cdist(part, shape).square() / (2 * variance), -1)
        for part in x.split(_CHUNK)
    ]
    return torch.cat(parts) - math.log(2 * math.pi * variance)


def _gauss_legendre(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


def _checkerboard(x: Tensor) -> Tensor:
    inside = (x.abs() < 4).all(-1) & ((x / 2).floor().sum(-1) % 2 == 0)
    return torch.where(inside, -math.log(32), -math.inf)


def _pinwheel(x: Tensor) -> Tensor:
    """The sum over every place along and across an arm that lands on a point.

    With ``a = 0.25 exp(along)`` the arm's turn there, ``along = |x|/2 cos(angle + a)``, and
    ``across`` is the same with a sine: one equation for ``along``. Changes of sign on a grid that
    holds all but a few of 10^9 points enclose its solutions, Newton's method ends on them.
    """
    radius = x.norm(dim=-1)[:, None, None] / 2
    arms = 2 * math.pi / 5 * torch.arange(5)
    angles = torch.atan2(x[:, 1], x[:, 0])[:, None, None] + arms[:, None]
    grid = torch.linspace(1 - 6 * 0.3, 1 + 6 * 0.3, 257, dtype=torch.float64)
    excess = grid - radius * (angles + 0.25 * grid.exp()).cos()
    point, arm, cell = (excess[..., :-1] * excess[..., 1:] <= 0).nonzero(as_tuple=True)
    along = (grid[cell] + grid[cell + 1]) / 2
    radius, angle = radius[point, 0, 0], angles[point, arm, 0]
    for _ in range(5):
        turn = 0.25 * along.exp()
        across = radius * (angle + turn).sin()
        along = along - (along - radius * (angle + turn).cos()) / (1 + turn * across)
    turn = 0.25 * along.exp()
    across = radius * (angle + turn).sin()
    log_normal = -0.5 * (((along - 1) / 0.3) ** 2 + (across / 0.1) ** 2)
    scale = 5 * 2 * math.pi * 0.3 * 0.1 * 4 * (1 + turn * across).abs()
    density = torch.zeros(len(x), dtype=torch.float64)
    return density.index_add(0, point, log_normal.exp() / scale).log()
