"""Classification by a flow: encode, solve, read the classes off the last state.

Knows neither where examples come from nor how it is trained.
"""

import torch
from torch import nn
from torch.nn import functional

from odeum.models.block import Augmented, ODEBlock
from odeum.solution import Stats
from odeum.types import Tensor


class ODEClassifier(nn.Module):
    """Classes from the last state of a solve: ``head(block(encoder(x)))``.

    Args:
        block: an :class:`ODEBlock`, or an :class:`Augmented` one.
        head: from the last state to logits, [batch, classes].
        encoder: from an example to the state that the solve starts from; the example itself if
            None.

    Example:
        >>> from odeum.models import MLPField
        >>> model = ODEClassifier(ODEBlock(MLPField(2)), nn.Linear(2, 3))
        >>> x, labels = torch.randn(10, 2), torch.arange(10) % 3
        >>> model(x).shape, model.loss(x, labels).shape, list(model.metrics(x, labels))
        (torch.Size([10, 3]), torch.Size([]), ['accuracy', 'loss'])
        >>> model.trajectories(x, torch.linspace(0, 1, 5)).shape
        torch.Size([5, 10, 2])
    """

    def __init__(
        self, block: ODEBlock | Augmented, head: nn.Module, encoder: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.encoder = nn.Identity() if encoder is None else encoder
        self.block = block
        self.head = head

    @property
    def stats(self) -> Stats | None:
        """Work of the last solve; see :class:`ODEBlock`."""
        return self.block.stats

    def forward(self, x: Tensor) -> Tensor:
        """Logits, [batch, classes], of examples [batch, ...]."""
        return self.head(self.block(self.encoder(x)))

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy in nats.

        Args:
            x: examples, [batch, ...].
            labels: their classes, integers from 0, [batch].
        """
        return functional.cross_entropy(self(x), labels)

    def metrics(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The share of examples told right, ``accuracy``, and the ``loss``.

        Args:
            x: examples, [batch, ...].
            labels: their classes, [batch].
        """
        with torch.no_grad():
            logits = self(x)
            accuracy = (logits.argmax(-1) == labels).to(logits.dtype).mean()
            return {"accuracy": accuracy, "loss": functional.cross_entropy(logits, labels)}

    def trajectories(self, x: Tensor, ts: Tensor) -> Tensor:
        """The states on the way from ``encoder(x)``, [time, batch, *shape].

        Args:
            x: examples, [batch, ...].
            ts: times, [time]; the first is where the block starts.
        """
        return self.block.trajectories(self.encoder(x), ts)
