"""Any model of odeum under PyTorch Lightning's Trainer; ``pip install 'odeum[lightning]'``.

A model that has ``loss(*batch)`` is all it takes. What Lightning does, logging, devices,
checkpoints, early stopping, is Lightning's.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from odeum.errors import InputError
from odeum.models.learnable import HIGHER_IS_BETTER, Learnable, measure
from odeum.types import Tensor

try:
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import ModelCheckpoint
except ImportError as error:
    raise ImportError(
        "odeum.bridge.lightning needs PyTorch Lightning: pip install 'odeum[lightning]'"
    ) from error

Optimiser = Callable[[Any], torch.optim.Optimizer]


class Task(pl.LightningModule):
    """A model, its loss and its metrics, as Lightning's Trainer takes them.

    It logs ``train_loss`` at every step, and after every epoch ``val_<name>`` for each of the
    model's metrics and its loss, means over the validation batches.

    Args:
        model: a module with ``loss(*batch)``, and maybe ``metrics(*batch)``: such as
            :class:`odeum.NeuralODE`, ``ODEClassifier``, ``LatentODE``, ``ContinuousFlow``.
        optimiser: makes an optimiser of parameters; Adam at ``learning_rate`` if None.
        learning_rate: of that Adam.

    Attributes:
        model: the model.

    Raises:
        InputError: for a model without a loss.

    Example:
        >>> import odeum
        >>> task = Task(odeum.NeuralODE(odeum.models.LinearField(2)), learning_rate=1e-2)
        >>> best = task.checkpoint("val_rmse")
        >>> best.monitor, best.mode
        ('val_rmse', 'min')
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: Optimiser | None = None,
        *,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        if not isinstance(model, Learnable):
            raise InputError(
                f"{type(model).__name__} has no loss(*batch): give a model of odeum.models, or a "
                "module with such a method"
            )
        self.model = model
        self._optimiser = optimiser or (lambda ps: torch.optim.Adam(ps, lr=learning_rate))

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the model itself returns."""
        return self.model(*inputs, **options)

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """The loss of a batch."""
        batch = _tuple(batch)
        loss = self.model.loss(*batch)
        self.log("train_loss", loss, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: Any, batch_index: int) -> None:
        """Logs what the model is judged by."""
        batch = _tuple(batch)
        # Fields that differentiate inside, as Hamiltonian ones, need torch's ordinary no_grad.
        with torch.inference_mode(False), torch.no_grad():
            found = measure(self.model, tuple(x.clone() for x in batch))
        named = {f"val_{name}": value for name, value in found.items()}
        self.log_dict(named, batch_size=len(batch[0]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser of the model's parameters."""
        return self._optimiser(p for p in self.model.parameters() if p.requires_grad)

    @staticmethod
    def checkpoint(monitor: str, **options: Any) -> ModelCheckpoint:
        """A callback that keeps the weights of the best epoch.

        Args:
            monitor: what decides, as it is logged, such as "val_accuracy": that of the highest
                accuracy, of the lowest of anything else.
            options: of Lightning's ``ModelCheckpoint``.
        """
        higher = monitor.removeprefix("val_") in HIGHER_IS_BETTER
        return ModelCheckpoint(
            **{"monitor": monitor, "mode": "max" if higher else "min", "save_top_k": 1, **options}
        )


def _tuple(batch: Any) -> tuple[Tensor, ...]:
    return tuple(batch) if isinstance(batch, tuple | list) else (batch,)
