"""The one look of every odeum picture: colours, line styles, legends, figure sizes, saving.

Colours are Okabe & Ito's (2008) set for all kinds of colour vision, without its yellow, which
white paper swallows. Settings apply inside ``applied()`` only; matplotlib's own rcParams stay as
the user left them.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import Animation, PillowWriter
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.transforms import ScaledTranslation

from odeum.errors import InputError
from odeum.files import write_whole

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = ("-", "--", ":", "-.")
INK = "#222222"
FAINT = "#8a8a8a"
SHADE = "#ececec"

SPEED = LinearSegmentedColormap.from_list(
    "odeum_speed", ["#d3dfe6", "#9fc0cf", "#5f97b1", "#2f6a8c", "#123a5a"]
)
"""Slow is pale, fast is dark: order survives every kind of colour vision and a grey printer."""

_FORMULA = re.compile(r"\$(?=[^\s$])[^$]*(?<=\S)\$(?!\d)")
"""Pandoc's rule for telling a formula from sums of money."""

_FEW_DOTS = 60
"""Observations up to this many leave the line between them in sight."""

_SETTINGS: dict[str, Any] = {
    "figure.dpi": 200,
    "figure.facecolor": "white",
    "font.size": 10,
    "axes.facecolor": "white",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.formatter.use_mathtext": True,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@contextmanager
def applied() -> Iterator[None]:
    """Draw in odeum's style inside the block; the user's settings hold again after it.

    Example:
        >>> import matplotlib as mpl
        >>> before = mpl.rcParams["font.size"]
        >>> with applied():
        ...     mpl.rcParams["font.size"]
        10.0
        >>> mpl.rcParams["font.size"] == before
        True
    """
    with mpl.rc_context(_SETTINGS):  # type: ignore[arg-type]
        yield


def axes(ax: Axes | None, size: tuple[float, float], projection: str | None = None) -> Axes:
    """The given Axes, or the only one of a new figure of ``size`` inches, dressed in the style.

    Args:
        ax: where to draw, or None for a new pyplot figure.
        size: width and height of a new figure in inches.
        projection: None or ``"3d"``.

    Returns:
        The Axes.

    Raises:
        InputError: a 3-D picture was asked for on a flat Axes, or the other way round.
    """
    if ax is None:
        figure = plt.figure(figsize=size, layout="constrained")
        ax = figure.add_subplot(projection=projection)
    elif (ax.name == "3d") != (projection == "3d"):
        wanted = "add_subplot(projection='3d')" if projection else "a flat Axes"
        raise InputError(f"this picture needs {wanted}, but ax is a {ax.name!r} Axes")
    if projection is None:
        dress(ax)
    return ax


def dress(ax: Axes) -> None:
    """Give a flat Axes, whoever made it, the style's open frame and faint grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="#e9e9e9", linewidth=0.7)
    ax.set_axisbelow(True)


def dots(n: int, size: float) -> dict[str, Any]:
    """How ``n`` observations are drawn: over the lines, but small and pale under them in a crowd.

    Args:
        n: observations on one Axes.
        size: diameter in points where they are few.

    Returns:
        Properties of a Line2D, its colour left open.

    Example:
        >>> dots(21, 5.0)["zorder"], dots(200, 5.0)["zorder"]
        (4, 2.95)
    """
    shape: dict[str, Any] = {"linestyle": "none", "marker": "o"}
    if n <= _FEW_DOTS:
        white = {"markeredgecolor": "white", "markeredgewidth": 0.7}
        return {**shape, **white, "markersize": size, "zorder": 4}
    return {
        **shape,
        "markeredgewidth": 0,
        "markersize": max(2.0, 0.9 * size * (_FEW_DOTS / n) ** 0.25),
        "alpha": 0.5,
        "zorder": 2.95,
    }


def text(name: object) -> str:
    r"""``name`` as matplotlib can draw it: formulas where they parse, bare characters elsewhere.

    Column names are strangers' text: a lone ``$`` must not stop a picture, a leading underscore
    must not drop an entry from the legend.

    Example:
        >>> print(text("cost $ (US$)"), text(r"$\theta$"), text(r"$\nosuchthing$"))
        cost \$ (US\$) $\theta$ \$\nosuchthing\$
    """
    drawn = " ".join(str(name).split())
    if drawn.startswith("_"):
        drawn = "\u2009" + drawn  # a thin space: matplotlib hides labels that begin with "_"
    if "$" not in _FORMULA.sub("", drawn):
        try:
            MathTextParser("path").parse(drawn)
        except ValueError:
            pass
        else:
            return drawn
    return drawn.replace("$", r"\$")


def component_names(names: Sequence[str] | None, dim: int) -> list[str]:
    """One drawable name per component: the given ones, or y₁, y₂, ….

    Raises:
        InputError: the number of names is not ``dim``.

    Example:
        >>> component_names(None, 2)
        ['$y_{1}$', '$y_{2}$']
    """
    if names is None:
        return [f"$y_{{{i}}}$" for i in range(1, dim + 1)]
    if isinstance(names, str) or len(names) != dim:
        raise InputError(
            f"names is {names!r}, but the state has {dim} components: give one name for each"
        )
    return [text(name) for name in names]


def add_to_legend(ax: Axes, entries: Sequence[tuple[Artist, str]], *, lift: float = 0.0) -> None:
    """Set the legend above the Axes, clear of the data; later calls add the entries it lacks.

    Args:
        ax: the Axes the legend explains.
        entries: (handle, label) pairs, in reading order.
        lift: extra distance above the Axes in points, for what already stands there.
    """
    legend = ax.get_legend()
    shown: list[tuple[Artist, str]] = []
    if legend is not None:
        labels = [t.get_text() for t in legend.get_texts()]
        shown = [(h, t) for h, t in zip(legend.legend_handles, labels, strict=True) if h]
    known = {label for _, label in shown}
    for handle, label in entries:
        if label not in known:
            known.add(label)
            shown.append((handle, label))
    if not shown:
        return
    figure = ax.get_figure(root=True)
    assert figure is not None
    # The layout engine widens a new Axes by about a tenth.
    width = 1.1 * ax.get_position(original=True).width * figure.get_figwidth() * 72
    n_columns = _n_legend_columns([len(label) for _, label in shown], width)
    ax.legend(
        [handle for handle, _ in shown],
        [label for _, label in shown],
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        bbox_transform=ax.transAxes + ScaledTranslation(0, lift / 72, figure.dpi_scale_trans),
        borderaxespad=0.3,
        ncols=n_columns,
        columnspacing=1.4,
        handlelength=1.8,
    )


def _n_legend_columns(lengths: list[int], width: float) -> int:
    """The most columns of labels of these lengths that fit into ``width`` points."""
    for n in range(len(lengths), 1, -1):
        columns = np.array_split(lengths, n)
        # 9 pt letters are about 5 pt wide; a handle with its gaps takes 40 pt.
        if sum(5 * column.max() + 40 for column in columns) <= width:
            return n
    return 1


def save(drawn: Any, path: str | Path) -> Path:
    """Write a picture to ``path`` (the ending chooses the format) and close its figure.

    The file appears whole or not at all: it is written beside ``path`` and renamed.

    Args:
        drawn: an Axes, an array of Axes, a Figure, or an Animation.
        path: where to, ending in .png, .svg or .pdf; in .gif for an Animation.

    Returns:
        The path written.

    Raises:
        InputError: the ending is unknown or the folder cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(axes(None, (2, 2)), f"{folder}/picture.png").name
        'picture.png'
    """
    path = Path(path)
    if isinstance(drawn, Animation):
        return _save_animation(drawn, path)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"cannot write a picture to {path}: end the name in .png, .svg or .pdf")
    first = drawn if isinstance(drawn, Figure | Axes) else next(iter(drawn.flat))
    figure: Any = first if isinstance(first, Figure) else first.get_figure(root=True)
    options: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.08}
    try:
        with applied():
            write_whole(path, lambda part: figure.savefig(part, format=path.suffix[1:], **options))
    finally:
        plt.close(figure)
    return path


def _save_animation(animation: Animation, path: Path) -> Path:
    """As :func:`save`, frame by frame."""
    if path.suffix != ".gif":
        raise InputError(f"cannot write an animation to {path}: end the name in .gif")
    figure: Any = animation._fig  # type: ignore[attr-defined]
    seconds = getattr(animation, "_interval", 50) / 1000
    writer = PillowWriter(fps=max(1, round(1 / seconds)))
    try:
        with applied():
            # The writer chooses the format by the name's ending.
            write_whole(path, lambda part: _with_ending(part, ".gif", animation, writer))
    finally:
        plt.close(figure)
    return path


def _with_ending(part: Path, ending: str, animation: Animation, writer: PillowWriter) -> None:
    whole = part.with_name(part.name + ending)
    try:
        animation.save(whole, writer=writer, dpi=100)
        whole.replace(part)
    finally:
        whole.unlink(missing_ok=True)
