"""Latent ODEs: a variational autoencoder of time series whose latent state flows.

Owns the likelihood, the bound and the way between observations and latent states; times come first.
Knows neither where series come from nor how the model is trained.
"""

import math
from typing import Any, Literal

import torch
from torch import nn

from odeum.api import solve
from odeum.errors import InputError, unknown_name
from odeum.models.fields import MLPField
from odeum.models.recurrent import RecurrentEncoder
from odeum.solution import Solution
from odeum.types import Tensor

ENCODERS = ("rnn", "ode-rnn")
"""The encoders that :class:`LatentODE` takes by name."""


class LatentODE(nn.Module):
    """Time series as decoded solutions of a latent ODE, with an unknown start.

    ``z0 ~ N(0, I)``, ``dz/dt = f(t, z)``, ``y_i ~ N(decoder(z(t_i)), noise^2)``. An encoder reads
    the observations backwards in time and answers with a Gaussian over ``z0``, the state at the
    first time. Series may be irregular: each row may have times of its own, and values that are
    missing (NaN, or masked) count nowhere.

    Args:
        dim: components of an observation, at least 1.
        latent_dim: components of the latent state, at least 1.
        hidden: width of the hidden layer of decoder, latent field and, in an ODE-RNN, of the
            hidden state's field.
        encoder: "rnn"; "ode-rnn", whose hidden state flows between observations; or a module
            ``(ys, ts, mask) -> (mean, log-variance)``, see :class:`RecurrentEncoder`.
        encoder_hidden: width of the encoder's hidden state.
        field: the latent field, a module; an ELU network with two hidden layers if None.
        decoder: from latent states [..., latent_dim] to observations [..., dim], a module; an
            ELU network with one hidden layer if None, whose paths have no kinks.
        noise: standard deviation of the observations' Gaussian noise, > 0, in their units.
        learn_noise: whether it is a parameter, one number per component, and ``noise`` where
            training starts.
        options: those of :func:`odeum.solve`, for every solve.

    Attributes:
        kl_weight: factor of the divergence from the prior in :meth:`loss`, 1 for the bound
            itself; set it to let the divergence count little at first.

    Raises:
        InputError: for a name or a size that cannot be used.

    Source:
        Chen, Rubanova, Bettencourt & Duvenaud, Neural Ordinary Differential Equations (2018),
        section 5; Rubanova, Chen & Duvenaud, Latent ODEs for Irregularly-Sampled Time Series
        (2019).

    Example:
        >>> model = LatentODE(2, latent_dim=4, encoder="ode-rnn")
        >>> ys, ts = torch.randn(10, 3, 2), torch.linspace(0, 1, 10)
        >>> model.predict(ys, ts, torch.linspace(-1, 2, 31)).shape
        torch.Size([31, 3, 2])
        >>> model.loss(ys.transpose(0, 1), ts).shape
        torch.Size([])
    """

    def __init__(
        self,
        dim: int,
        latent_dim: int = 4,
        *,
        hidden: int = 20,
        encoder: Literal["rnn", "ode-rnn"] | nn.Module = "rnn",
        encoder_hidden: int = 25,
        field: nn.Module | None = None,
        decoder: nn.Module | None = None,
        noise: float = 0.1,
        learn_noise: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        for name, size in (("dim", dim), ("hidden", hidden), ("encoder_hidden", encoder_hidden)):
            if size < 1:
                raise InputError(f"{name} is {size}: give a whole number of at least 1")
        if not 0 < noise < math.inf:
            raise InputError(f"noise is {noise}: give a standard deviation above 0")
        self.latent_dim = latent_dim
        self.field = field or MLPField(latent_dim, (hidden, hidden), "elu")
        self.decoder = decoder or nn.Sequential(
            nn.Linear(latent_dim, hidden), nn.ELU(), nn.Linear(hidden, dim)
        )
        if isinstance(encoder, str):
            if encoder not in ENCODERS:
                raise unknown_name("encoder", encoder, ENCODERS)
            flow = MLPField(encoder_hidden, (hidden,)) if encoder == "ode-rnn" else None
            encoder = RecurrentEncoder(dim, latent_dim, encoder_hidden, flow, **options)
        self.encoder = encoder
        self.log_noise = nn.Parameter(torch.full((dim,), math.log(noise)), learn_noise)
        self.kl_weight = 1.0
        self.options = options

    @property
    def noise(self) -> Tensor:
        """Standard deviation of the observations' noise, in their units, [dim]."""
        return self.log_noise.exp()

    def encode(self, ys: Tensor, ts: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent state at ``ts[0]``, [batch, latent_dim] each.

        Args:
            ys: observations, [time, batch, dim].
            ts: their times, strictly increasing, [time] or [time, batch].
            mask: what is observed, bool [time, batch, dim] or [time, batch]; if None, all that is
                not NaN.

        Raises:
            InputError: for shapes that do not fit.
        """
        mask = self._observed(ys, ts, mask)
        return self.encoder(ys, ts, mask)

    def solve(self, z0: Tensor, ts: Tensor, **changes: Any) -> Solution:
        """The latent solution, with statuses and statistics.

        Args:
            z0: latent states at ``ts[0]``, [batch, latent_dim].
            ts: [time] or [time, batch], increasing or decreasing.
            changes: options of :func:`odeum.solve` to use in place of the model's own.
        """
        return solve(self.field, z0, ts, **{**self.options, **changes})

    def decode(self, z0: Tensor, ts: Tensor) -> Tensor:
        """The observations expected at ``ts``, [time, batch, dim]; arguments of :meth:`solve`."""
        return self.decoder(self.solve(z0, ts).ys)

    def predict(
        self, ys: Tensor, ts: Tensor, ts_wanted: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """What is expected at other times: between the observations, after and before them.

        The start is the mean of :meth:`encode`; from there the latent field is solved both ways.

        Args:
            ys: observations, [time, batch, dim].
            ts: their times, strictly increasing, [time] or [time, batch].
            ts_wanted: increasing, [wanted] or [wanted, batch].
            mask: as for :meth:`encode`.

        Returns:
            [wanted, batch, dim].
        """
        z0 = self.encode(ys, ts, mask)[0]
        t0 = ts[0].expand(len(z0))
        wanted = ts_wanted if ts_wanted.ndim == 2 else ts_wanted[:, None].expand(-1, len(z0))
        states = z0.expand(len(wanted), *z0.shape)
        states = self._where_ahead(z0, t0, wanted, states)
        states = self._where_ahead(z0, t0, wanted.flip(0), states.flip(0), backwards=True).flip(0)
        return self.decoder(states)

    def _where_ahead(
        self, z0: Tensor, t0: Tensor, ts: Tensor, states: Tensor, backwards: bool = False
    ) -> Tensor:
        """The states at those ``ts`` that lie ahead of ``t0``; the given ones at the others.

        A solve wants as many times of every row, and rows have different numbers of them ahead:
        those come first, and made-up ones follow closely after the last.
        """
        sign = -1 if backwards else 1
        ahead = sign * (ts - t0) > 0
        if not bool(ahead.any()):
            return states
        n_ahead = ahead.sum(0)
        place = torch.arange(len(ts), device=ts.device)[:, None]
        times = ts.gather(0, (place - n_ahead) % len(ts))
        last = torch.where(n_ahead > 0, ts[-1], t0)
        beyond = place - n_ahead + 1
        spacing = (ts - t0).abs().max() / (64 * len(ts))
        times = torch.where(beyond > 0, last + sign * beyond * spacing, times)
        reached = self.solve(z0, torch.cat([t0[None], times])).ys[1:]
        back = ((place + n_ahead) % len(ts))[..., None].expand_as(reached)
        return torch.where(ahead[..., None], reached.gather(0, back), states)

    def reconstruct(self, ys: Tensor, ts: Tensor, mask: Tensor | None = None) -> Tensor:
        """What is expected at the times of the observations; arguments as of :meth:`encode`."""
        return self.decode(self.encode(ys, ts, mask)[0], ts)

    def sample(self, n: int, ts: Tensor) -> Tensor:
        """Series from the prior without noise, [time, n, dim], drawn by torch's generator.

        Args:
            n: how many.
            ts: times, [time] or [time, n].
        """
        weight = self.log_noise
        z0 = torch.randn(n, self.latent_dim, dtype=weight.dtype, device=weight.device)
        return self.decode(z0, ts)

    def loss(
        self,
        ys: Tensor,
        ts: Tensor,
        mask: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> Tensor:
        """The negative evidence lower bound in nats, from one draw of ``z0``, mean over the rows.

        The rows of a batch come first, as a ``TensorDataset`` gives them.

        Args:
            ys: observations, [batch, time, dim].
            ts: their times, [batch, time], or [time] shared.
            mask: what the encoder sees, bool [batch, time, dim] or [batch, time]; if None, all
                that is not NaN.
            targets: likewise, of what the likelihood counts; what the encoder sees if None. With
                later observations among them the model learns to predict.

        Returns:
            A scalar with its graph: ``-E log p(y | z0) + kl_weight KL(q(z0) || N(0, I))``.

        Example:
            >>> model = LatentODE(2)
            >>> ys, ts = torch.randn(8, 20, 2), torch.linspace(0, 1, 20)
            >>> early = (ts < 0.5).expand(8, 20)
            >>> model.loss(ys, ts, early, torch.ones_like(early)).shape
            torch.Size([])
        """
        ys, ts, mask, targets = _time_first(ys, ts, mask, targets)
        counted = self._observed(ys, ts, mask if targets is None else targets)
        mean, log_variance = self.encode(ys, ts, mask)
        z0 = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        likelihood = self.log_likelihood(self.decode(z0, ts), ys, counted)
        return (self.kl_weight * kl_from_prior(mean, log_variance) - likelihood).mean()

    def metrics(
        self,
        ys: Tensor,
        ts: Tensor,
        mask: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Root mean square error of a component at the targets, ``rmse``, and the ``loss``.

        The error is that of :meth:`reconstruct`, without a draw; arguments as of :meth:`loss`.
        """
        with torch.no_grad():
            loss = self.loss(ys, ts, mask, targets)
            ys, ts, mask, targets = _time_first(ys, ts, mask, targets)
            counted = self._observed(ys, ts, mask if targets is None else targets)
            errors = (self.reconstruct(ys, ts, mask) - ys)[counted]
            return {"rmse": errors.square().mean().sqrt(), "loss": loss}

    def log_likelihood(self, expected: Tensor, ys: Tensor, counted: Tensor) -> Tensor:
        """Log-density of observations in nats, summed over each row, [batch].

        Args:
            expected: what they are expected to be, [time, batch, dim].
            ys: what they are, likewise.
            counted: which of them count, bool, likewise.
        """
        # What is missing must not reach the graph: its NaN times 0 is a NaN.
        deviation = torch.where(counted, ys - expected, 0.0) / self.noise
        terms = -0.5 * deviation.square() - self.log_noise - 0.5 * math.log(2 * math.pi)
        return torch.where(counted, terms, 0.0).sum((0, 2))

    def _observed(self, ys: Tensor, ts: Tensor, mask: Tensor | None) -> Tensor:
        """What is observed, bool [time, batch, dim]; checks all shapes."""
        if ys.ndim != 3 or ys.shape[2] != len(self.log_noise):
            raise InputError(
                f"ys has shape {list(ys.shape)}: give three axes, time, batch and the "
                f"{len(self.log_noise)} components"
            )
        if ts.shape not in (ys.shape[:1], ys.shape[:2]):
            raise InputError(
                f"ts has shape {list(ts.shape)} for ys of {list(ys.shape)}: give [time] or one "
                "time per row"
            )
        there = ~torch.isnan(ys)
        if mask is None:
            return there
        if mask.dtype != torch.bool or mask.shape not in (ys.shape, ys.shape[:2]):
            raise InputError(
                f"a mask has dtype {mask.dtype} and shape {list(mask.shape)} for ys of "
                f"{list(ys.shape)}: give one bool per value, or per time and row"
            )
        return there & (mask if mask.ndim == 3 else mask[..., None])


def kl_from_prior(mean: Tensor, log_variance: Tensor) -> Tensor:
    """``KL(N(mean, variance) || N(0, I))`` in nats, summed over the last axis.

    Args:
        mean: [..., latent_dim].
        log_variance: likewise.

    Example:
        >>> kl_from_prior(torch.tensor([2.0]), torch.tensor([0.0]))
        tensor(2.)
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)


def _time_first(ys: Tensor, ts: Tensor, *masks: Tensor | None) -> tuple[Any, ...]:
    """The tensors of a batch whose rows come first, with times first."""
    turned = [None if mask is None else mask.transpose(0, 1) for mask in masks]
    return ys.transpose(0, 1), ts.T if ts.ndim == 2 else ts, *turned
