"""Other libraries' interfaces on odeum's engine: scripts written for them run unchanged."""

from odeum.compat import torchdiffeq

__all__ = ["torchdiffeq"]
