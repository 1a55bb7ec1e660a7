"""A recurrent network that reads observations backwards in time, and what it says of the start.

Owns the order of reading, masks and gaps of time, and the flow of the hidden state between two
observations. Knows nothing of what its answer is used for.
"""

from typing import Any

import torch
from torch import nn

from odeum.api import solve
from odeum.eager.field import per_row
from odeum.errors import InputError
from odeum.types import Tensor


class RecurrentEncoder(nn.Module):
    """A Gaussian over latent states at the first time, from observations: a GRU read backwards.

    It reads the observed times of every row from the last to the first, whatever lies between
    them: values, which of them are there, and the gap of time to the one that is read next (at
    the end: to ``ts[0]``). With a ``flow`` it is an ODE-RNN: in place of being told the gap, the
    hidden state flows through it.

    Args:
        dim: components of an observation, at least 1.
        latent_dim: components of a latent state.
        hidden: width of the hidden state.
        flow: ``f(t, h) -> dh/dt`` of the hidden state between two observations, a module; it is
            given the time since the observation, as a share of the gap. None for a plain RNN.
        options: those of :func:`odeum.solve`, for the flow.

    Raises:
        InputError: for a flow that is no module.

    Source:
        Chen et al., Neural Ordinary Differential Equations (2018), section 5; Rubanova, Chen &
        Duvenaud, Latent ODEs for Irregularly-Sampled Time Series (2019), algorithm 1.

    Example:
        >>> encoder = RecurrentEncoder(2, latent_dim=4)
        >>> ys, ts = torch.randn(10, 3, 2), torch.linspace(0, 1, 10)
        >>> mean, log_variance = encoder(ys, ts, torch.rand(10, 3, 2) < 0.5)
        >>> mean.shape, log_variance.shape
        (torch.Size([3, 4]), torch.Size([3, 4]))
    """

    def __init__(
        self,
        dim: int,
        latent_dim: int,
        hidden: int = 25,
        flow: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if flow is not None and not isinstance(flow, nn.Module):
            raise InputError(f"flow is a {type(flow).__name__}: give an nn.Module f(t, h)")
        self.gru = nn.GRU(2 * dim + (flow is None), hidden)
        self.flow = None if flow is None else _Rescaled(flow)
        self.head = nn.Linear(hidden, 2 * latent_dim)
        self.options = options

    def forward(self, ys: Tensor, ts: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent state at ``ts[0]``, [batch, latent_dim] each.

        Args:
            ys: observations, [time, batch, dim]; those that are masked may hold anything.
            ts: their times, increasing, [time] or [time, batch].
            mask: which values are observed, bool [time, batch, dim].
        """
        values, there, gaps, n_read = _backwards(ys, ts, mask)
        inputs = torch.cat([values, there], dim=-1)
        if self.flow is None:
            hidden = self._read(torch.cat([inputs, gaps], dim=-1), n_read)
        else:
            hidden = self._read_and_flow(inputs, gaps, n_read, self.flow)
        mean, log_variance = self.head(hidden).chunk(2, dim=-1)
        return mean, log_variance

    def _read(self, inputs: Tensor, n_read: Tensor) -> Tensor:
        """The hidden state after each row's last reading: zero where it has none."""
        start = inputs.new_zeros(1, inputs.shape[1], self.gru.hidden_size)
        if len(inputs) == 0:
            return start[0]
        states = torch.cat([start, self.gru(inputs, start)[0]])
        return states[n_read, torch.arange(inputs.shape[1], device=inputs.device)]

    def _read_and_flow(
        self, inputs: Tensor, gaps: Tensor, n_read: Tensor, flow: "_Rescaled"
    ) -> Tensor:
        """Likewise, flowing through the gap after every reading."""
        unit = inputs.new_tensor([0.0, 1.0])
        hidden = inputs.new_zeros(inputs.shape[1], self.gru.hidden_size)
        for i, (x, gap) in enumerate(zip(inputs, gaps, strict=True)):
            updated = self.gru(x[None], hidden[None])[1][0]
            # Every row flows for one unit of its own time: gaps differ, and some are empty.
            flown = solve(flow, updated, unit, per_row(gap), **self.options).ys[-1]
            hidden = torch.where((i < n_read)[:, None], flown, hidden)
        return hidden


class _Rescaled(nn.Module):
    """A field whose rows each have their own unit of time."""

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, y: Tensor, unit: Tensor) -> Tensor:
        return unit * self.field(t, y)


def _backwards(ys: Tensor, ts: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The observed times of each row from the last to the first, rows with fewer padded by zeros.

    Returns:
        Values [reading, batch, dim], 1 where they are there and else 0 [reading, batch, dim],
        gaps to the next reading [reading, batch, 1], and readings per row [batch].
    """
    ts = ts if ts.ndim == 2 else ts[:, None].expand(-1, ys.shape[1])
    seen = mask.any(-1)
    n_read = seen.sum(0)
    place = torch.arange(len(ys), device=ys.device)[:, None]
    order = torch.where(seen, place, -1).argsort(dim=0, descending=True)
    order = order[: int(n_read.max())]
    read = place[: len(order)] < n_read
    times = torch.where(read, ts.gather(0, order), ts[0])
    gaps = times - torch.cat([times[1:], ts[:1]])
    cells = order[..., None].expand(*order.shape, ys.shape[-1])
    there = mask.gather(0, cells)
    values = torch.where(there, ys.gather(0, cells), 0.0)
    return values, there.to(ys.dtype), gaps[..., None], n_read
