import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from odeum import plots
from odeum.errors import InputError

LIMITS = {"xlim": (-3.0, 3.0), "ylim": (-2.0, 2.0)}


def bump(centre):
    x, y = torch.linspace(-3, 3, 40), torch.linspace(-2, 2, 30)
    return (-((x[:, None] - centre[0]) ** 2) - (y - centre[1]) ** 2).exp()


def test_a_density_lies_where_it_is():
    axes = plots.density_panels({"a": bump((2.0, -1.0))}, **LIMITS)
    image = axes[0, 0].images[0]
    row, column = np.unravel_index(np.argmax(image.get_array()), (30, 40))
    left, right, bottom, top = image.get_extent()
    assert left + (column + 0.5) / 40 * (right - left) == pytest.approx(2.0, abs=0.15)
    assert bottom + (row + 0.5) / 30 * (top - bottom) == pytest.approx(-1.0, abs=0.15)
    assert image.origin == "lower"


def test_points_lie_under_their_density():
    grids = {"t = 0": bump((0.0, 0.0)), "t = 1": 3 * bump((1.0, 0.0))}
    axes = plots.density_panels(grids, {"t = 1": torch.ones(7, 2)}, names=("u", "v"), **LIMITS)
    assert axes.shape == (2, 2)
    assert not axes[1, 0].lines
    assert axes[1, 1].lines[0].get_xdata().shape == (7,)
    assert axes[1, 0].get_xlabel() == "u"
    assert axes[0, 0].get_ylabel() == "v"


def test_one_colour_is_one_density_where_asked():
    grids = {"a": bump((0.0, 0.0)), "b": 3 * bump((0.0, 0.0))}
    own, alike = (
        [ax.images[0].get_clim()[1] for ax in plots.density_panels(grids, alike=x, **LIMITS)[0]]
        for x in (False, True)
    )
    assert own[1] == pytest.approx(3 * own[0])
    assert alike[0] == alike[1] == pytest.approx(own[1])


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match="grids"):
        plots.density_panels({"a": torch.ones(3)}, **LIMITS)
    with pytest.raises(InputError, match="no such density"):
        plots.density_panels({"a": bump((0.0, 0.0))}, {"b": torch.ones(3, 2)}, **LIMITS)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")
