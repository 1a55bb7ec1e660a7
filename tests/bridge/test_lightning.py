import copy
import sys

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import odeum
from odeum import models
from odeum.errors import InputError
from odeum.models import LinearField, MLPField, NeuralODE

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


def oscillations():
    y = torch.randn(16, 2)
    return TensorDataset(y, torch.stack([y[:, 1], -y[:, 0]], -1))


def classes():
    x = torch.randn(16, 2)
    return TensorDataset(x, (x[:, 0] > 0).long())


def series():
    ts = torch.linspace(0, 1, 5).expand(16, 5)
    return TensorDataset(torch.sin(ts[..., None] + torch.rand(16, 1, 1)), ts)


MODELS = {
    "neural_ode": (lambda: NeuralODE(LinearField(2)), lambda: decays(16), "rmse"),
    "classifier": (
        lambda: models.ODEClassifier(
            models.Augmented(models.ODEBlock(MLPField(3, (8,))), 1), torch.nn.Linear(3, 2)
        ),
        classes,
        "accuracy",
    ),
    "flow": (
        lambda: models.ContinuousFlow(MLPField(2, (8,), time_dependent=True), rtol=1e-3),
        lambda: TensorDataset(torch.randn(16, 2)),
        "nll",
    ),
    "latent": (lambda: models.LatentODE(1, 2, hidden=4, encoder_hidden=4), series, "rmse"),
    "hamiltonian": (lambda: models.HamiltonianField(2, hidden=(8,)), oscillations, "mse"),
    "lagrangian": (lambda: models.LagrangianField(2, hidden=(8,)), oscillations, "mse"),
    "second_order": (
        lambda: models.SecondOrder(models.MLPAcceleration(1, hidden=(8,)), torch.zeros(1)),
        lambda: TensorDataset(
            *(x[..., :1] if x.ndim != 2 or x.shape[1] == 2 else x for x in decays(16).tensors)
        ),
        "rmse",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_here_and_under_fit(name, tmp_path):
    make, examples, metric = MODELS[name]
    torch.manual_seed(1)
    data, model = examples(), make()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    _, trainer, best = trained(copy.deepcopy(model), data, tmp_path / "pl", f"val_{metric}")
    assert torch.isfinite(trainer.callback_metrics[f"val_{metric}"])
    assert best.best_model_path
    run = odeum.fit(model, data, epochs=2, out=tmp_path / "fit", quiet=True)
    assert isinstance(run.summary["result"][f"held_out_{metric}"], float)
    after = run.model.state_dict()
    assert any(not torch.equal(after[key], value) for key, value in before.items())


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
