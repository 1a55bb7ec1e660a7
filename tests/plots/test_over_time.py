import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from odeum import plots
from odeum.errors import InputError

TS = torch.linspace(0, 10, 101, dtype=torch.float64)
YS = torch.stack([TS.sin(), TS.cos()], -1)


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_one_model_with_observations_and_held_out_part():
    seen = YS[::10].clone()
    seen[3, 0] = torch.nan
    ax = plots.trajectories(
        TS,
        YS,
        names=["hare", "lynx"],
        time_name="year",
        observed=(TS[::10], seen),
        held_out_from=8.0,
        label="learned",
    )
    assert ax.get_xlabel() == "year"
    assert labels(ax) == ["hare", "lynx", "learned", "observed", "held out"]
    lines, dots = ax.lines[:2], ax.lines[2:]
    np.testing.assert_array_equal(lines[1].get_ydata(), YS[:, 1])
    # The gap in the first component has no dot; each component's dots have its colour.
    assert [len(line.get_xdata()) for line in dots] == [10, 11]
    assert [line.get_color() for line in dots] == [line.get_color() for line in lines]
    (span,) = ax.patches
    assert span.get_x() == 8.0
    assert span.get_x() + span.get_width() == pytest.approx(ax.get_xlim()[1])


@pytest.mark.parametrize("mapping", [True, False])
def test_models_overlay_with_dashes_and_without_repeated_entries(mapping):
    if mapping:
        ax = plots.trajectories({"a": (TS, YS), "b": (TS, YS + 1)}, names=["x", "y"])
    else:
        ax = plots.trajectories(TS, YS, names=["x", "y"], label="a", held_out_from=9.0)
        longer = torch.cat([TS, TS[-1:] + 5])
        ax = plots.trajectories(
            longer, torch.cat([YS, YS[-1:]]), names=["x", "y"], label="b", ax=ax
        )
        (span,) = ax.patches
        assert span.get_x() == 9.0
        assert span.get_x() + span.get_width() >= 15.0
    assert [label for label in labels(ax) if label != "held out"] == ["x", "y", "a", "b"]
    assert [line.get_linestyle() for line in ax.lines] == ["-", "-", "--", "--"]
    assert [line.get_color() for line in ax.lines[:2]] == [
        line.get_color() for line in ax.lines[2:]
    ]


def test_legend_stays_clear_of_the_data():
    ax = plots.trajectories(
        TS, YS, names=["a long name (mg/l)", "another long name (mg/l)"], label="m"
    )
    ax.figure.canvas.draw()
    assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1


def test_batch_rows_share_a_colour_and_have_their_own_times():
    ts = torch.stack([TS, TS + 1], -1)
    ax = plots.trajectories(ts, torch.stack([YS, YS + 1], 1), names=["x", "y"])
    assert len(ax.lines) == 4
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), TS + 1)
    assert ax.lines[0].get_color() == ax.lines[1].get_color()


def test_panels_give_each_component_its_axes_and_each_model_its_colour():
    axes = plots.trajectory_panels({"a": (TS, YS)}, names=["x", "y"], observed=(TS, YS))
    plots.trajectory_panels(TS, YS, names=["x", "y"], label="b", axes=axes)
    assert [ax.get_ylabel() for ax in axes] == ["x", "y"]
    assert axes[-1].get_xlabel() == "time"
    assert labels(axes[0]) == ["a", "observed", "b"]
    colours = {to_hex(line.get_color()) for line in axes[0].lines if line.get_linestyle() == "-"}
    assert len(colours) == 2
    with pytest.raises(InputError, match="give one for each"):
        plots.trajectory_panels(TS, YS, axes=axes[:1])


def test_names_that_would_break_matplotlib_are_drawn_as_they_are():
    ax = plots.trajectories(TS, YS, names=["_cost $ (US$)", r"$\broken{"], label="$")
    ax.figure.canvas.draw()
    assert len(labels(ax)) == 3
    assert labels(ax)[0].strip() == r"_cost \$ (US\$)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ts": TS}, "ys is missing"),
        ({"ts": TS[:5], "ys": YS}, "same leading time axis"),
        ({"ts": TS, "ys": YS, "names": ["x"]}, "2 components"),
        ({"ts": TS, "ys": YS, "observed": (TS, YS[:, :1])}, "number of components"),
        ({"ts": {}, "ys": None}, "empty mapping"),
        ({"ts": {"a": (TS, YS)}, "label": "b"}, "keys are the labels"),
        ({"ts": TS, "ys": YS[:, None, None]}, "flatten"),
    ],
)
def test_wrong_input_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        plots.trajectories(**arguments)


def test_state_space_draws_paths_in_two_and_three_dimensions():
    ax = plots.state_space({"a": YS, "b": YS + 1}, names=["x", "y"])
    assert labels(ax) == ["a", "b", "start"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")
    helix = torch.cat([YS, TS[:, None]], -1)
    ax = plots.state_space(helix, ts=TS, names=["x", "y", "z"], time_name="t")
    assert ax.get_zlabel() == "z"
    (path,) = ax.collections
    assert len(path.get_array()) == len(TS) - 1
    assert ax.figure.axes[1].get_ylabel() == "t"
    with pytest.raises(InputError, match="2 or 3 components"):
        plots.state_space(torch.zeros(5, 4))
    with pytest.raises(InputError, match="3d"):
        plots.state_space(helix, ax=plots.state_space(YS))
