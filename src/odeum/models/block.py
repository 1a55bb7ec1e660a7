"""A solve as a layer: from the state it is given to the state at the end, with zeros beside it.

Owns what is done to the state before and after; the solving is `odeum.solve`'s.
"""

import math
from typing import Any

import torch
from torch import nn

from odeum.api import solve
from odeum.errors import InputError
from odeum.models.neural_ode import NeuralODE
from odeum.solution import Solution, Stats
from odeum.types import Tensor


class ODEBlock(nn.Module):
    """The last state of a solve: a layer for ``nn.Sequential``.

    Args:
        field: ``f(t, y) -> dy/dt``, a module; or a :class:`NeuralODE`, whose options are kept.
        t0: the time at which the layer's input holds.
        t1: the time of its output, before or after ``t0``.
        options: those of :func:`odeum.solve`, for every solve.

    Attributes:
        stats: work of the last solve, [batch] each; with that of its backward pass in
            ``stats.backward`` once it has run. None before the first.

    Raises:
        InputError: for a field that is no module, or times that are equal or not finite. The
            options are checked when solving.

    Source:
        Chen et al., Neural Ordinary Differential Equations (2018), section 3.

    Example:
        >>> from odeum.models import MLPField
        >>> block = ODEBlock(MLPField(2), rtol=1e-3)
        >>> nn.Sequential(nn.Linear(5, 2), block, nn.Linear(2, 1))(torch.ones(3, 5)).shape
        torch.Size([3, 1])
        >>> block.stats.n_evaluations.shape
        torch.Size([3])
    """

    def __init__(
        self, field: nn.Module, *, t0: float = 0.0, t1: float = 1.0, **options: Any
    ) -> None:
        super().__init__()
        if not isinstance(field, nn.Module):
            raise InputError(
                f"field is a {type(field).__name__}: an ODEBlock takes an nn.Module or a NeuralODE"
            )
        if not (math.isfinite(t0) and math.isfinite(t1) and t0 != t1):
            raise InputError(f"t0 is {t0} and t1 is {t1}: give two different, finite times")
        if isinstance(field, NeuralODE):
            options = {**field.options, **options}
            field = field.field
        self.field = field
        self.t0, self.t1 = float(t0), float(t1)
        self.options = options
        self.stats: Stats | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The states at ``t1`` from those at ``t0``, both [batch, *shape]."""
        return self.solve(x, x.new_tensor([self.t0, self.t1])).ys[-1]

    def trajectories(self, x: Tensor, ts: Tensor) -> Tensor:
        """The states on the way, [time, batch, *shape].

        Args:
            x: states at ``ts[0]``, [batch, *shape].
            ts: times, [time].
        """
        return self.solve(x, ts).ys

    def solve(self, x: Tensor, ts: Tensor, **changes: Any) -> Solution:
        """The whole solution, with statuses and statistics.

        Args:
            x: states at ``ts[0]``, [batch, *shape].
            ts: [time] or [time, batch].
            changes: options of :func:`odeum.solve` to use in place of the block's own.

        Returns:
            What :func:`odeum.solve` returns.
        """
        if torch.is_autocast_enabled(x.device.type) and x.dtype in (torch.bfloat16, torch.float16):
            # Layers before this one give halves there; sums over many steps need more.
            x, ts = x.float(), ts.float()
        solution = solve(self.field, x, ts, **{**self.options, **changes})
        self.stats = solution.stats
        return solution

    def extra_repr(self) -> str:
        """What ``print`` shows beside the field."""
        return f"t0={self.t0:g}, t1={self.t1:g}"


class Augmented(nn.Module):
    """A model of a state with zeros beside it: flows of the plane cannot cross, in space they can.

    The zeros are further features of states [batch, features], or channels of [batch, channels,
    height, width]: whatever axis 1 counts, unless ``axis`` says otherwise.

    Args:
        model: called with the state first: an :class:`ODEBlock`, whose field is one of the larger
            state; a :class:`NeuralODE`, whose states have a time axis before those of its input.
        n_extra: how many zeros, at least 1.
        axis: of the state, after the batch.
        keep: whether what the zeros have become is part of the output.

    Raises:
        InputError: for fewer than one zero, or the batch as axis.

    Source:
        Dupont, Doucet & Teh, Augmented Neural ODEs (2019).

    Example:
        >>> from odeum.models import MLPField, NeuralODE
        >>> y0, ts = torch.ones(5, 2), torch.linspace(0, 1, 4)
        >>> Augmented(ODEBlock(MLPField(3)), 1)(y0).shape
        torch.Size([5, 3])
        >>> Augmented(NeuralODE(MLPField(3)), 1, keep=False)(y0, ts).shape
        torch.Size([4, 5, 2])
    """

    def __init__(self, model: nn.Module, n_extra: int, *, axis: int = 1, keep: bool = True) -> None:
        super().__init__()
        if n_extra < 1:
            raise InputError(f"n_extra is {n_extra}: give a whole number of at least 1")
        if axis == 0:
            raise InputError("axis 0 is the batch: give the axis of the features or channels")
        self.model: Any = model
        self.n_extra = n_extra
        self.axis = axis
        self.keep = keep

    @property
    def stats(self) -> Stats | None:
        """Work of the block's last solve; see :class:`ODEBlock`."""
        return self.model.stats

    def augment(self, x: Tensor) -> Tensor:
        """The state with its zeros."""
        shape = list(x.shape)
        shape[self.axis] = self.n_extra
        return torch.cat([x, x.new_zeros(shape)], self.axis)

    def forward(self, x: Tensor, *further: Any) -> Tensor:
        """What the model makes of the augmented ``x`` [batch, *shape] and of all that follows."""
        return self._kept(self.model(self.augment(x), *further), x)

    def trajectories(self, x: Tensor, ts: Tensor) -> Tensor:
        """The block's states on the way; see :class:`ODEBlock`."""
        return self._kept(self.model.trajectories(self.augment(x), ts), x)

    def _kept(self, output: Tensor, x: Tensor) -> Tensor:
        if self.keep:
            return output
        from_end = self.axis % x.ndim - x.ndim
        return output.narrow(from_end, 0, x.shape[from_end])

    def extra_repr(self) -> str:
        """What ``print`` shows beside the model."""
        return f"n_extra={self.n_extra}, axis={self.axis}, keep={self.keep}"
