import math

import pytest
import torch

from odeum import plots
from odeum.errors import InputError
from odeum.plots.fixed_points import classify


def linear(matrix):
    matrix = torch.tensor(matrix, dtype=torch.float64)
    return lambda t, y: y @ matrix.T.to(y)


def lotka_volterra(t, y):
    prey, predator = y.unbind(-1)
    return torch.stack(
        [1.1 * prey - 0.4 * prey * predator, 0.1 * prey * predator - 0.4 * predator], -1
    )


def lorenz(t, y):
    a, b, c = y.unbind(-1)
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], -1)


def found(points):
    return [(tuple(round(float(v), 4) + 0.0 for v in point.y), point.kind) for point in points]


@pytest.mark.parametrize(
    ("matrix", "kind"),
    [
        ([[-0.1, -1.0], [1.0, -0.1]], "stable focus"),
        ([[0.1, -1.0], [1.0, 0.1]], "unstable focus"),
        ([[0.0, -2.0], [1.0, 0.0]], "centre"),
        ([[-1.0, 0.0], [0.3, -2.0]], "stable node"),
        ([[1.0, 0.0], [0.3, 2.0]], "unstable node"),
        ([[1.0, 0.2], [0.3, -2.0]], "saddle"),
    ],
)
def test_linear_systems_are_classified(matrix, kind):
    assert found(plots.find_fixed_points(linear(matrix), (-2, 3), (-1, 2))) == [((0.0, 0.0), kind)]


def test_lotka_volterra_has_a_saddle_and_a_centre():
    base = torch.zeros(2, dtype=torch.float64)
    points = plots.find_fixed_points(lotka_volterra, (0, 20), (0, 10), base=base)
    assert found(points) == [((0.0, 0.0), "saddle"), ((4.0, 2.75), "centre")]
    # The linearisation at the centre turns at sqrt(1.1 * 0.4), as theory has it.
    assert points[1].eigenvalues.imag.abs().max().item() == pytest.approx(math.sqrt(0.44))


def test_a_slice_shows_the_fixed_points_that_lie_on_it():
    base = torch.tensor([0.0, 0.0, 27.0], dtype=torch.float64)
    side = math.sqrt(8 / 3 * 27)
    points = plots.find_fixed_points(lorenz, (-15, 15), (-15, 15), base=base)
    assert found(points) == [
        ((round(-side, 4), round(-side, 4), 27.0), "saddle"),
        ((round(side, 4), round(side, 4), 27.0), "saddle"),
    ]


@pytest.mark.parametrize(
    "field",
    [
        lambda t, y: torch.stack(
            [y[:, 0] ** 2 + 1, y[:, 1]], -1
        ),  # rests nowhere; starts where J = 0
        lambda t, y: torch.ones_like(y),
        lambda t, y: torch.zeros_like(y),  # fixed everywhere
        lambda t, y: torch.stack([y[:, 0], 0 * y[:, 1]], -1),  # a line of them
        lambda t, y: y * torch.nan,
    ],
)
def test_fields_without_isolated_fixed_points_have_none(field):
    assert plots.find_fixed_points(field, (-5, 10), (-2, 2)) == []


def test_fields_that_work_in_place_or_differentiate_inside_are_taken():
    def in_place(t, y):
        rate = torch.zeros_like(y)
        rate[:, 0] = y[:, 1]
        rate[:, 1] = -y[:, 0].sin()
        return rate

    def hamiltonian(t, y):
        energy = torch.func.grad(lambda z: (0.5 * z[:, 1] ** 2 - z[:, 0].cos()).sum())(y)
        return torch.stack([energy[:, 1], -energy[:, 0]], -1)

    base = torch.zeros(2, dtype=torch.float64)

    class Sine(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * ctx.saved_tensors[0].cos()

    def custom(t, y):
        return torch.stack([y[:, 1], -Sine.apply(y[:, 0])], -1)

    for field in (in_place, hamiltonian, custom):
        points = plots.find_fixed_points(field, (-1, 4), (-1, 1), base=base)
        assert found(points) == [((0.0, 0.0), "centre"), ((3.1416, 0.0), "saddle")]


def test_time_freezes_the_field():
    (point,) = plots.find_fixed_points(lambda t, y: t - y, (0, 4), (0, 4), at_t=3.0)
    assert point.y.tolist() == pytest.approx([3.0, 3.0])
    assert point.kind == "stable node"


def test_zero_eigenvalues_do_not_decide():
    assert classify(torch.tensor([0j, -1 + 0j])) == "degenerate"
    assert classify(torch.tensor([1j, -1j, -1 + 0j])) == "degenerate"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"xlim": (1, 1)}, "xlim"),
        ({"ylim": (0, math.inf)}, "ylim"),
        ({"dims": (0, 0)}, "dims"),
        ({"dims": (0, 2)}, "base was left out"),
        ({"field": lambda t, y: y[:, :1]}, "must return a tensor of the same shape"),
    ],
)
def test_wrong_input_is_named(arguments, message):
    arguments = {"field": lotka_volterra, "xlim": (0, 1), "ylim": (0, 1), **arguments}
    with pytest.raises(InputError, match=message):
        plots.find_fixed_points(**arguments)
