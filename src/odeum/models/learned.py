"""Dynamics learned in normalised units, used in the data's own.

Owns the change of units: ``z = (g(y) - shift) / scale`` with ``g`` the identity or the logarithm,
component by component, and ``tau = (t - t_shift) / t_scale``. Knows nothing of data or training.
"""

from typing import Any

import torch
from torch import nn

from odeum.errors import InputError
from odeum.models.neural_ode import NeuralODE
from odeum.solution import Solution
from odeum.types import Tensor

LARGEST_EXPONENT = 80.0
"""Logarithms are cut here when decoded: a solution that runs away stays finite in float32."""


class StateTransform(nn.Module):
    """The way between the data's units (t, y) and normalised ones (tau, z).

    Args:
        shift: of the state, after the logarithm where there is one, [dim].
        scale: likewise, > 0.
        log: which components are learned as logarithms, bool [dim]; none if None.
        t_shift: the time that becomes 0.
        t_scale: the span of time that becomes 1, > 0.

    Example:
        >>> transform = StateTransform(torch.tensor([0.0]), torch.tensor([2.0]), t_scale=10.0)
        >>> transform.encode(torch.tensor([[3.0]])), transform.encode_time(torch.tensor(5.0))
        (tensor([[1.5000]]), tensor(0.5000))
    """

    def __init__(
        self,
        shift: Tensor,
        scale: Tensor,
        log: Tensor | None = None,
        t_shift: float = 0.0,
        t_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if shift.ndim != 1 or shift.shape != scale.shape:
            raise InputError(
                f"shift and scale need one number per component, got shapes {list(shift.shape)} "
                f"and {list(scale.shape)}"
            )
        if not (bool((scale > 0).all()) and t_scale > 0):
            raise InputError(f"scales must be positive, got {scale.tolist()} and {t_scale}")
        self.shift: Tensor
        self.scale: Tensor
        self.log: Tensor
        self.t_shift: Tensor
        self.t_scale: Tensor
        self.register_buffer("shift", shift.clone())
        self.register_buffer("scale", scale.clone())
        self.register_buffer(
            "log", torch.zeros_like(shift, dtype=torch.bool) if log is None else log
        )
        self.register_buffer("t_shift", shift.new_tensor(t_shift))
        self.register_buffer("t_scale", shift.new_tensor(t_scale))

    @classmethod
    def identity(cls, dim: int) -> "StateTransform":
        """The transform that changes nothing, float64."""
        return cls(torch.zeros(dim, dtype=torch.float64), torch.ones(dim, dtype=torch.float64))

    def encode(self, y: Tensor) -> Tensor:
        """States in normalised units, [..., dim]; NaN where a logarithm has no value."""
        return (torch.where(self.log, self._logarithm(y), y) - self.shift) / self.scale

    def decode(self, z: Tensor) -> Tensor:
        """States in the data's units, [..., dim]; positive where learned as logarithms."""
        inner = z * self.scale + self.shift
        # The identity's components must not reach exp: its infinity times 0 is a NaN gradient.
        exponent = torch.where(self.log, inner, 0.0).clamp(max=LARGEST_EXPONENT)
        return torch.where(self.log, exponent.exp(), inner)

    def encode_time(self, t: Tensor) -> Tensor:
        """Times in normalised units."""
        return (t - self.t_shift) / self.t_scale

    def rate_in_data_units(self, y: Tensor, dz: Tensor) -> Tensor:
        """``dy/dt`` [..., dim] at ``y``, from ``dz/dtau`` there: the chain rule."""
        return torch.where(self.log, y, 1.0) * self.scale * dz / self.t_scale

    def _logarithm(self, y: Tensor) -> Tensor:
        return torch.where(self.log & (y > 0), y, torch.nan).log()


class LearnedDynamics(nn.Module):
    """A field learned in normalised units that solves and answers in the data's own.

    Args:
        field: ``dz/dtau = f(tau, z)``, a module; or a :class:`NeuralODE`, whose options are kept.
        transform: between the units.
        options: of :class:`NeuralODE`, where ``field`` is not one.

    Example:
        >>> from odeum.models import LinearField
        >>> scale = torch.tensor([2.0, 5.0])
        >>> model = LearnedDynamics(LinearField(2), StateTransform(torch.zeros(2), scale))
        >>> model(torch.ones(3, 2), torch.linspace(0, 1, 4)).shape
        torch.Size([4, 3, 2])
    """

    def __init__(self, field: nn.Module, transform: StateTransform, **options: Any) -> None:
        super().__init__()
        self.ode = field if isinstance(field, NeuralODE) else NeuralODE(field, **options)
        self.transform = transform

    @property
    def field(self) -> nn.Module:
        """The field, in normalised units."""
        return self.ode.field

    def forward(self, y0: Tensor, ts: Tensor) -> Tensor:
        """States at ``ts`` [time] or [time, batch] from ``y0`` [batch, dim], in data units."""
        return self.transform.decode(self.ode(*self._encoded(y0, ts)))

    def solve(self, y0: Tensor, ts: Tensor, **changes: Any) -> Solution:
        """The solution of the normalised system: its ``ys`` are ``z``, its ``ts`` are ``tau``.

        Args:
            y0: states at ``ts[0]`` in the data's units, [batch, dim].
            ts: times in the data's units, [time] or [time, batch].
            changes: options of :func:`odeum.solve` to use in place of the model's own.

        Returns:
            What :func:`odeum.solve` returns; ``transform.decode`` brings states back.
        """
        return self.ode.solve(*self._encoded(y0, ts), **changes)

    def field_in_data_units(self, t: Tensor | float, y: Tensor) -> Tensor:
        """``dy/dt`` [..., dim] at time ``t`` and state ``y`` in the data's units.

        NaN where a component learned as a logarithm is not positive.
        """
        time = torch.as_tensor(t, dtype=y.dtype, device=y.device)
        dz = self.field(self.transform.encode_time(time), self.transform.encode(y))
        return self.transform.rate_in_data_units(y, dz)

    def _encoded(self, y0: Tensor, ts: Tensor) -> tuple[Tensor, Tensor]:
        return self.transform.encode(y0), self.transform.encode_time(ts)
