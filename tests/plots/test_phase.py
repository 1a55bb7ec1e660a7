import numpy as np
import pytest
import torch
from matplotlib.quiver import Quiver

from odeum import plots
from odeum.errors import InputError


def spiral(t, y):
    return y @ y.new_tensor([[-0.1, 1.0], [-1.0, -0.1]])


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_portrait_shows_everything_it_was_given():
    path = torch.linspace(0, 2, 30)[:, None].expand(30, 2)
    seen = torch.tensor([[1.0, 1.0], [torch.nan, 0.5], [0.2, -0.3]])
    ax = plots.phase_portrait(
        spiral,
        xlim=(-2, 2),
        ylim=(-2, 2),
        trajectories={"true": path, "learned": -path},
        observed=seen,
        names=["x", "y"],
        nullclines=True,
    )
    assert labels(ax) == [
        "x at rest",
        "y at rest",
        "true",
        "learned",
        "start",
        "observed",
        "stable focus",
    ]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")
    assert (ax.get_xlim(), ax.get_ylim()) == ((-2, 2), (-2, 2))
    assert ax.figure.axes[1].get_ylabel() == "speed |dy/dt|"
    dots = [line for line in ax.lines if len(line.get_xdata()) == 2]
    assert len(dots) == 1  # the observation with a gap is left out


def test_field_is_called_in_one_batch_without_gradients_at_the_time_given():
    calls = []

    class Field(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

        def forward(self, t, y):
            calls.append((t, y, torch.is_grad_enabled()))
            return -self.rate * y

    plots.phase_portrait(Field(), xlim=(0, 1), ylim=(5, 6), at_t=2.5, fixed_points=False)
    ((t, y, grad_enabled),) = calls
    assert t.shape == (len(y), 1)
    assert (t == 2.5).all()
    assert y.dtype == torch.float64
    assert not grad_enabled
    assert y.aminmax(dim=0).min.tolist() == [0, 5]
    assert y.aminmax(dim=0).max.tolist() == [1, 6]


def test_slice_holds_the_other_components_at_base():
    seen = []

    def field(t, y):
        seen.append(y)
        return -y

    ax = plots.phase_portrait(
        field,
        xlim=(0, 1),
        ylim=(2, 3),
        dims=(2, 0),
        base=[9.0, 7.0, 9.0],
        names=["a", "b", "c"],
        fixed_points=False,
    )
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("c", "a")
    assert (seen[0][:, 1] == 7).all()
    assert seen[0][:, 2].max() == 1
    assert seen[0][:, 0].max() == 3


def test_field_with_holes_is_drawn_where_it_is_defined():
    ax = plots.phase_portrait(lambda t, y: -y.sqrt(), xlim=(-4, 4), ylim=(-2, 2))
    ax.figure.canvas.draw()
    with pytest.raises(InputError, match="finite anywhere"):
        plots.phase_portrait(lambda t, y: y * torch.nan, xlim=(0, 1), ylim=(0, 1))


def test_resting_field_is_drawn():
    for ax in (
        plots.phase_portrait(lambda t, y: 0 * y, xlim=(0, 1), ylim=(0, 1)),
        plots.vector_field(lambda t, y: 0 * y, (0, 1), (0, 1)),
    ):
        ax.figure.canvas.draw()


def test_arrows_point_along_the_field_and_grow_with_speed():
    ax = plots.vector_field(lambda t, y: y * y.new_tensor([1.0, 10.0]), (1, 5), (1, 9), n_arrows=5)
    (arrows,) = [artist for artist in ax.collections if isinstance(artist, Quiver)]
    x, y = np.meshgrid(np.linspace(1, 5, 5), np.linspace(1, 9, 5))
    np.testing.assert_allclose(arrows.V / arrows.U, (10 * y / x).ravel(), rtol=1e-6)
    length = np.hypot(arrows.U, arrows.V)
    speed = np.hypot(x, 10 * y).ravel()
    np.testing.assert_allclose(arrows.get_array(), speed, rtol=1e-6)
    assert (np.diff(length[np.argsort(speed)]) >= 0).all()
    assert length.max() == pytest.approx(1.0)


def test_trajectories_of_another_state_are_refused():
    with pytest.raises(InputError, match="whole states"):
        plots.phase_portrait(spiral, xlim=(0, 1), ylim=(0, 1), trajectories=torch.zeros(4, 3))
