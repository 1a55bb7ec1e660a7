"""Cubic Hermite: the dense output of methods whose stages say nothing about a step's inside.

Knows the mean slope of a step and the derivatives at its ends, not how they came about.
"""

from odeum.eager.dense import Interpolation
from odeum.types import Tensor


def hermite(like: Tensor) -> Interpolation:
    """The cubic through both ends with the derivatives there.

    Its three derivatives are the mean slope ``(y1 - y) / h``, the one at the step's start and the
    one at its end.

    Args:
        like: a tensor of the state's dtype on its device.

    Example:
        >>> import torch
        >>> y, ks = torch.zeros(1, 1), torch.tensor([1.0, 0.0, 3.0]).view(3, 1, 1)  # t^3 to t = 1
        >>> hermite(y)(torch.tensor([0.5]), torch.ones(1, 1), y, ks)
        tensor([[0.1250]])
    """
    return Interpolation([[0, 3, -2], [1, -2, 1], [0, -1, 1]], [1, 0, 0], like)
