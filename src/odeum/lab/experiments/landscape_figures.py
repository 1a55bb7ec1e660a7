"""The pictures of the landscape experiment: losses along lines and over planes, and ways on them.

Decides what is shown; how it is drawn is for `odeum.plots`.
"""

from dataclasses import dataclass
from functools import partial

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from odeum import plots
from odeum.lab.experiments.landscape_survey import Survey, true_matrix
from odeum.lab.experiments.starts import Spans, Starts, losses
from odeum.lab.wording import number
from odeum.plots import style
from odeum.types import Tensor


def draw_sweeps(survey: Survey, before: Tensor, tables: dict[str, Tensor]) -> None:
    """Losses against alpha: after training, beside the true matrix and a field at rest; before."""
    truth = float(survey.judge(true_matrix().to(survey.start)[None]))
    after = {"plain SGD": tables["plain"], "every gradient clipped": tables["clipped"]}
    survey.study.draw(
        "final_loss.png",
        _panels(survey, after, lines=(truth, survey.still)),
        title="After training.",
        caption=f"The loss after {survey.options.epochs} epochs against the shift of the start, "
        "sweep by sweep. Grey lines: the loss of the true matrix, below, and of a solution that "
        "is zero, above. A cross is a training that was lost: its numbers ceased to be finite.",
        alt="Final loss against the shift of the start in five panels",
        section="Sweeps",
    )
    survey.study.draw(
        "initial_loss.png",
        _panels(survey, {"before training": before}),
        title="Before training.",
        caption="The loss of the starts themselves. To the right solutions grow like an "
        "exponential of the shift: a cliff of many powers of ten.",
        alt="Initial loss against the shift of the start in five panels",
        section="Sweeps",
    )


def _panels(survey: Survey, curves: dict[str, Tensor], lines: tuple[float, ...] = ()) -> Figure:
    """One panel a sweep, in two rows, with one legend."""
    with style.applied():
        figure = plt.figure(figsize=(9.0, 5.4), layout="constrained")
        grid = figure.add_gridspec(2, 6)
        places = [grid[0, 0:2], grid[0, 2:4], grid[0, 4:6], grid[1, 0:3], grid[1, 3:6]]
        by_sweep = {label: survey.split(losses) for label, losses in curves.items()}
        for i, (sweep, place) in enumerate(zip(survey.sweeps, places, strict=True)):
            ax = figure.add_subplot(place)
            for height in lines:
                ax.axhline(height, color=style.FAINT, linewidth=0.9, linestyle="--", zorder=0)
            shown = {label: parts[i] for label, parts in by_sweep.items()}
            plots.landscape_1d(sweep.alpha, shown, name=rf"$\alpha$, {sweep.name}", ax=ax)
            legend = ax.get_legend()
            assert legend is not None
            if i == 0 and len(curves) > 1:
                handles = [handle for handle in legend.legend_handles if handle is not None]
                labels = [text.get_text() for text in legend.get_texts()]
                figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
            legend.remove()
    return figure


@dataclass(frozen=True, eq=False)
class _Plane:
    """A plane in the space of matrices: where it lies, and how a matrix is projected on it.

    Attributes:
        names: of the coordinates.
        origin: [2, 2].
        axes: the matrix that one unit of each coordinate adds, orthogonal, [2, 2, 2].
    """

    names: tuple[str, str]
    origin: Tensor
    axes: Tensor

    def matrices(self, x: Tensor, y: Tensor) -> Tensor:
        """The matrices of a grid, [y * x, 2, 2]."""
        grid = torch.cartesian_prod(y, x)
        return self.origin + torch.einsum("ni,ijk->njk", grid.flip(-1), self.axes)

    def project(self, matrices: Tensor) -> Tensor:
        """Coordinates [..., 2] of matrices [..., 2, 2]."""
        squares = self.axes.square().sum((1, 2))
        return torch.einsum("...jk,ijk->...i", matrices - self.origin, self.axes) / squares


def draw_slices(survey: Survey, ways: dict[str, Starts]) -> None:
    """The loss over planes through the starts and through the true matrix."""
    everything = survey.sweeps[0].pattern.to(survey.start)
    truth = true_matrix().to(survey.start)
    columns = _Plane(
        ("shift of the first column", "shift of the second column"),
        survey.start,
        torch.stack([everything * e for e in torch.eye(2).to(everything)]),
    )
    turning = _Plane(
        ("growth rate", "angular velocity"),
        torch.zeros_like(survey.start),
        torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, -1.0], [1.0, 0.0]]]).to(survey.start),
    )
    whole = survey.cut(torch.tensor([0]), survey.options.n_times)
    on_the_way = "the ways of trainings, projected on the plane"
    for file, plane, window, spans, followed, told in (
        (
            "slice_columns.png",
            columns,
            ((-20.0, 20.0), (-20.0, 20.0)),
            survey.judged,
            "extreme",
            "The plane that holds all sweeps: along the axes and along the diagonal. With "
            f"{on_the_way}, from the extreme starts",
        ),
        (
            "slice_columns_near.png",
            columns,
            ((-5.0, 5.0), (-5.0, 5.0)),
            survey.judged,
            "near",
            f"The same from near, with {on_the_way}",
        ),
        (
            "slice_spiral.png",
            turning,
            ((-3.0, 3.0), (-5.0, 5.0)),
            survey.judged,
            "near",
            f"Matrices that turn and grow or shrink, the true one among them, with {on_the_way}",
        ),
        (
            "slice_spiral_whole.png",
            turning,
            ((-0.5, 0.2), (0.0, 2.0)),
            whole,
            "",
            "The same plane, near, where the loss is that of the whole trajectory at once",
        ),
    ):
        x, y = (
            torch.linspace(*limits, survey.options.n_slice, dtype=torch.float64).to(survey.start)
            for limits in window
        )
        found = survey.study.once(f"losses, {file}", partial(_losses_over, plane, x, y, spans))
        marks = {"true": plane.project(truth)} if plane is turning else None
        ax = plots.landscape_2d(
            x,
            y,
            found.reshape(len(y), len(x)),
            names=plane.names,
            paths=_projected(survey, plane, ways["clipped"], followed),
            marks=marks,
        )
        survey.study.draw(
            file,
            ax,
            title="A slice.",
            caption=f"{told}; {survey.options.n_slice} by {survey.options.n_slice} matrices, one "
            "solve.",
            alt=f"Contour map of the loss over {plane.names[0]} and {plane.names[1]}",
            section="Slices",
        )


def _losses_over(plane: _Plane, x: Tensor, y: Tensor, spans: Spans) -> Tensor:
    """Losses of the matrices of a grid, [y * x]."""
    return losses(plane.matrices(x, y), spans).cpu()


def _projected(
    survey: Survey, plane: _Plane, trained: Starts, followed: str
) -> dict[str, Tensor] | None:
    """Ways over a plane, those that arrive apart from those that do not."""
    if not followed or not survey.followed[followed]:
        return None
    rows = survey.rows(followed)
    arrived = (trained.ways_losses[-1, rows] < survey.learned_below).cpu()
    ways = plane.project(trained.ways[:, rows]).cpu()
    parts = {"does not learn": ways[:, ~arrived], "learns": ways[:, arrived]}
    return {label: way for label, way in parts.items() if way.shape[1]}


def draw_extremes(survey: Survey, ways: dict[str, Starts]) -> None:
    """The loss of the extreme starts by epoch."""
    alphas = torch.cat([sweep.alpha for sweep in survey.sweeps])[survey.followed["extreme"]]
    curves = {
        f"{kind}, shifted by {number(alpha, trim=True)}": trained.ways_losses[:, row]
        for kind, trained in ways.items()
        for row, alpha in zip(survey.rows("extreme"), alphas.tolist(), strict=True)
    }
    if not curves:
        return
    n_points = len(ways["plain"].ways_losses)
    epochs = [min(point * survey.every, survey.options.epochs) for point in range(n_points)]
    survey.study.draw(
        "extremes.png",
        plots.landscape_1d(epochs, curves, name="epoch"),
        title="Extreme starts.",
        caption="The loss by epoch from far out on either side, all entries shifted. Crosses: "
        "the training is lost.",
        alt="Loss by epoch of trainings from extreme starts",
        section="Sweeps",
    )
