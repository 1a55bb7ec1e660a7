import copy
import math

import torch
from torch import nn

from odeum.models import Augmented, LinearField, MLPField, ODEBlock, ODEClassifier


def test_loss_and_metrics_are_those_of_the_logits():
    model = ODEClassifier(ODEBlock(MLPField(2)), nn.Linear(2, 3), encoder=nn.Linear(4, 2))
    x, labels = torch.randn(7, 4), torch.arange(7) % 3
    logits = model.head(model.block(model.encoder(x)))
    assert torch.equal(model(x), logits)
    chosen = logits.log_softmax(-1)[torch.arange(7), labels]
    torch.testing.assert_close(model.loss(x, labels), -chosen.mean())
    metrics = model.metrics(x, labels)
    assert list(metrics) == ["accuracy", "loss"]
    right = sum(int(row.argmax()) == int(label) for row, label in zip(logits, labels, strict=True))
    assert math.isclose(float(metrics["accuracy"]), right / 7)
    assert not any(value.requires_grad for value in metrics.values())


def test_trajectories_start_at_the_encoded_and_end_at_the_block_output():
    block = Augmented(ODEBlock(MLPField(3), rtol=1e-9, atol=1e-9), 1)
    model = ODEClassifier(block, nn.Linear(3, 2))
    x = torch.randn(5, 2)
    states = model.trajectories(x, torch.linspace(0, 1, 6))
    assert torch.equal(states[0], block.augment(x))
    torch.testing.assert_close(states[-1], block(x), rtol=1e-7, atol=1e-7)
    assert model.stats is block.model.stats


def test_learns_what_a_flow_can_tell_apart():
    torch.manual_seed(0)
    x = torch.randn(64, 2)
    labels = (x[:, 0] > 0).long()
    model = ODEClassifier(ODEBlock(LinearField(2), method="bosh3", rtol=1e-2), nn.Linear(2, 2))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    before = model.loss(x, labels).item()
    for _ in range(30):
        optimiser.zero_grad()
        model.loss(x, labels).backward()
        optimiser.step()
    assert model.loss(x, labels).item() < before / 4
    assert float(model.metrics(x, labels)["accuracy"]) > 0.95


def test_is_copied_and_restored():
    def make():
        return ODEClassifier(ODEBlock(MLPField(2)), nn.Linear(2, 2))

    model, other = make(), make()
    x = torch.randn(3, 2)
    expected = model(x)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), expected)
    assert torch.equal(copy.deepcopy(model)(x), expected)
