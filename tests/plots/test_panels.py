"""Several Axes in one figure, and histograms on them."""

import numpy as np
import pytest
import torch

from odeum import plots
from odeum.errors import InputError


def test_panels_fill_rows():
    axes = plots.panels(3, n_columns=2, share=True)
    figure = axes[0].get_figure()
    assert len(figure.axes) == 3
    axes[0].set_xlim(0, 7)
    assert axes[2].get_xlim() == (0, 7)


def test_panels_may_be_solid():
    axes = plots.panels(2, n_columns=2, projection="3d")
    assert {ax.name for ax in axes} == {"3d"}
    plots.state_space(torch.randn(5, 3), ax=axes[0])


def test_nothing_to_show_is_refused():
    with pytest.raises(InputError, match="0 panels in 2 columns"):
        plots.panels(0, n_columns=2)


def test_distributions_are_densities_over_shared_bins():
    samples = {"uniform": torch.rand(5000, 2), "wider": 2 * torch.rand(5000, 2)}
    axes = plots.distributions(samples, names=["x", "y"], n_bins=20)
    assert [ax.get_xlabel() for ax in axes] == ["x", "y"]
    for i, ax in enumerate(axes):
        outlines = [patch.get_data() for patch in ax.patches]
        assert len(outlines) == 2
        for (values, edges, _), (label, sample) in zip(outlines, samples.items(), strict=True):
            assert np.sum(values * np.diff(edges)) == pytest.approx(1)
            expected, _ = np.histogram(sample[:, i].numpy(), edges, density=True)
            assert np.allclose(values, expected), label
        assert np.array_equal(outlines[0][1], outlines[1][1])
    assert [x.get_text() for x in axes[0].get_legend().get_texts()] == ["uniform", "wider"]


def test_samples_that_do_not_belong_together_are_refused():
    with pytest.raises(InputError, match="one dim for all"):
        plots.distributions({"a": torch.rand(5, 2), "b": torch.rand(5, 3)})
    with pytest.raises(InputError, match="not finite"):
        plots.distributions(torch.tensor([[1.0], [float("nan")]]))
