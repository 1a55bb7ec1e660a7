"""Initial value problems with exact solutions."""

import torch


def logistic(t, y):
    """Nonlinear and non-autonomous: ``y' = y (1 - y) cos t``."""
    return y * (1 - y) * torch.cos(t)


def logistic_exact(t, y0):
    return 1 / (1 + (1 / y0 - 1) * torch.exp(-torch.sin(t)))


LOGISTIC_Y0 = torch.tensor([[0.2], [0.4], [0.7]], dtype=torch.float64)


def rotation(t, y):
    """``y'' = -y``: a pointwise field, so that rows can be compared to the last bit."""
    return torch.stack([y[..., 1], -y[..., 0]], -1)
