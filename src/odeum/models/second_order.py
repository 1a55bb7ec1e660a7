"""Second-order dynamics ``y'' = f(t, y, y')`` whose initial velocity is learned with them.

A solution of a first-order equation is one of a line of paths that never cross; of a second-order
one only positions are seen, and paths cross as they like. The state solved is (y, y') side by side
on the last axis.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from odeum.api import solve
from odeum.errors import InputError
from odeum.models.fields import MLPField
from odeum.solution import Solution
from odeum.types import Tensor


class SecondOrderField(nn.Module):
    """``y'' = f(t, y, y')`` as the first-order field of the state ``(y, y')``.

    Args:
        acceleration: ``f(t, y, v) -> dv/dt``, a module; y, v and dv/dt are [..., dim].

    Raises:
        InputError: for an acceleration that is no module; on a call, for a state that cannot be
            halved.

    Example:
        >>> class Spring(torch.nn.Module):
        ...     def forward(self, t, y, v):
        ...         return -4 * y
        >>> SecondOrderField(Spring())(0.0, torch.tensor([[1.0, 3.0]])).tolist()
        [[3.0, -4.0]]
    """

    def __init__(self, acceleration: nn.Module) -> None:
        super().__init__()
        if not isinstance(acceleration, nn.Module):
            raise InputError(
                f"acceleration is a {type(acceleration).__name__}: give an nn.Module f(t, y, v)"
            )
        self.acceleration = acceleration

    def forward(self, t: Tensor | float, state: Tensor) -> Tensor:
        """The derivative ``(v, f(t, y, v))`` of a state ``(y, v)``, [..., 2 dim]."""
        if state.shape[-1] % 2:
            raise InputError(
                f"the state has shape {list(state.shape)}: its last axis holds positions and then "
                "as many velocities"
            )
        y, v = state.chunk(2, dim=-1)
        return torch.cat([v, self.acceleration(t, y, v)], dim=-1)


class MLPAcceleration(nn.Module):
    """``f(t, y, v)`` as a multilayer perceptron of y and v, and of t if asked for.

    Args:
        dim: components of the position, at least 1.
        hidden: width of each hidden layer; empty for none.
        activation: a name from ``odeum.models.ACTIVATIONS``.
        time_dependent: whether the time is one more input.

    Raises:
        InputError: for an unknown activation, or a size below 1.

    Example:
        >>> acceleration = MLPAcceleration(2, hidden=(16,))
        >>> acceleration(0.0, torch.ones(5, 2), torch.ones(5, 2)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        time_dependent: bool = False,
    ) -> None:
        super().__init__()
        self.network = MLPField(2 * dim, hidden, activation, time_dependent)
        # A field of both halves of the state, of which one is to be learned.
        n_inputs = self.network.hidden[-1] if hidden else 2 * dim + time_dependent
        self.network.layers[-1] = nn.Linear(n_inputs, dim)

    def forward(self, t: Tensor | float, y: Tensor, v: Tensor) -> Tensor:
        """The acceleration at position y and velocity v, [..., dim]."""
        return self.network(t, torch.cat([y, v], dim=-1))


class SecondOrder(nn.Module):
    """Learns ``y'' = f(t, y, y')`` from positions alone: ``model(y0, ts) -> positions``.

    The velocity at the start is learned too: as a function of the position there, or as one for
    all starts.

    Args:
        acceleration: ``f(t, y, v) -> dv/dt``, a module; see :class:`MLPAcceleration` for one.
        velocity: the velocity at ``ts[0]``: a module of y0, [batch, dim] -> [batch, dim]; or a
            tensor [dim] where training starts, made a parameter (a parameter is taken as it is,
            so that ``nn.Parameter(v, requires_grad=False)`` is not learned).
        options: those of :func:`odeum.solve`, for every solve.

    Attributes:
        field: the :class:`SecondOrderField` of the acceleration.

    Raises:
        InputError: for an acceleration that is no module, or a velocity that is neither module
            nor tensor.

    Source:
        Norcliffe, Bodnar, Day, Simidjievski & Lio, On Second Order Behaviour in Augmented Neural
        ODEs, NeurIPS 2020.

    Example:
        >>> model = SecondOrder(MLPAcceleration(1, hidden=(8,)), torch.zeros(1), rtol=1e-6)
        >>> model(torch.ones(3, 1), torch.linspace(0, 1, 5)).shape
        torch.Size([5, 3, 1])
    """

    def __init__(
        self, acceleration: nn.Module, velocity: nn.Module | Tensor, **options: Any
    ) -> None:
        super().__init__()
        if not isinstance(velocity, nn.Module | Tensor):
            raise InputError(
                f"velocity is a {type(velocity).__name__}: give an nn.Module of the initial "
                "position, or a tensor [dim]"
            )
        self.field = SecondOrderField(acceleration)
        if not isinstance(velocity, nn.Module | nn.Parameter):
            velocity = nn.Parameter(velocity.detach().clone())
        self.velocity = velocity
        self.options = options

    def forward(self, y0: Tensor, ts: Tensor) -> Tensor:
        """The positions at ``ts`` [time] or [time, batch], [time, batch, dim]."""
        return self.solve(y0, ts).ys.chunk(2, dim=-1)[0]

    def initial_velocity(self, y0: Tensor) -> Tensor:
        """The learned velocity where ``y0`` [batch, dim] holds, [batch, dim]."""
        if isinstance(self.velocity, nn.Module):
            return self.velocity(y0)
        return self.velocity.expand_as(y0)

    def solve(self, y0: Tensor, ts: Tensor, **changes: Any) -> Solution:
        """The whole solution; its states are positions and then velocities, [..., 2 dim].

        Args:
            y0: positions at ``ts[0]``, [batch, dim].
            ts: [time] or [time, batch].
            changes: options of :func:`odeum.solve` to use in place of the model's own.

        Returns:
            What :func:`odeum.solve` returns.
        """
        state = torch.cat([y0, self.initial_velocity(y0)], dim=-1)
        return solve(self.field, state, ts, **{**self.options, **changes})

    def loss(self, y0: Tensor, ts: Tensor, positions: Tensor) -> Tensor:
        """Mean square error of the positions, over rows, times and components.

        The rows of a batch come first, as a ``TensorDataset`` gives them.

        Args:
            y0: positions where the rows start, [batch, dim].
            ts: [batch, time], or [time] shared; ``y0`` holds at the first.
            positions: observed there, [batch, time, dim].

        Returns:
            A scalar with its graph.

        Example:
            >>> model = SecondOrder(MLPAcceleration(1, hidden=(8,)), torch.zeros(1))
            >>> ts = torch.linspace(0, 1, 5).expand(3, 5)
            >>> model.loss(torch.ones(3, 1), ts, ts.cos()[..., None]).shape
            torch.Size([])
        """
        solved = self(y0, ts if ts.ndim == 1 else ts.T)
        return (solved - positions.transpose(0, 1)).square().mean()

    def metrics(self, y0: Tensor, ts: Tensor, positions: Tensor) -> dict[str, Tensor]:
        """The root mean square error of the positions, ``rmse``; arguments as of :meth:`loss`."""
        with torch.no_grad():
            return {"rmse": self.loss(y0, ts, positions).sqrt()}
