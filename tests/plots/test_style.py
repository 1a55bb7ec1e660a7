import matplotlib.pyplot as plt
import numpy as np
import pytest

from odeum import plots
from odeum.errors import InputError


def test_save_writes_a_whole_file_and_closes_the_figure(tmp_path):
    for ending in ("png", "svg", "pdf"):
        path = plots.save(plots.state_space([[0.0, 1.0], [1.0, 0.0]]), tmp_path / f"a.{ending}")
        assert path.stat().st_size > 1000
    plots.save(plots.trajectory_panels([0.0, 1.0], [[1.0, 2.0], [3.0, 4.0]]), tmp_path / "b.png")
    assert plt.get_fignums() == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pdf", "a.png", "a.svg", "b.png"]


def test_save_refuses_and_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError, match=r"\.png, \.svg or \.pdf"):
        plots.save(plots.state_space([[0.0, 1.0]]), tmp_path / "a.docx")
    with pytest.raises(InputError, match="cannot be written"):
        plots.save(plots.state_space([[0.0, 1.0]]), tmp_path / "none" / "a.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("n", "above"), [(21, True), (200, False)])
def test_observations_never_hide_the_line(n, above):
    ts = np.linspace(0.0, 6.0, n)
    ys = np.stack([np.sin(ts), np.cos(ts)], -1)
    over_time = plots.trajectory_panels(ts, ys, observed=(ts, ys))[0]
    in_plane = plots.phase_portrait(
        lambda t, y: -y, xlim=(-1, 1), ylim=(-1, 1), trajectories=ys, observed=ys
    )
    for ax in (over_time, in_plane):
        (dots,) = (x for x in ax.lines if x.get_marker() == "o" and len(x.get_xdata()) == n)
        line = max(
            (x for x in ax.lines if x.get_linestyle() == "-" and len(x.get_xdata()) == n),
            key=lambda x: x.get_zorder(),
        )
        assert (dots.get_zorder() > line.get_zorder()) == above


def test_drawing_on_the_users_axes_keeps_to_it():
    _, (left, right) = plt.subplots(1, 2)
    assert plots.trajectories([0.0, 1.0], [1.0, 2.0], ax=left) is left
    assert plots.loss_curve([{"epoch": 1, "loss": 1.0}], ax=right) is right
    assert len(plt.get_fignums()) == 1
