"""What a model offers to whoever trains it: a loss of a batch, and numbers to judge it by.

The rows of a batch come first, as a ``TensorDataset`` gives them. ``odeum.fit`` and the adapter to
Lightning call these two and nothing else.
"""

from typing import Any, Protocol, runtime_checkable

import torch

from odeum.types import Tensor

HIGHER_IS_BETTER = frozenset({"accuracy", "log_prob"})
"""Names of metrics that are to grow; all others are to fall."""


@runtime_checkable
class Learnable(Protocol):
    """A module that says how wrong it is about a batch."""

    def loss(self, *batch: Any) -> Tensor:
        """The mean over a batch's rows, a scalar with its graph."""
        ...


def measure(model: Any, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """What a model is judged by on a batch: its ``metrics``, or its loss where it has none.

    Args:
        model: a :class:`Learnable`, with or without ``metrics(*batch)``.
        batch: tensors whose first axis are the rows.

    Returns:
        Scalars by name, without a graph, the most important one first.

    Example:
        >>> from odeum.models import LinearField, NeuralODE
        >>> y0, ts = torch.ones(3, 2), torch.linspace(0, 1, 4).expand(3, 4)
        >>> list(measure(NeuralODE(LinearField(2)), (y0, ts, torch.ones(3, 4, 2))))
        ['rmse', 'loss']
    """
    metrics = getattr(model, "metrics", None)
    found: dict[str, Tensor] = metrics(*batch) if metrics is not None else {}
    if "loss" not in found:
        with torch.no_grad():
            found = {**found, "loss": model.loss(*batch)}
    return found


def is_better(name: str, value: float, than: float) -> bool:
    """Whether a value of a metric is better than another.

    Example:
        >>> is_better("accuracy", 0.9, 0.8), is_better("rmse", 0.9, 0.8)
        (True, False)
    """
    return value > than if name in HIGHER_IS_BETTER else value < than


def squared_error(predicted: Tensor, observed: Tensor) -> Tensor:
    """The mean square difference over what was observed, that is, is not NaN.

    Args:
        predicted: any shape.
        observed: the same shape; NaN where nothing was observed.

    Example:
        >>> squared_error(torch.tensor([1.0, 2.0]), torch.tensor([torch.nan, 4.0]))
        tensor(4.)
    """
    seen = ~torch.isnan(observed)
    # Cut before they meet: a gradient of zero times NaN would be NaN.
    difference = torch.where(seen, predicted, 0.0) - torch.where(seen, observed, 0.0)
    return difference.square().sum() / seen.sum()
