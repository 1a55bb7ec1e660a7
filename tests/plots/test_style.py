import matplotlib.pyplot as plt
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
    with pytest.raises(InputError, match="cannot write"):
        plots.save(plots.state_space([[0.0, 1.0]]), tmp_path / "none" / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_drawing_on_the_users_axes_keeps_to_it():
    _, (left, right) = plt.subplots(1, 2)
    assert plots.trajectories([0.0, 1.0], [1.0, 2.0], ax=left) is left
    assert plots.loss_curve([{"epoch": 1, "loss": 1.0}], ax=right) is right
    assert len(plt.get_fignums()) == 1
