"""What both libraries are asked to do, and the problems they are asked to do it on."""

import torch
import torchdiffeq as theirs

from odeum.compat import torchdiffeq as ours

__all__ = ["ADAPTIVE", "FIXED", "IMPLICIT", "Swing", "ours", "start", "swing", "theirs", "truth"]

ADAPTIVE = ["dopri8", "dopri5", "bosh3", "fehlberg2", "adaptive_heun"]
FIXED = ["euler", "midpoint", "heun2", "heun3", "rk4"]
FIXED += ["explicit_adams", "implicit_adams", "fixed_adams"]
IMPLICIT = ["implicit_euler", "implicit_midpoint", "trapezoid", "sdirk2", "trbdf2"]
IMPLICIT += ["radauIIA3", "radauIIA5", "gl4", "gl6"]


def swing(t, y):
    """A driven, damped, nonlinear oscillator of any number of pairs, [..., 2]."""
    q, p = y[..., 0], y[..., 1]
    return torch.stack([p, -torch.sin(q) - 0.2 * p + 0.3 * torch.cos(2 * t)], -1)


def start():
    """Three states of it."""
    return torch.tensor([[1.0, 0.0], [0.5, -0.3], [-0.7, 0.2]])


def truth(solve=theirs.odeint, field=swing, y0=None, t=None):
    """States far more precise than any asked for; steps land on the times.

    Between its steps torchdiffeq interpolates to the fourth order only.
    """
    options = {"step_t": t[1:].detach()}
    y0 = start() if y0 is None else y0
    return solve(field, y0, t, method="dopri8", rtol=1e-12, atol=1e-13, options=options)


class Swing(torch.nn.Module):
    """The same with constants to differentiate with respect to."""

    def __init__(self):
        super().__init__()
        self.damping = torch.nn.Parameter(torch.tensor(0.2))
        self.drive = torch.nn.Parameter(torch.tensor([0.3, 2.0]))

    def forward(self, t, y):
        q, p = y[..., 0], y[..., 1]
        force = self.drive[0] * torch.cos(self.drive[1] * t)
        return torch.stack([p, -torch.sin(q) - self.damping * p + force], -1)
