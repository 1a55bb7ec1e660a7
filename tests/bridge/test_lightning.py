import sys

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import odeum
from odeum.errors import InputError
from odeum.models import LinearField, NeuralODE

pytestmark = pytest.mark.filterwarnings("ignore:::pytorch_lightning", "ignore:::lightning_fabric")


def decays(n):
    y0 = torch.rand(n, 2)
    ts = torch.linspace(0, 1, 4).expand(n, 4)
    return TensorDataset(y0, ts, y0[:, None] * (-ts)[..., None].exp())


def trained(model, data, folder, monitor, **options):
    import pytorch_lightning as pl

    from odeum.bridge.lightning import Task

    task = Task(model, **options)
    best = task.checkpoint(monitor, dirpath=folder)
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[best],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, DataLoader(data, 8), DataLoader(data, 8))
    return task, trainer, best


def test_a_model_is_trained_and_its_best_weights_kept(tmp_path):
    data = decays(16)
    model = NeuralODE(LinearField(2), rtol=1e-3)
    before = float(model.metrics(*data.tensors)["rmse"])
    _, trainer, best = trained(model, data, tmp_path, "val_rmse", learning_rate=0.1)
    assert float(trainer.callback_metrics["val_rmse"]) < before
    assert "train_loss" in trainer.callback_metrics
    kept = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    again = NeuralODE(LinearField(2), rtol=1e-3)
    again.load_state_dict({name.removeprefix("model."): x for name, x in kept.items()})
    # Lightning averages over batches.
    assert abs(float(again.metrics(*data.tensors)["rmse"]) - float(best.best_model_score)) < 0.02


def test_fields_that_differentiate_inside(tmp_path):
    y = torch.randn(16, 2)
    data = TensorDataset(y, torch.stack([y[:, 1], -y[:, 0]], -1))
    model = odeum.models.HamiltonianField(2, hidden=(8,))
    _, trainer, _ = trained(model, data, tmp_path, "val_mse")
    assert torch.isfinite(trainer.callback_metrics["val_mse"])


def test_an_accuracy_is_to_grow():
    from odeum.bridge.lightning import Task

    assert Task.checkpoint("val_accuracy").mode == "max"


def test_a_model_without_a_loss_is_refused():
    from odeum.bridge.lightning import Task

    with pytest.raises(InputError, match="Linear has no loss"):
        Task(torch.nn.Linear(1, 1))


def test_without_lightning_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    monkeypatch.delitem(sys.modules, "odeum.bridge.lightning", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'odeum\[lightning\]'"):
        import odeum.bridge.lightning  # noqa: F401
