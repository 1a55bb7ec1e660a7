import copy

import pytest
import torch
from torch import nn

import odeum
from odeum.errors import InputError
from odeum.models import Augmented, LinearField, MLPField, NeuralODE, ODEBlock

TIGHT = {"method": "dopri5", "rtol": 1e-9, "atol": 1e-9}


class Convolution(nn.Module):
    """A field of channels: linear, so that its flow is a matrix exponential."""

    def __init__(self, channels):
        super().__init__()
        self.mixed = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, t, y):
        return self.mixed(y)


def test_gives_the_last_state():
    block = ODEBlock(LinearField(3), t0=0.5, t1=2.0, **TIGHT)
    x = torch.randn(4, 3)
    exact = x @ torch.matrix_exp(1.5 * block.field.linear.weight).T
    torch.testing.assert_close(block(x), exact, rtol=1e-7, atol=1e-7)
    ts = torch.tensor([0.5, 1.0, 2.0])
    torch.testing.assert_close(block.trajectories(x, ts)[-1], exact, rtol=1e-7, atol=1e-7)
    backwards = ODEBlock(block.field, t0=2.0, t1=0.5, **TIGHT)
    torch.testing.assert_close(backwards(block(x)), x, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("coupling", ["independent", "joint"])
def test_takes_images(coupling):
    block = ODEBlock(Convolution(2), coupling=coupling, **TIGHT)
    x = torch.randn(3, 2, 4, 5)
    one = torch.eye(40).view(40, 2, 4, 5)
    matrix = block.field(None, one).flatten(1).detach()  # of rows: y -> y @ matrix
    exact = (x.flatten(1) @ torch.matrix_exp(matrix)).view_as(x)
    torch.testing.assert_close(block(x), exact, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("gradient", ["discrete", "adjoint"])
def test_is_a_layer_that_counts_its_evaluations(gradient):
    calls = []

    class Counted(MLPField):
        def forward(self, t, y):
            calls.append(len(y))
            return super().forward(t, y)

    block = ODEBlock(Counted(2), gradient=gradient, rtol=1e-5)
    network = nn.Sequential(nn.Linear(5, 2), block, nn.Linear(2, 1))
    assert block.stats is None
    loss = network(torch.randn(6, 5)).square().mean()
    assert int(block.stats.n_evaluations.sum()) == sum(calls)
    assert block.stats.backward is None
    loss.backward()
    work = block.stats.backward
    if gradient == "discrete":  # of so few evaluations all are kept, and none needed anew
        assert torch.equal(work.n_accepted, block.stats.n_accepted)
    else:
        assert (work.n_evaluations > 0).all()
    assert all(weights.grad.abs().sum() > 0 for weights in network.parameters())


def test_gradients_pass_through():
    field = MLPField(3, hidden=(4,))
    model = Augmented(ODEBlock(field, gradient="discrete", **TIGHT), 1)
    x = torch.randn(2, 2, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: model(x), x)


def test_options_of_a_neural_ode_are_kept_and_can_be_changed():
    ode = NeuralODE(LinearField(2), method="bosh3", rtol=1e-2)
    block = ODEBlock(ode, rtol=1e-7)
    assert block.field is ode.field
    assert (block.options["method"], block.options["rtol"]) == ("bosh3", 1e-7)
    x, ts = torch.ones(1, 2), torch.tensor([0.0, 1.0])
    masked = block.solve(x, ts, step=odeum.StepOptions(max_steps=1), on_failure="mask")
    assert masked.status.tolist() == [odeum.Status.MAX_STEPS]
    assert block.stats is masked.stats


def test_blocks_are_copied_and_restored():
    block = Augmented(ODEBlock(MLPField(3)), 1)
    x = torch.randn(4, 2)
    expected = block(x)
    block(x).sum().backward()
    twin = copy.deepcopy(block)
    assert torch.equal(twin(x), expected)
    other = Augmented(ODEBlock(MLPField(3)), 1)
    other.load_state_dict(block.state_dict())
    assert torch.equal(other(x), expected)


def test_times_follow_the_state():
    block = ODEBlock(MLPField(2)).float()
    assert block(torch.ones(1, 2, dtype=torch.float32)).dtype == torch.float32


def test_augmentation_puts_zeros_beside_features_and_channels():
    x = torch.randn(3, 2)
    augmented = Augmented(nn.Identity(), 2)(x)
    assert torch.equal(augmented[:, :2], x)
    assert torch.equal(augmented[:, 2:], torch.zeros(3, 2))
    images = torch.randn(2, 3, 4, 5)
    augmented = Augmented(nn.Identity(), 1)(images)
    assert torch.equal(augmented[:, :3], images)
    assert torch.equal(augmented[:, 3:], torch.zeros(2, 1, 4, 5))
    assert Augmented(nn.Identity(), 1, axis=-1)(images).shape == (2, 3, 4, 6)


def test_what_the_zeros_became_can_be_left_out():
    x, ts = torch.randn(3, 2), torch.linspace(0, 1, 4)
    field = MLPField(3)
    whole = Augmented(NeuralODE(field), 1)(x, ts)
    assert whole.shape == (4, 3, 3)
    assert not torch.equal(whole[-1, :, 2], torch.zeros(3))
    assert torch.equal(Augmented(NeuralODE(field), 1, keep=False)(x, ts), whole[..., :2])
    block = Augmented(ODEBlock(Convolution(3)), 1, keep=False)
    images = torch.randn(2, 2, 4, 5)
    assert torch.equal(block(images), Augmented(block.model, 1)(images)[:, :2])
    assert block.trajectories(images, ts).shape == (4, 2, 2, 4, 5)
    assert block.stats is block.model.stats


def test_a_flow_with_an_extra_dimension_does_what_one_of_the_line_cannot():
    """x -> -x crosses itself on the line (Dupont et al. 2019, proposition 1)."""
    turn = LinearField(2)
    with torch.no_grad():
        turn.linear.weight.copy_(torch.pi * torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
    flipped = Augmented(ODEBlock(turn, **TIGHT), 1, keep=False)
    x = torch.tensor([[1.0], [-1.0]])
    torch.testing.assert_close(flipped(x), -x, rtol=1e-7, atol=1e-7)


def test_refusals():
    with pytest.raises(InputError, match=r"nn\.Module or a NeuralODE"):
        ODEBlock(lambda t, y: y)
    with pytest.raises(InputError, match="two different"):
        ODEBlock(LinearField(2), t0=1.0, t1=1.0)
    with pytest.raises(InputError, match="n_extra is 0"):
        Augmented(nn.Identity(), 0)
    with pytest.raises(InputError, match="axis 0 is the batch"):
        Augmented(nn.Identity(), 1, axis=0)


def test_a_state_in_half_precision_is_solved_in_single_precision():
    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2, dtype=torch.float32)

        def forward(self, t, y):
            assert y.dtype == torch.float32
            return self.linear(y).to(y.dtype)

    block = ODEBlock(Field())
    with torch.autocast("cpu", torch.bfloat16):
        y = block(torch.randn(3, 2, dtype=torch.bfloat16))
    assert y.dtype == torch.float32
    y.sum().backward()
    assert block.field.linear.weight.grad.abs().sum() > 0
