"""Learning to predict irregular series: batches for a latent ODE, and a recurrent baseline.

Owns how batches are cut from series, what a latent ODE's loss is made of, and the baseline's
feeding back of its own predictions. Times come first: [time, batch, dim].
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import nn

from odeum.errors import InputError
from odeum.models import LatentODE
from odeum.models.latent import kl_from_prior
from odeum.types import Tensor


@dataclass(frozen=True, eq=False)
class Series:
    """Observations of several series, each at as many times of its own.

    Attributes:
        ts: strictly increasing, [time, batch].
        ys: [time, batch, dim].
    """

    ts: Tensor
    ys: Tensor

    def __len__(self) -> int:
        """The number of observations of each."""
        return len(self.ts)

    def to(self, device: torch.device) -> "Series":
        """The same on a device."""
        return Series(self.ts.to(device), self.ys.to(device))

    def rows(self, which: slice | Tensor) -> "Series":
        """Some of the series."""
        return Series(self.ts[:, which], self.ys[:, which])

    def draw(self, n: int, generator: torch.Generator) -> "Series":
        """``n`` of the series, or all where they are fewer."""
        return self.rows(torch.randperm(self.ts.shape[1], generator=generator)[:n])

    def later(self, first: int) -> "Series":
        """From one observation on."""
        return Series(self.ts[first:], self.ys[first:])


@dataclass(frozen=True, eq=False)
class Batch:
    """Series to learn from, as a whole and from a later observation on.

    Attributes:
        series: the whole.
        first: the observation that the later part begins with.
        seen: what the encoder sees of the whole, bool [time, batch].
        seen_later: and of the later part.
        kl_weight: factor of the divergence from the prior.
    """

    series: Series
    first: int
    seen: Tensor
    seen_later: Tensor
    kl_weight: float


class LatentTraining:
    """The training of a latent ODE to predict: its batches, and their loss.

    The bound is taken of whole series and of what is left of them from a random observation on, and
    the encoder sees a random beginning of half of them: the model learns to start anywhere, and to
    go on from what it sees. A latent path should be one path, wherever the encoder started to
    read: where the later part starts, the path of the whole is drawn to the encoder's answer. So
    what was learned of later starts holds for long predictions.

    Args:
        model: trained in place.
        train: the series.
        n_batch: series in every batch.
        n_steps: optimiser steps; over the first 0.3 of them the divergence gains its weight.
        continuity: weight of the square of the distance, in units of the encoder's standard
            deviation (of its logarithm where it is far), against the bound.

    Source:
        Iakovlev, Yildiz, Heinonen & Lahdesmaki, Latent Neural ODEs with Sparse Bayesian Multiple
        Shooting (2023), for the prior of continuity that the distance resembles.
    """

    def __init__(
        self, model: LatentODE, train: Series, n_batch: int, n_steps: int, continuity: float
    ) -> None:
        self.model, self.train = model, train
        self.n_batch, self.n_steps, self.continuity = n_batch, n_steps, continuity

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        """Draws series, where their later part begins, and what is seen of both."""
        series = self.train.draw(self.n_batch, generator)
        n = len(series)
        first = int(torch.randint(1, max(2, round(_LATEST * n)), (), generator=generator))
        seen, seen_later = (_beginning(length, series, generator) for length in (n, n - first))
        kl_weight = min(1.0, step / (0.3 * self.n_steps))
        return Batch(series, first, seen, seen_later, kl_weight)

    def loss(self, batch: Batch) -> Tensor:
        """The mean of both bounds, and the distance where the parts meet, per observation."""
        later = batch.series.later(batch.first)
        encoded = self._encode_both(batch)
        (first_mean, mean), (first_log_variance, log_variance) = (x.chunk(2) for x in encoded)
        kl_weight = batch.kl_weight
        whole_bound, states = self._bound(batch.series, first_mean, first_log_variance, kl_weight)
        later_bound, _ = self._bound(later, mean, log_variance, kl_weight)
        apart = (states[batch.first] - mean).square() / (log_variance.exp().detach() + _LEAST)
        # Far apart the pull is that of a heavy tail: at first the paths have nothing in common.
        distance = 4 * (apart.sum(-1) / 4).log1p()
        bounds = whole_bound / len(batch.series) + later_bound / len(later)
        return (0.5 * bounds + self.continuity * distance / len(batch.series)).mean()

    def _encode_both(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Answers to the whole and to the later part, one after the other, of one reading."""
        series, first = batch.series, batch.first
        # What is rolled behind the later part is not seen.
        ys = torch.cat([series.ys, series.ys.roll(-first, 0)], dim=1)
        ts = torch.cat([series.ts, series.ts.roll(-first, 0)], dim=1)
        hidden = torch.zeros_like(batch.seen[:first])
        seen = torch.cat([batch.seen, torch.cat([batch.seen_later, hidden])], dim=1)
        return self.model.encode(ys, ts, seen)

    def _bound(
        self, series: Series, mean: Tensor, log_variance: Tensor, kl_weight: float
    ) -> tuple[Tensor, Tensor]:
        """Negative bounds [batch], and the latent path that they are of."""
        model = self.model
        z0 = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        states = model.solve(z0, series.ts).ys
        every = torch.ones_like(series.ys, dtype=torch.bool)
        likelihood = model.log_likelihood(model.decoder(states), series.ys, every)
        return kl_weight * kl_from_prior(mean, log_variance) - likelihood, states


_LATEST = 0.7
"""Share of a series' observations before the latest that its later part may begin with."""
_FEWEST = 4
"""Observations that an encoder sees at least, where there are so many."""
_LEAST = 1e-3
"""Variance below which an encoder's certainty does not count for more."""


def _beginning(length: int, series: Series, generator: torch.Generator) -> Tensor:
    """All of half the series, and of each other one a random beginning, bool [length, batch]."""
    fewest = min(_FEWEST, length - 1)
    shares, kept = torch.rand(2, series.ts.shape[1], generator=generator)
    last = torch.where(kept < 0.5, fewest + (shares * (length - fewest)).long(), length)
    return (torch.arange(length)[:, None] < last).to(series.ts.device)


class RecurrentPredictor(nn.Module):
    """A GRU that is told the next gap of time and says the next observation.

    Beyond the observations it is fed its own predictions, at the gaps between the wanted times.

    Args:
        dim: components of an observation.
        hidden: width of the hidden state.
        noise: standard deviation of the Gaussian that its answer is the mean of.

    Source:
        Chen et al., Neural Ordinary Differential Equations (2018), section 5.1: the baseline.

    Example:
        >>> model = RecurrentPredictor(2, hidden=25, noise=0.3)
        >>> ys, ts = torch.randn(10, 3, 2), torch.rand(10, 3).cumsum(0)
        >>> model.predict(ys, ts, torch.tensor([11.0, 12.0])).shape
        torch.Size([2, 3, 2])
        >>> model.loss(ys.transpose(0, 1), ts.T).shape
        torch.Size([])
    """

    def __init__(self, dim: int, hidden: int, noise: float) -> None:
        super().__init__()
        self.gru = nn.GRU(dim + 1, hidden)
        self.head = nn.Linear(hidden, dim)
        self.noise = noise

    def forward(self, ys: Tensor, ts: Tensor) -> Tensor:
        """What is expected at each time from all before it, [time - 1, batch, dim].

        Args:
            ys: observations, [time, batch, dim]; the last is not looked at.
            ts: their times, [time, batch].
        """
        return self.head(self.gru(_with_gaps(ys[:-1], ts))[0])

    def loss(self, ys: Tensor, ts: Tensor) -> Tensor:
        """Negative log-likelihood of the next observation, in nats, mean over rows and times.

        Args:
            ys: observations, [batch, time, dim].
            ts: their times, [batch, time].
        """
        ys, ts = ys.transpose(0, 1), ts.T
        deviation = (self(ys, ts) - ys[1:]) / self.noise
        constant = math.log(self.noise) + 0.5 * math.log(2 * math.pi)
        return (0.5 * deviation.square() + constant).sum(-1).mean()

    def predict(self, ys: Tensor, ts: Tensor, ts_wanted: Tensor) -> Tensor:
        """What follows the observations, [wanted, batch, dim].

        Args:
            ys: observations, [time, batch, dim].
            ts: their times, [time, batch].
            ts_wanted: increasing, all after the observations, [wanted].

        Raises:
            InputError: for times that are not after the observations.
        """
        if not bool((ts_wanted[0] > ts[-1]).all()):
            raise InputError(
                "a recurrent predictor goes on from its last observation: give later times"
            )
        wanted = ts_wanted[:, None].expand(-1, ts.shape[1])
        _, hidden = self.gru(_with_gaps(ys[:-1], ts))
        times = torch.cat([ts[-1:], wanted])
        y, expected = ys[-1], []
        for pair in itertools.pairwise(times):
            output, hidden = self.gru(_with_gaps(y[None], torch.stack(pair)), hidden)
            y = self.head(output[0])
            expected.append(y)
        return torch.stack(expected)


def _with_gaps(ys: Tensor, ts: Tensor) -> Tensor:
    """Observations with the gap to the next, [time, batch, dim + 1], from one more of the times."""
    return torch.cat([ys, ts.diff(dim=0)[..., None]], dim=-1)
