import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import LogNorm

from odeum import plots
from odeum.errors import InputError
from odeum.plots import style

X = np.linspace(-2, 2, 21)
Y = np.linspace(-1, 1, 11)
BOWL = 1e-2 + X**2 + Y[:, None] ** 2


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


class TestLine:
    def test_curves_are_logarithmic_and_crosses_stand_for_what_is_not_finite(self):
        losses = {
            "start": torch.tensor([1e3, 1.0, 1e-3, torch.inf], requires_grad=True),
            "end": [torch.nan, 0.1, 0.2, torch.nan],
        }
        ax = plots.landscape_1d([-1.0, 0.0, 1.0, 2.0], losses, name="shift")
        assert legend(ax) == ["start", "end", "not finite"]
        assert (ax.get_yscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "shift", "loss")
        start, lost, end, lost_too = ax.lines
        np.testing.assert_array_equal(start.get_ydata(), [1e3, 1.0, 1e-3, np.nan])
        np.testing.assert_array_equal(end.get_ydata(), [np.nan, 0.1, 0.2, np.nan])
        assert lost.get_xdata().tolist() == [2.0]
        assert lost_too.get_xdata().tolist() == [-1.0, 2.0]
        assert lost.get_ydata()[0] > lost_too.get_ydata()[0]
        assert lost_too.get_color() == end.get_color()

    def test_one_curve_without_label_needs_no_legend_and_a_zero_no_logarithm(self):
        ax = plots.landscape_1d([0, 1, 2], [0.0, 1.0, 4.0])
        assert ax.get_legend() is None
        assert ax.get_yscale() == "linear"
        ax.figure.canvas.draw()

    def test_a_point_between_two_gaps_can_be_seen(self):
        losses = np.full(101, 1.0)
        assert plots.landscape_1d(np.arange(101), losses).lines[0].get_marker() == "None"
        losses[[49, 51]] = np.nan
        assert plots.landscape_1d(np.arange(101), losses).lines[0].get_marker() == "o"

    @pytest.mark.parametrize(
        ("shifts", "losses", "message"),
        [
            ([0, 1], [1, 2, 3], "2 shifts"),
            ([1, 0], [1, 2], "increase"),
            ([0], [1], "at least two"),
            ([0, 1], {}, "empty mapping"),
        ],
    )
    def test_refuses(self, shifts, losses, message):
        with pytest.raises(InputError, match=message):
            plots.landscape_1d(shifts, losses)


class TestPlane:
    def test_draws_map_paths_marks_and_names(self):
        way = torch.tensor([[2.0, 1.0], [1.0, 0.5], [0.0, 0.0]])
        ax = plots.landscape_2d(
            X,
            Y,
            BOWL,
            names=["a", "b"],
            paths={"plain": way, "clipped": -way},
            marks={"true": (0, 0)},
        )
        assert legend(ax) == ["plain", "clipped", "start", "end", "true"]
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "b")
        assert (ax.get_xlim(), ax.get_ylim()) == ((-2, 2), (-1, 1))
        ends = [line.get_xydata().tolist() for line in ax.lines if line.get_marker() == "o"]
        assert ends == [[[0, 0]], [[0, 0]]]
        assert ax.figure.axes[1].get_ylabel() == "loss"

    def test_the_lowest_and_the_highest_loss_have_a_colour_of_their_own(self):
        ax = plots.landscape_2d(X, Y, BOWL)
        filled = ax.collections[0]
        assert isinstance(filled.norm, LogNorm)
        assert filled.norm.vmin == pytest.approx(BOWL.min())
        assert filled.norm.vmax == pytest.approx(BOWL.max())
        ax.set(position=(0, 0, 1, 1))
        ax.figure.set_layout_engine("none")
        ax.figure.canvas.draw()
        pixels = np.asarray(ax.figure.canvas.buffer_rgba())[..., :3] / 255

        def seen(x, y):
            column, row = ax.transData.transform((x, y))
            return pixels[len(pixels) - 1 - int(row), int(column)]

        pale, dark = (np.array(style.SPEED(end)[:3]) for end in (0.0, 1.0))
        assert np.abs(seen(0.02, 0.02) - pale).max() < 0.1
        assert np.abs(seen(-1.98, -0.98) - dark).max() < 0.1

    def test_colours_end_where_told(self):
        steep = 10.0 ** (100 * np.abs(X) * np.ones((11, 1)))
        ax = plots.landscape_2d(X, Y, steep, decades=3)
        assert ax.collections[0].norm.vmax == pytest.approx(1e3)
        ax.figure.canvas.draw()

    def test_what_is_not_finite_is_grey_and_said(self):
        holed = BOWL.copy()
        holed[:, 15:] = np.inf
        holed[0, 0] = np.nan
        ax = plots.landscape_2d(X, Y, holed, paths=[[[-2.0, 0.0]], [[np.nan, np.nan]]])
        assert legend(ax) == ["training", "start", "end", "not finite"]
        assert np.allclose(ax.get_facecolor()[:3], plt.matplotlib.colors.to_rgb(style.SHADE))
        ends = [line.get_xydata().tolist() for line in ax.lines if line.get_marker() == "o"]
        assert ends == [[[-2.0, 0.0]]]

    @pytest.mark.parametrize("losses", [np.zeros((11, 21)), np.ones((11, 21)), BOWL - 1])
    def test_any_range_of_losses_can_be_drawn(self, losses):
        plots.landscape_2d(X, Y, losses).figure.canvas.draw()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"losses": BOWL.T}, r"\[21, 11\] for 21 x and 11 y: give \[11, 21\]"),
            ({"losses": np.full((11, 21), np.nan)}, "no loss is finite"),
            ({"x": X[::-1]}, "x is"),
            ({"paths": [[0.0, 0.0, 0.0]]}, "end in 3 coordinates"),
            ({"names": ["a"]}, "2 components"),
            ({"decades": 0}, "decades is 0"),
        ],
    )
    def test_refuses(self, change, message):
        given = {"x": X, "y": Y, "losses": BOWL, **change}
        with pytest.raises(InputError, match=message):
            plots.landscape_2d(given.pop("x"), given.pop("y"), given.pop("losses"), **given)
