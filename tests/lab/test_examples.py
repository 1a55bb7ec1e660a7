import copy
import json

import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

import odeum
from odeum import lab
from odeum.errors import InputError
from odeum.models import LinearField, NeuralODE
from odeum.models.learnable import is_better, measure, squared_error

SHORT = {"epochs": 3, "batch_size": 8, "learning_rate": 0.1, "quiet": True}


def decays(n=30):
    """Examples of ``y' = -y``: starts, times, states."""
    generator = torch.Generator().manual_seed(1)
    y0 = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    ts = torch.linspace(0, 1, 4, dtype=torch.float64).expand(n, 4)
    return y0, ts, y0[:, None] * (-ts)[..., None].exp()


def model_of(start=0.0):
    field = LinearField(2).double()
    torch.nn.init.constant_(field.linear.weight, start)
    return NeuralODE(field, rtol=1e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return lab.fit(model_of(), decays(), out=tmp_path_factory.mktemp("fit") / "run", **SHORT)


class Counting(torch.nn.Module):
    """Fits one number; its metric is called as it comes."""

    def __init__(self):
        super().__init__()
        self.x = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def loss(self, y):
        return (self.x - y).square().mean()


class Uneven(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, i):
        return torch.tensor(float(i % 3), dtype=torch.float64)


def lines_of(path):
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


class TestFit:
    def test_it_learns(self, run):
        lines = lines_of(run.path)
        before = float(model_of().metrics(*decays())["rmse"])
        assert lines[-1]["held_out_rmse"] < 0.5 * before
        assert isinstance(run.model, NeuralODE)
        assert run.summary["result"]["held_out_rmse"] == lines[-1]["held_out_rmse"]
        assert "6 held-out examples" in run.summary["sentence"]

    def test_the_run_directory_is_whole(self, run):
        names = {path.name for path in run.path.iterdir()}
        assert names >= {"config.json", "checkpoint.pt", "predictions.csv", "report.html"}
        rows = (run.path / "predictions.csv").read_text().splitlines()
        assert rows[0] == "example,rmse,loss"
        assert len(rows) == 7

    def test_an_interrupted_run_goes_on_bit_for_bit(self, run, tmp_path, monkeypatch):
        monkeypatch.setattr("odeum.lab.study.SAVE_EVERY", 0.0)
        model, calls = model_of(), 0

        def loss(*batch):
            nonlocal calls
            calls += 1
            if calls == 5:
                raise KeyboardInterrupt
            return NeuralODE.loss(model, *batch)

        model.loss = loss
        with pytest.raises(KeyboardInterrupt):
            lab.fit(model, decays(), out=tmp_path / "a", **SHORT)
        again = lab.fit(model_of(), decays(), out=tmp_path / "a", resume=True, **SHORT)
        assert lines_of(again.path) == lines_of(run.path)

    def test_other_examples_are_refused(self, run):
        y0, ts, ys = decays()
        with pytest.raises(InputError, match="another run"):
            lab.fit(model_of(), (y0 + 1, ts, ys), out=run.path, resume=True, **SHORT)

    def test_examples_to_judge_by(self, tmp_path):
        run = lab.fit(
            model_of(), TensorDataset(*decays(16)), validation=decays(5), out=tmp_path, **SHORT
        )
        assert "learned from 16 examples" in run.summary["title"]
        assert "5 held-out" in run.summary["sentence"]

    def test_any_dataset_and_a_model_without_metrics(self, tmp_path):
        run = lab.fit(Counting(), Uneven(), out=tmp_path, holdout=0.25, **SHORT)
        assert list(run.summary["result"]) == ["held_out_loss"]
        assert 0 < float(run.model.x.detach()) < 1

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"data": "rows.csv"}, "data is a str: give a tensor"),
            ({"data": (torch.zeros(3), torch.zeros(4))}, "first axes must be equal"),
            ({"data": torch.zeros(1)}, "there are 1 examples"),
            ({"epochs": 0}, "epochs is 0"),
            ({"batch_size": 1.5}, "batch_size is 1.5"),
            ({"holdout": 1.0}, "holdout is 1.0"),
            ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, tmp_path, changes, message):
        options = {"data": torch.zeros(6), **SHORT, **changes}
        with pytest.raises(InputError) as raised:
            lab.fit(Counting(), out=tmp_path / "a", **options)
        assert message in str(raised.value)
        assert not (tmp_path / "a").exists()


class TestLearnable:
    def test_a_loss_over_what_was_observed(self):
        y0, ts, ys = decays(4)
        ys = ys.clone()
        ys[1, 2, 0] = torch.nan
        model = model_of()
        whole = (model(y0, ts[0]).transpose(0, 1) - ys)[~ys.isnan()].square().mean()
        assert torch.allclose(model.loss(y0, ts, ys), whole)
        model.loss(y0, ts, ys).backward()
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters())

    def test_times_of_their_own(self):
        y0, ts, ys = decays(4)
        scaled = ts * torch.tensor([1.0, 0.5, 2.0, 3.0])[:, None]
        model = model_of()
        losses = [model.loss(y0[i : i + 1], scaled[i], ys[i : i + 1]) for i in range(4)]
        assert torch.allclose(model.loss(y0, scaled, ys), torch.stack(losses).mean())

    def test_metrics_come_with_the_loss(self):
        found = measure(model_of(), decays(4))
        assert list(found) == ["rmse", "loss"]
        assert torch.allclose(found["rmse"] ** 2, found["loss"])
        assert list(measure(Counting(), (torch.zeros(3),))) == ["loss"]

    def test_better(self):
        assert is_better("accuracy", 0.9, 0.8)
        assert is_better("rmse", 0.1, 0.2)

    def test_squared_error_of_nothing_is_nan(self):
        assert squared_error(torch.zeros(2), torch.full((2,), torch.nan)).isnan()


def test_models_are_copied_and_saved(tmp_path):
    model = model_of()
    twin = copy.deepcopy(model)
    twin.load_state_dict(model_of(0.5).state_dict())
    y0, ts, ys = decays(3)
    assert not torch.equal(model.loss(y0, ts, ys), twin.loss(y0, ts, ys))
    assert odeum.fit is lab.fit
