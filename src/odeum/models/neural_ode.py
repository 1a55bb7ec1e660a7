"""A vector field and the way it is solved, as one module."""

from typing import Any

import torch
from torch import nn

from odeum.api import solve
from odeum.eager.options import StepOptions
from odeum.errors import InputError
from odeum.gradient.registry import Gradient
from odeum.models.learnable import squared_error
from odeum.solution import Solution
from odeum.types import PyTree, Tensor


class NeuralODE(nn.Module):
    """Solves a field from a state to times: ``model(y0, ts) -> ys``.

    Args:
        field: the vector field ``f(t, y) -> dy/dt``, a module; its weights are the model's.
        method: a name from ``odeum.methods.names()`` or a method object.
        rtol: relative tolerance per step, > 0.
        atol: absolute tolerance, in units of the state, >= 0.
        gradient: how the solve is differentiated, a name or an object; see :func:`odeum.solve`.
        step: bounds on the steps.
        on_failure: "raise", or "mask": rows that fail hold NaN after their failure.

    Raises:
        InputError: for a field that is no module. The options are checked when solving.

    Example:
        >>> import torch
        >>> from odeum.models import LinearField
        >>> model = NeuralODE(LinearField(2), method="dopri5", rtol=1e-6)
        >>> model(torch.ones(3, 2), torch.linspace(0, 1, 5)).shape
        torch.Size([5, 3, 2])
    """

    def __init__(
        self,
        field: nn.Module,
        *,
        method: Any = "tsit5",
        rtol: float | Tensor = 1e-4,
        atol: float | Tensor = 1e-6,
        gradient: str | Gradient = "discrete",
        step: StepOptions | None = None,
        on_failure: str = "raise",
    ) -> None:
        super().__init__()
        if not isinstance(field, nn.Module):
            raise InputError(
                f"field is a {type(field).__name__}: a NeuralODE takes an nn.Module; solve a plain "
                "function with odeum.solve"
            )
        self.field = field
        self.options: dict[str, Any] = {
            "method": method,
            "rtol": rtol,
            "atol": atol,
            "gradient": gradient,
            "step": step,
            "on_failure": on_failure,
        }

    def forward(self, y0: PyTree, ts: Tensor) -> PyTree:
        """The states at ``ts`` [time] or [time, batch], [time, batch, *shape]."""
        return self.solve(y0, ts).ys

    def solve(self, y0: PyTree, ts: Tensor, **changes: Any) -> Solution:
        """The whole solution, with statuses and statistics.

        Args:
            y0: states at ``ts[0]``, [batch, *shape].
            ts: [time] or [time, batch].
            changes: options of :func:`odeum.solve` to use in place of the model's own.

        Returns:
            What :func:`odeum.solve` returns.
        """
        return solve(self.field, y0, ts, **{**self.options, **changes})

    def loss(self, y0: Tensor, ts: Tensor, ys: Tensor) -> Tensor:
        """The mean square error of the states at the times, over what was observed.

        The rows of a batch come first, as a ``TensorDataset`` gives them.

        Args:
            y0: states where the rows start, [batch, *shape].
            ts: [batch, time], or [time] shared; ``y0`` holds at the first.
            ys: observed there, [batch, time, *shape]; NaN where nothing was.

        Returns:
            A scalar with its graph.
        """
        times = ts.transpose(0, 1) if ts.ndim == 2 else ts
        return squared_error(self(y0, times).transpose(0, 1), ys)

    def metrics(self, y0: Tensor, ts: Tensor, ys: Tensor) -> dict[str, Tensor]:
        """The root of the loss, for validation; arguments as of :meth:`loss`."""
        with torch.no_grad():
            return {"rmse": self.loss(y0, ts, ys).sqrt()}
