"""Continuous normalising flows: a density from a base density carried along by a field.

Owns ``d log|det dy/dy0| / dt = tr(df/dy)`` (Chen et al. 2018, theorem 1). The log-determinant, and
what the loss may weigh beside it, are states like ``y``: one system, which the fused engine
compiles whole. Knows nothing of data.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from odeum.api import solve
from odeum.eager.field import per_row
from odeum.errors import InputError, unknown_name
from odeum.regularisers import kinetic_energy
from odeum.solution import Solution
from odeum.types import PyTree, Tensor

TRACES = ("exact", "hutchinson")


class ContinuousFlow(nn.Module):
    """A density on vectors, used like a ``torch.distributions`` object.

    Points ``z`` of a base density at time 0 follow ``dy/dt = f(t, y)`` to ``x`` at time ``t1``;
    their log-density loses ``log|det dx/dz|``, the integral of the trace of ``df/dy``.

    Args:
        field: ``f(t, y) -> dy/dt``, [batch, dim], a module; smooth, for its derivative is
            integrated. Rows must not depend on one another.
        base: the density at time 0, of vectors: an object with ``log_prob``, ``rsample`` and
            ``event_shape``, as those of ``torch.distributions``. A standard normal one of
            ``field.dim`` components if None. One that is a module is moved and saved with the flow.
        t1: the time at which points are data, > 0.
        trace: "exact" takes one pull-back a component, none where the field has its own
            ``with_trace(t, y) -> (f, trace [batch, 1])``, as a :class:`FlowField`; "hutchinson" one
            in all, an estimate without bias by random signs, drawn for each solve and kept through
            it.
        kinetic: weight in the loss of the integral of ``|f|^2``: points go straight.
        jacobian: weight in the loss of the integral of ``|df/dy|_F^2``: neighbours stay so.
            Estimated by the same signs where the trace is.
        options: those of :func:`odeum.solve`, for every solve.

    Raises:
        InputError: for a field that is no module, an unknown trace, a time or weight out of range,
            or where the dimension cannot be told.

    Source:
        Grathwohl et al., FFJORD (2019), eq. 4-8; Finlay et al., How to train your neural ODE
        (2020), eq. 6, 7 and 10.

    Example:
        >>> from odeum.models import FlowField
        >>> flow = ContinuousFlow(FlowField(2))
        >>> x = flow.sample((5,))
        >>> x.shape, flow.log_prob(x).shape, flow.loss(x).shape
        (torch.Size([5, 2]), torch.Size([5]), torch.Size([]))
        >>> z, log_det = flow.inverse(x)
        >>> bool((flow.transform(z)[0] - x).abs().max() < 1e-3)
        True
    """

    has_rsample = True
    batch_shape = torch.Size()
    support = torch.distributions.constraints.real_vector

    def __init__(
        self,
        field: nn.Module,
        base: Any = None,
        *,
        t1: float = 1.0,
        trace: str = "exact",
        kinetic: float = 0.0,
        jacobian: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        if not isinstance(field, nn.Module):
            raise InputError(
                f"field is a {type(field).__name__}: a ContinuousFlow takes an nn.Module"
            )
        if trace not in TRACES:
            raise unknown_name("trace", str(trace), TRACES)
        if not 0 < t1 < math.inf:
            raise InputError(f"t1 is {t1}: give a positive time")
        for name, weight in (("kinetic", kinetic), ("jacobian", jacobian)):
            if weight < 0:
                raise InputError(f"{name} is {weight}: give a weight of 0 or more")
        self.field = field
        self.t1 = t1
        self.trace = trace
        self.kinetic = kinetic
        self.jacobian = jacobian
        self.options = options
        self.base = _StandardNormal(_dim_of(field)) if base is None else base
        if len(self.base.event_shape) != 1:
            raise InputError(
                f"the base has event_shape {list(self.base.event_shape)}: give a density of "
                "vectors, as torch.distributions.Independent(Normal(...), 1)"
            )

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one point, [dim]."""
        return self.base.event_shape

    def log_prob(self, x: Tensor, t: float | None = None) -> Tensor:
        """The log-density in nats at ``x`` [*shape, dim], [*shape].

        Args:
            x: points.
            t: the time at which they are there, above 0; ``t1`` if None.
        """
        z, log_det = self.inverse(x, t)
        return self.base.log_prob(z) + log_det

    def rsample(self, sample_shape: int | Sequence[int] = ()) -> Tensor:
        """Points drawn at random, [*sample_shape, dim], with gradients.

        Args:
            sample_shape: of the draw; a number for so many points.
        """
        shape = (sample_shape,) if isinstance(sample_shape, int) else tuple(sample_shape)
        z = self.base.rsample(torch.Size(shape))
        ts = z.new_tensor([0.0, self.t1])
        x = solve(self.field, z.reshape(-1, *self.event_shape), ts, **self.options).ys[-1]
        return x.reshape(z.shape)

    def sample(self, sample_shape: int | Sequence[int] = ()) -> Tensor:
        """The same without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def transform(self, z: Tensor, t: float | None = None) -> tuple[Tensor, Tensor]:
        """From the base to the data: ``x`` and ``log|det dx/dz|``.

        Args:
            z: points at time 0, [*shape, dim].
            t: the time to carry them to; ``t1`` if None.

        Returns:
            Points [*shape, dim] and log-determinants [*shape].
        """
        return self._carried(z, 0.0, self.t1 if t is None else t)

    def inverse(self, x: Tensor, t: float | None = None) -> tuple[Tensor, Tensor]:
        """From the data to the base: ``z`` and ``log|det dz/dx|``.

        Args:
            x: points at time ``t``, [*shape, dim].
            t: the time to carry them back from; ``t1`` if None.

        Returns:
            Points [*shape, dim] and log-determinants [*shape].
        """
        return self._carried(x, self.t1 if t is None else t, 0.0)

    def loss(self, x: Tensor) -> Tensor:
        """The mean negative log-density in nats, and weighted regularisers where there are any.

        Args:
            x: points, [batch, dim].
        """
        end = self._end(self.solve(x))
        loss = self._nll(end)
        for name, weight in self._weights().items():
            # Integrals of a solve backwards in time come out negative.
            loss = loss - weight * end[name].mean()
        return loss

    def metrics(self, x: Tensor) -> dict[str, Tensor]:
        """The mean negative log-density in nats, ``nll``, and evaluations of the field a point.

        Args:
            x: points, [batch, dim].
        """
        with torch.no_grad():
            solution = self.solve(x)
            nll = self._nll(self._end(solution))
            return {"nll": nll, "evaluations": solution.stats.n_evaluations.to(nll).mean()}

    def solve(self, x: Tensor, **changes: Any) -> Solution:
        """The whole solution from data back to the base, with statuses and statistics.

        Args:
            x: points, [batch, dim].
            changes: options of :func:`odeum.solve` to use in place of the flow's own.

        Returns:
            What :func:`odeum.solve` returns. Its states are dicts: points ``y`` [time, batch, dim],
            their ``log_det`` [time, batch, 1], and, as that, the integrals that the loss has a
            weight for: ``kinetic`` and ``jacobian``.
        """
        return self._solve(x, self.t1, 0.0, self._weights(), **changes)

    def extra_repr(self) -> str:
        """What ``print`` shows beside the field."""
        return f"t1={self.t1:g}, trace={self.trace!r}"

    def _weights(self) -> dict[str, float]:
        weights = {"kinetic": self.kinetic, "jacobian": self.jacobian}
        return {name: weight for name, weight in weights.items() if weight}

    def _carried(self, y: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
        if y.shape[-1:] != self.event_shape:
            raise InputError(
                f"points have shape {list(y.shape)}: the last axis must have "
                f"{self.event_shape[0]} components"
            )
        found = self._end(self._solve(y.reshape(-1, *self.event_shape), start, end))
        return found["y"].reshape(y.shape), found["log_det"].reshape(y.shape[:-1])

    def _solve(
        self, y: Tensor, start: float, end: float, integrals: Iterable[str] = (), **changes: Any
    ) -> Solution:
        none = torch.zeros_like(y[:, :1])
        state = {"y": y, "log_det": none} | dict.fromkeys(integrals, none)
        noise = None
        if self.trace == "hutchinson":
            noise = per_row(torch.randint_like(y, 2) * 2 - 1)
        ts = y.new_tensor([start, end])
        return solve(self._rates, state, ts, noise, **{**self.options, **changes})

    def _rates(self, t: Tensor, y: PyTree, *noises: PyTree) -> dict[str, Tensor]:
        """The derivative of whatever the state has."""
        state, y = y, y["y"]
        noise = noises[0] if noises else None
        with_trace = getattr(self.field, "with_trace", None)
        if noise is None and "jacobian" not in state and with_trace is not None:
            f, trace = with_trace(t, y)
            rates = {"y": f, "log_det": trace}
        else:
            rates = self._rates_by_pulling(t, y, noise)
        rates["kinetic"] = kinetic_energy(self.field, t, y, rates["y"])[:, None]
        return {name: rates[name] for name in state}

    def _rates_by_pulling(self, t: Tensor, y: Tensor, noise: Tensor | None) -> dict[str, Tensor]:
        """The same, but for the kinetic energy, of any field: ``e^T df/dy`` for some ``e``."""
        f, pull = torch.func.vjp(lambda y: self.field(t, y), y)  # type: ignore[misc]
        if noise is None:
            directions = list(torch.eye(y.shape[-1], dtype=y.dtype, device=y.device))
        else:
            directions = [noise]
        pulled = [pull(e.expand_as(y))[0] for e in directions]
        parts = [e * row for e, row in zip(directions, pulled, strict=True)]
        return {
            "y": f,
            "log_det": torch.stack(parts).sum((0, -1))[:, None],
            "jacobian": torch.stack(pulled).square().sum((0, -1))[:, None],
        }

    @staticmethod
    def _end(solution: Solution) -> dict[str, Tensor]:
        return {name: values[-1] for name, values in solution.ys.items()}

    def _nll(self, end: dict[str, Tensor]) -> Tensor:
        return -(self.base.log_prob(end["y"]) + end["log_det"][:, 0]).mean()


class _StandardNormal(nn.Module):
    """The standard normal density of vectors, where its flow is and in its dtype."""

    origin: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("origin", torch.zeros(dim), persistent=False)
        self.event_shape = torch.Size([dim])

    def log_prob(self, z: Tensor) -> Tensor:
        """The log-density in nats at ``z`` [..., dim], [...]."""
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)

    def rsample(self, sample_shape: torch.Size) -> Tensor:
        """Points drawn at random, [*sample_shape, dim]."""
        shape = sample_shape + self.event_shape
        return torch.randn(shape, dtype=self.origin.dtype, device=self.origin.device)


def _dim_of(field: nn.Module) -> int:
    dim = getattr(field, "dim", None)
    if not isinstance(dim, int):
        raise InputError(
            f"{type(field).__name__} does not say its dimension: give base=, as "
            "torch.distributions.Independent(Normal(...), 1)"
        )
    return dim
