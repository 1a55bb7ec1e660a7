"""Ways to differentiate a solve: each takes a Problem and returns its Outcome."""

from typing import TYPE_CHECKING, Any

from odeum.gradient.adjoint import Adjoint
from odeum.gradient.discrete import Discrete
from odeum.gradient.forward import Forward
from odeum.gradient.interpolated import Interpolated
from odeum.gradient.reversible import Reversible

if TYPE_CHECKING:
    from odeum.audit import audit

__all__ = ["Adjoint", "Discrete", "Forward", "Interpolated", "Reversible", "audit"]


def __getattr__(name: str) -> Any:
    """Loads ``audit`` when it is used: it compares whole solves, a layer above this one."""
    if name != "audit":
        raise AttributeError(f"module 'odeum.gradient' has no attribute {name!r}")
    from odeum.audit import audit

    return audit
