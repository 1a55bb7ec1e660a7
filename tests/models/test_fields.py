import copy

import pytest
import torch

from odeum.errors import InputError
from odeum.models import ACTIVATIONS, LinearField, MLPField


def test_linear_field_is_the_matrix():
    field = LinearField(3, bias=True)
    y = torch.randn(5, 3)
    expected = torch.einsum("ij,bj->bi", field.linear.weight, y) + field.linear.bias
    torch.testing.assert_close(field(0.0, y), expected)
    assert LinearField(3).linear.bias is None


TRUTH = {
    "elu": lambda x: torch.where(x > 0, x, x.exp() - 1),
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "mish": lambda x: x * torch.tanh(torch.log1p(x.exp())),
    "relu": lambda x: x.clamp(min=0),
    "selu": lambda x: (
        1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * (x.exp() - 1))
    ),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "silu": lambda x: x / (1 + (-x).exp()),
    "sin": torch.sin,
    "softplus": lambda x: torch.log1p(x.exp()),
    "tanh": lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
}


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_is_what_its_name_says(name):
    field = MLPField(2, hidden=(4,), activation=name)
    y = torch.randn(7, 2)
    first, second = field.layers
    inner = TRUTH[name](y @ first.weight.T + first.bias)
    torch.testing.assert_close(field(0.0, y), inner @ second.weight.T + second.bias)


def test_all_activations_have_a_truth():
    assert set(TRUTH) == set(ACTIVATIONS)


@pytest.mark.parametrize("hidden", [(), (3,), (5, 4, 3)])
def test_shapes_of_the_state_are_kept(hidden):
    field = MLPField(2, hidden=hidden)
    assert [layer.out_features for layer in field.layers] == [*hidden, 2]
    for shape in ((2,), (6, 2), (4, 6, 2)):
        assert field(torch.tensor(0.0), torch.randn(shape)).shape == shape


def test_time_comes_as_number_scalar_or_per_row():
    field = MLPField(2, hidden=(4,), time_dependent=True)
    y = torch.randn(3, 2)
    at_half = field(0.5, y)
    torch.testing.assert_close(field(torch.tensor(0.5), y), at_half)
    torch.testing.assert_close(field(torch.full((3, 1), 0.5), y), at_half)
    torch.testing.assert_close(field(torch.tensor(0.5), y[0]), at_half[0])
    per_row = torch.tensor([[0.0], [0.5], [1.0]])
    rows = torch.stack([field(t, row) for t, row in zip(per_row[:, 0], y, strict=True)])
    torch.testing.assert_close(field(per_row, y), rows)
    assert not torch.allclose(rows, at_half)


def test_fields_are_copied_and_restored():
    field = MLPField(2, hidden=(4,), activation="sin")
    other = MLPField(2, hidden=(4,), activation="sin")
    y = torch.randn(3, 2)
    before = field(0.0, y)
    twin = copy.deepcopy(field)
    other.load_state_dict(field.state_dict())
    with torch.no_grad():
        field.layers[0].weight.add_(1)
    for same in (twin, other):
        torch.testing.assert_close(same(0.0, y), before)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(InputError, match="did you mean 'tanh'"):
        MLPField(2, activation="tahn")
    with pytest.raises(InputError, match="dim is 0"):
        LinearField(0)
    with pytest.raises(InputError, match=r"hidden is 2\.5"):
        MLPField(2, hidden=(2.5,))
