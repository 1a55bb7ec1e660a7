import math

import numpy as np
import pytest
import torch

from odeum import plots
from odeum.errors import InputError


def metrics(n=40):
    return [
        {"epoch": k, "loss": 1 / k, "held_out": 0.1 + abs(k - 30) / 10, "window": 4 + 4 * (k // 20)}
        for k in range(1, n + 1)
    ]


def test_loss_curve_marks_best_epoch_and_stages():
    ax = plots.loss_curve(metrics())
    assert ax.get_yscale() == "log"
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["training loss", "held-out error", "best epoch (30)"]
    stages = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"]
    assert stages == [19.5, 39.5]
    (star,) = [line for line in ax.lines if line.get_marker() == "*"]
    assert star.get_xydata().tolist() == [[30, pytest.approx(0.1)]]
    (top,) = ax.child_axes
    assert [text.get_text() for text in top.get_xticklabels()][:2] == ["4", "8"]


def test_loss_curve_survives_gaps_and_failed_epochs():
    rows = metrics(10)
    rows[3]["loss"] = math.nan
    rows[4]["loss"] = None
    for row in rows[1:]:
        row["held_out"] = None
    ax = plots.loss_curve(rows, best_epoch=1)
    loss, held_out = ax.lines[:2]
    np.testing.assert_array_equal(loss.get_xdata(), [1, 2, 3, 6, 7, 8, 9, 10])
    assert len(held_out.get_xdata()) == 1
    plots.loss_curve([{"epoch": 1, "loss": None}]).figure.canvas.draw()


@pytest.mark.parametrize(
    ("rows", "best", "message"),
    [([], None, "empty"), ([{"epoch": 1}], None, "lack 'loss'"), (metrics(), 99, "99")],
)
def test_loss_curve_refuses(rows, best, message):
    with pytest.raises(InputError, match=message):
        plots.loss_curve(rows, best_epoch=best)


def test_matrices_share_a_scale_and_show_their_numbers():
    true = torch.tensor([[-0.1, -1.0], [1.0, -0.1]], dtype=torch.float64)
    axes = plots.matrix_comparison(true, true + 0.0123, names=["x", "y"])
    assert [ax.get_title() for ax in axes] == ["true", "learned", "learned − true"]
    np.testing.assert_allclose(axes[2].images[0].get_array(), np.full((2, 2), 0.0123))
    assert {ax.images[0].get_clim() for ax in axes} == {(-1.0123, 1.0123)}
    assert [text.get_text() for text in axes[0].texts] == ["−0.100", "−1.000", "1.000", "−0.100"]
    assert [text.get_text() for text in axes[0].get_xticklabels()] == ["x", "y"]


def test_matrix_comparison_refuses_other_shapes():
    with pytest.raises(InputError, match=r"\[2, 2\] and \[3, 2\]"):
        plots.matrix_comparison(torch.zeros(2, 2), torch.zeros(3, 2))
    with pytest.raises(InputError, match="square"):
        plots.matrix_comparison(torch.zeros(2, 3), torch.zeros(2, 3), names=["x", "y"])
