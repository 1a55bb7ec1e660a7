import math

import numpy as np
import pytest

from odeum import plots
from odeum.errors import InputError


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_evaluations_of_every_training_over_its_steps():
    trainings = {
        "plain": [{"step": k, "n_evaluations": 20 + k} for k in range(1, 6)],
        "augmented": [
            {"step": 1, "n_evaluations": 14.0},
            {"step": 2, "n_evaluations": None},
            {"step": 3, "n_evaluations": math.nan},
            {"step": 4, "n_evaluations": 20},
        ],
    }
    ax = plots.evaluations(trainings)
    assert legend(ax) == ["plain", "augmented"]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [21, 22, 23, 24, 25])
    np.testing.assert_array_equal(ax.lines[1].get_xydata(), [[1, 14], [4, 20]])
    other = plots.evaluations({"a": [{"epoch": 1, "back": 3}]}, of="back", over="epoch")
    assert other.get_xlabel() == "epoch"
    assert other.get_legend() is None


def test_relation_draws_dots_and_where_both_are_equal():
    ax = plots.relation(
        {"adjoint": ([20, 26, 32], [10, 14, 40])}, names=("forward", "backward"), equality=True
    )
    assert legend(ax) == ["adjoint", "equal"]
    dots, line = ax.lines
    assert dots.get_linestyle() == "None"
    np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("forward", "backward")


def test_relation_with_logarithms():
    ax = plots.relation(
        {"a": ([1e-3, 1e-5], [20, 44])}, names=("x", "y"), joined=True, logarithmic=(True, True)
    )
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    ax.figure.canvas.draw()


def test_refusals():
    with pytest.raises(InputError, match="without metrics"):
        plots.evaluations({"a": []})
    with pytest.raises(InputError, match="lack 'n_evaluations'"):
        plots.evaluations({"a": [{"step": 1}]})
    with pytest.raises(InputError, match="as many of one"):
        plots.relation({"a": ([1, 2], [1])}, names=("x", "y"))
    with pytest.raises(InputError, match="nothing to draw"):
        plots.relation({"a": ([None], [1])}, names=("x", "y"))
