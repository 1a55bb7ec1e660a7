"""``odeum.fit``: one name for learning, whatever the data are."""

from typing import Any, overload

from torch import nn

from odeum.datasets import Trajectories
from odeum.lab.examples import Examples, Learned, fit_examples
from odeum.lab.learning import fit_trajectories
from odeum.lab.run import Run
from odeum.models import Learnable


@overload
def fit(model: nn.Module | str | None, data: Trajectories, **options: Any) -> Run: ...


@overload
def fit(model: Learnable, data: Examples, **options: Any) -> Learned: ...


def fit(model: Any, data: Any, **options: Any) -> Run | Learned:
    """Learns a model from data, and leaves a run directory with a report.

    From trajectories it learns a vector field, see :func:`odeum.lab.fit_trajectories`: in units
    that fit the data, on windows that grow, with the end of every trajectory held out. From
    examples it trains any model that has a ``loss``, as classifiers, flows and latent ODEs have,
    see :func:`odeum.lab.fit_examples`: batch by batch, with some of the examples held out.

    Args:
        model: for trajectories "mlp" (also None), "linear", a field that is a module, or a
            :class:`odeum.NeuralODE` of one; for examples a module with ``loss(*batch)``.
        data: :class:`odeum.datasets.Trajectories`; or examples: a tensor or tuple of tensors
            whose first axis are the examples, or a ``torch.utils.data.Dataset``.
        options: of :func:`odeum.lab.fit_trajectories` or :func:`odeum.lab.fit_examples`; both have
            ``name title out resume seed epochs holdout learning_rate weight_decay device quiet
            command``.

    Returns:
        The finished run, with ``path``, ``summary`` and the trained ``model``.

    Raises:
        InputError: for an argument that cannot be used.
        SolveError: if training never reached a finite loss.

    Example:
        >>> import tempfile, torch, odeum
        >>> y0, ts = torch.rand(20, 2), torch.linspace(0, 1, 5)
        >>> ys = (y0[:, None] * (-ts)[:, None].exp())
        >>> model = odeum.NeuralODE(odeum.models.LinearField(2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = fit(model, (y0, ts.expand(20, 5), ys), epochs=2, out=folder, quiet=True)
        ...     list(run.summary["result"])
        ['held_out_rmse', 'held_out_loss']
    """
    if isinstance(data, Trajectories) or not isinstance(model, Learnable):
        return fit_trajectories(model, data, **options)
    return fit_examples(model, data, **options)
