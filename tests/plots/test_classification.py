import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from mpl_toolkits.mplot3d.art3d import Line3DCollection

from odeum import plots
from odeum.errors import InputError
from odeum.plots import style

TS = torch.linspace(0, 2, 9)
LABELS = torch.tensor([1, 0, 1, 1])


def states(dim):
    torch.manual_seed(0)
    return torch.randn(4, dim) * TS.exp()[:, None, None]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_every_example_goes_its_way_in_the_colour_of_its_class():
    ys = states(2)
    ax = plots.depth_trajectories(TS, ys, LABELS, names=["u", "v"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("u", "v")
    assert legend(ax) == ["class 0", "class 1"]
    zero, one = [c for c in ax.collections if isinstance(c, LineCollection)]
    np.testing.assert_allclose(zero.get_segments()[0], ys[:, 1])
    assert len(one.get_segments()) == 3
    ends = {line.get_color(): line.get_xydata() for line in ax.lines}
    np.testing.assert_allclose(ends[style.COLOURS[1]], ys[-1, [0, 2, 3]])
    low, high = ax.get_xlim()
    assert low < ys[..., 0].min() < ys[..., 0].max() < high


@pytest.mark.parametrize(
    ("dim", "over_depth", "name", "first"),
    [(1, False, "rectilinear", "depth t"), (2, True, "3d", "depth t"), (3, False, "3d", "a")],
)
def test_depth_is_an_axis_where_there_is_room(dim, over_depth, name, first):
    ax = plots.depth_trajectories(
        TS, states(dim), LABELS, names=list("abc")[:dim], over_depth=over_depth
    )
    assert (ax.name, ax.get_xlabel()) == (name, first)
    if name == "3d":
        drawn = [c for c in ax.collections if isinstance(c, Line3DCollection)]
        assert len(drawn) == 2
    ax.figure.canvas.draw()


@pytest.mark.parametrize("dim", [2, 3])
def test_animation_moves_every_example_to_where_it_ends(dim):
    ys = states(dim)
    moving = plots.depth_animation(TS, ys, LABELS, tail=2)
    drawn = moving._func(len(TS) + 1)  # held at the end
    assert drawn[0].get_text() == "depth t = 2.00"
    dots = drawn[2]
    place = dots.get_data_3d() if dim == 3 else dots.get_data()
    np.testing.assert_allclose(np.transpose(place), ys[-1, 1:2])
    moving._func(0)
    moving._draw_was_started = True  # matplotlib warns where none of the frames was drawn


def test_regions_have_the_colour_of_the_likely_class():
    points = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])

    def classify(x):
        assert not torch.is_grad_enabled()
        return 50 * torch.stack([-x[:, 0], x[:, 0]], -1)

    ax = plots.class_regions(classify, points, [0, 1, 1], xlim=(-2, 2), ylim=(-3, 3), n_grid=11)
    image = ax.images[0].get_array()
    assert (ax.get_xlim(), ax.get_ylim()) == ((-2, 2), (-3, 3))
    blue, orange = image[5, 0], image[5, -1]
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]
    np.testing.assert_allclose(image[:, 5], 1.0, atol=1e-9)  # undecided
    assert legend(ax) == ["class 0", "class 1"]


def test_refusals():
    with pytest.raises(InputError, match=r"labels \[3\]"):
        plots.depth_trajectories(TS, states(2), [0, 1, 0])
    with pytest.raises(InputError, match="whole numbers"):
        plots.depth_trajectories(TS, states(2), [0, 1, 0.5, 1])
    with pytest.raises(InputError, match="at most three axes"):
        plots.depth_trajectories(TS, states(3), LABELS, over_depth=True)
    with pytest.raises(InputError, match="of 2 or 3"):
        plots.depth_animation(TS, states(1), LABELS)
    with pytest.raises(InputError, match="those of a plane"):
        plots.class_regions(lambda x: x, torch.zeros(2, 3), [0, 1])
