import gzip
import json

import pandas as pd
import pytest
import torch

from odeum.errors import DataError, InputError
from odeum.lab.experiments import EXPERIMENTS, Setting, read_options
from odeum.lab.experiments.mnist_networks import (
    NETWORKS,
    ConvolutionalField,
    TimeConvolution,
    ode_net,
)


def run(out, *assignments, **setting):
    experiment = EXPERIMENTS["mnist"]
    return experiment.run(read_options(experiment, assignments), Setting(out, **setting))


def write_digits(folder, n_train, n_test):
    """Images of ten kinds, easily told apart: a bar whose place is the digit."""
    folder.mkdir()
    for part, n in (("train", n_train), ("t10k", n_test)):
        labels = (torch.arange(n) * 7) % 10
        images = torch.zeros(n, 28, 28, dtype=torch.uint8)
        for image, label in zip(images, labels.tolist(), strict=True):
            image[2 * label + 3 : 2 * label + 6] = 250
        for kind, values, n_axes in (("images-idx3", images, 3), ("labels-idx1", labels, 1)):
            sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
            content = bytes([0, 0, 8, n_axes]) + sizes + values.to(torch.uint8).numpy().tobytes()
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
    return folder


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mnist")
    data = write_digits(folder / "data", 40, 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("odeum.lab.experiments.mnist.TOLERANCES", (1e-1, 1e-2))
        patch.setattr("odeum.lab.experiments.mnist._FINEST", 1e-3)
        return run(folder / "run", f"data={data}", "batch=8", "tolerance=0.1", "subset=20")


def test_every_network_is_measured(found):
    findings = {entry["what"]: entry for entry in found.summary["findings"]}
    published = {"ODE-Net": 0.22, "RK-Net": 0.22, "ResNet": 0.60, "MLP": 0.24}
    for name, millions in published.items():
        # The published ResNet has another downsampling, and 0.02 M more.
        assert findings[f"parameters, {name}"]["value"] == pytest.approx(millions, abs=0.03)
        assert name in found.summary["result"]
    table = pd.read_csv(found.path / "predictions.csv")
    assert list(table.columns) == ["image", "digit", "ode-net", "rk-net", "resnet", "mlp"]
    for column, name in (("ode-net", "ODE-Net"), ("mlp", "MLP")):
        wrong = 100 * (table[column] != table["digit"]).mean()
        assert findings[f"test error, {name}"]["value"] == pytest.approx(wrong)


def test_lines_count_evaluations_both_ways(found):
    lines = [json.loads(x) for x in (found.path / "metrics.jsonl").read_text().splitlines()]
    by_part = {name: [line for line in lines if line["part"] == name] for name in NETWORKS}
    assert all(line["n_evaluations"] >= 4 for line in by_part["ode-net"] + by_part["rk-net"])
    assert all("n_evaluations_back" in line for line in by_part["ode-net"])
    assert all(line["n_evaluations"] == 0 for line in by_part["mlp"])
    for part in by_part.values():
        assert "held_out" in part[-1]
    drawn = {path.name for path in (found.path / "figures").iterdir()}
    assert drawn == {
        "backward_forward.png",
        "error_evaluations.png",
        "evaluations_tolerance.png",
        "evaluations_training.png",
        "loss.png",
        "test_error.png",
        "time_evaluations.png",
    }


def test_one_network_alone_learns_and_is_tested_after_every_pass(tmp_path):
    data = write_digits(tmp_path / "data", 50, 20)
    found = run(tmp_path / "run", f"data={data}", "networks=mlp", "epochs=4", "batch=2")
    (error, weights) = found.summary["findings"]
    assert (error["what"], weights["what"]) == ("test error, MLP", "parameters, MLP")
    assert error["value"] == 0
    lines = [json.loads(x) for x in (found.path / "metrics.jsonl").read_text().splitlines()]
    # A line is two steps, a pass 25.
    assert [line["step"] for line in lines if "held_out" in line] == [26, 50, 76, 100]


def test_time_is_a_channel_of_the_convolution():
    layer = TimeConvolution(3)
    whole = torch.nn.Conv2d(4, 3, 3, padding=1)
    with torch.no_grad():
        whole.weight[:, :1], whole.weight[:, 1:] = layer.of_time.weight, layer.of_state.weight
        whole.bias.copy_(layer.of_state.bias)
    y = torch.randn(2, 3, 5, 5)
    for t in (torch.tensor(0.7), torch.tensor([0.7, -0.2])[:, None, None, None]):
        time = t.expand(2, 1, 1, 1).expand(2, 1, 5, 5)
        torch.testing.assert_close(layer(t, y), whole(torch.cat([time, y], 1)))
    bound = (9 * 4) ** -0.5
    assert all(weights.abs().max() <= bound for weights in layer.parameters())


def test_gradients_of_the_field_are_right():
    torch.manual_seed(0)
    field = ConvolutionalField(4)
    y = torch.randn(2, 4, 3, 3, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: field(torch.tensor(0.3), y), y)


def test_ode_net_and_rk_net_have_one_gradient():
    x, labels = torch.rand(2, 1, 28, 28), torch.tensor([3, 7])
    gradients = []
    for gradient in ("discrete", "autograd"):
        torch.manual_seed(1)
        model = ode_net(gradient=gradient, rtol=1e-2, atol=1e-2, coupling="joint", method="bosh3")
        model.loss(x, labels).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-10)


def test_refusals(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="has no file train-images"):
        run(tmp_path / "run", f"data={tmp_path}")
    assert not (tmp_path / "run").exists()
    for assignment, message in (
        ("subset=3", "at least 5 images"),
        ("tolerance=2", "tolerance is 2"),
        ("batch=0", "batch is 0"),
        ("learning_rate=0", "learning_rate is 0"),
    ):
        with pytest.raises(InputError, match=message):
            run(tmp_path / "run", assignment)
