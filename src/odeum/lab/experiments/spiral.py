"""Learn the plane spiral ``z' = A z`` from noisy observations of one trajectory, and recover ``A``.

Owns what is sampled, how windows are drawn, and what counts as the recovered matrix. Training and
the run directory are the laboratory's.
"""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import nn

from odeum import plots
from odeum.datasets import Trajectories, sample
from odeum.errors import InputError
from odeum.lab import directory, specs
from odeum.lab.devices import choose_device, single_thread
from odeum.lab.finish import finish
from odeum.lab.learning import MOST_WINDOWS, TRAINING_TOLERANCE, Recipe
from odeum.lab.pictures import FIGURES
from odeum.lab.registry import Experiment, Setting
from odeum.lab.run import Run
from odeum.lab.train import Stage, train
from odeum.lab.windows import Windows, cut
from odeum.lab.wording import number
from odeum.models import LearnedDynamics, LinearField, MLPField, StateTransform
from odeum.systems import spiral as spiral_system
from odeum.types import Tensor

WindowKind = Literal["random", "one-step", "whole"]

SOLVER = {"method": "tsit5", "rtol": 1e-6, "atol": 1e-6, "gradient": "discrete", "step": None}


@dataclass(frozen=True)
class CommonOptions:
    """What every experiment with the spiral lets choose.

    Raises:
        InputError: for a value outside its range.
    """

    windows: Annotated[WindowKind, "spans to learn from: random, one-step or whole"] = "random"
    n_times: Annotated[int, "observations of the trajectory"] = 200
    noise: Annotated[float, "standard deviation of the noise; the spiral starts at radius 2"] = 0.02
    epochs: Annotated[int, "optimiser steps"] = 160
    holdout: Annotated[float, "fraction of the trajectory held out at its end"] = 0.2
    learning_rate: Annotated[float, "at the start of training"] = 0.05
    hidden: Annotated[tuple[int, ...], "widths of the nonlinear network's hidden layers"] = (32, 32)

    def __post_init__(self) -> None:
        if self.n_times < 10:
            raise InputError(f"n_times is {self.n_times}: give at least 10 observations")
        if self.epochs < 4:
            raise InputError(f"epochs is {self.epochs}: give at least 4")
        if self.noise < 0:
            raise InputError(f"noise is {self.noise}: give a number of at least 0")
        if not 0 <= self.holdout <= 0.9:
            raise InputError(f"holdout is {self.holdout}: give a number from 0 to 0.9")
        if not 0 < self.learning_rate < 10:
            raise InputError(f"learning_rate is {self.learning_rate}: give a number such as 0.05")
        if min(self.hidden, default=1) < 1:
            raise InputError(f"hidden is {self.hidden}: give widths of at least 1, such as 32,32")


@dataclass(frozen=True)
class SpiralOptions(CommonOptions):
    """Options of ``spiral``.

    Raises:
        InputError: for a value outside its range, or a bias for the network, which has its own.
    """

    bias: Annotated[bool, "learn z' = A z + b"] = False
    nonlinear: Annotated[bool, "learn a network in place of A"] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bias and self.nonlinear:
            raise InputError("bias belongs to the linear field: set bias or nonlinear, not both")


@dataclass(frozen=True, eq=False)
class LinearMap:
    """The linear map nearest to a learned field where the system went.

    Attributes:
        matrix: [dim, dim]; a linear field's own weights.
        offset: [dim].
    """

    matrix: Tensor
    offset: Tensor

    @cached_property
    def largest_error(self) -> float:
        """The largest difference of an entry of the matrix from the true one."""
        return float((self.matrix - _true_matrix()).abs().max())


def nearest_linear_map(model: LearnedDynamics, data: Trajectories) -> LinearMap:
    """Fit ``A z + b`` by least squares to a learned field at the observed states.

    For a linear field this gives back its weights; for a network it says what it has become.

    Args:
        model: the learned dynamics.
        data: where the system went.

    Returns:
        The map, in the data's units.

    Example:
        >>> data = sample(spiral_system(), n_times=20)
        >>> model = LearnedDynamics(LinearField(2).double(), StateTransform.identity(2))
        >>> found = nearest_linear_map(model, data)
        >>> torch.allclose(found.matrix, model.field.linear.weight)
        True
    """
    y = torch.cat([trajectory.y[trajectory.complete] for trajectory in data])
    like = model.transform.shift
    with torch.no_grad():
        rates = model.field_in_data_units(0.0, y.to(like)).to(y)
    inputs = torch.cat([y, torch.ones_like(y[:, :1])], dim=1)
    weights = torch.linalg.lstsq(inputs, rates, driver="gelsd").solution.T
    return LinearMap(weights[:, :-1], weights[:, -1])


def run_spiral(options: SpiralOptions, setting: Setting) -> Run:
    """Learn the spiral with one field.

    Args:
        options: what to learn, from what.
        setting: where and how.

    Returns:
        The finished run; ``summary["result"]`` holds the true matrix, the recovered one and the
        largest error of an entry.

    Raises:
        InputError: if the run directory cannot be used.
        SolveError: if training never reached a finite error.
    """
    return learn(SPIRAL.name, options, setting, SPIRAL.command(options, setting))


SPIRAL = Experiment(
    "spiral",
    "learn z' = A z from noisy observations of one spiral and recover the matrix A",
    SpiralOptions,
    run_spiral,
)


def _true_matrix() -> Tensor:
    return torch.tensor(spiral_system().constants["a"], dtype=torch.float64)


def learn(name: str, options: SpiralOptions, setting: Setting, command: str) -> Run:
    """Sample, train, finish: one run directory.

    Args:
        name: of the experiment.
        options: what to learn, from what.
        setting: where and how.
        command: how to repeat the run.

    Returns:
        The finished run.
    """
    data = sample(spiral_system(), n_times=options.n_times, noise=options.noise, seed=setting.seed)
    head = data.split(options.holdout)[0]
    field = specs.draw_weights(lambda: _field(options), setting.seed)
    place = choose_device(setting.device, sum(p.numel() for p in field.parameters()))
    # The states are of size one as they are, and in these units the weights are A itself.
    model = specs.build_model(field, StateTransform.identity(data.dim), SOLVER).to(place)
    plan = _stages(options, len(head.trajectories[0]))
    title = f"The spiral, {_kind(options)}"
    config = {
        "name": name,
        "title": title,
        "options": asdict(options),
        "data": directory.describe_data(data),
        "holdout": options.holdout,
        "model": specs.model_spec(field, data.dim, (), ""),
        "solver": SOLVER,
        "training": {
            "stages": [vars(stage) for stage in plan],
            "tolerance": TRAINING_TOLERANCE,
            "most_windows": MOST_WINDOWS,
        },
        "seed": setting.seed,
        "device": place.type,
        "dtype": "float64",
        "command": command,
    }
    run_dir = directory.prepare(setting.out, name, config, data, resume=setting.resume)
    recipe = Recipe(head, data, model)
    batches = _Batches(options.windows, head, place)
    with single_thread(place.type == "cpu"):
        training = train(
            model,
            plan,
            batches.draw,
            recipe.loss,
            evaluate=recipe.held_out_error if recipe.holds_out else None,
            run_dir=run_dir,
            resume=setting.resume,
            seed=setting.seed,
            quiet=setting.quiet,
        )
        found = nearest_linear_map(model, head)
        return finish(
            run_dir,
            model,
            data,
            training,
            title=title,
            result=_result(found, options),
            figures=[_matrix_picture(run_dir, found)],
            sentence=_sentence(found, options),
        )


def _field(options: SpiralOptions) -> nn.Module:
    if options.nonlinear:
        return MLPField(2, options.hidden)
    return LinearField(2, bias=options.bias)


def _kind(options: SpiralOptions) -> str:
    if options.nonlinear:
        return "nonlinear"
    return "linear with bias" if options.bias else "linear"


def _stages(options: SpiralOptions, n_rows: int) -> list[Stage]:
    """Windows of two rows; random spans up to a quarter of the trajectory; or all of it at last.

    They grow: from a guess, a long window of something that turns leads nowhere.
    """
    shares = {"one-step": (), "random": (1 / 16, 1 / 4), "whole": (1 / 16, 1 / 4, 1)}
    lengths = [max(3, round(share * n_rows)) for share in shares[options.windows]] or [2]
    ends = [round(options.epochs * (i + 1) / len(lengths)) for i in range(len(lengths))]
    return [
        Stage(length, end - start, options.learning_rate * (0.5 if i else 1.0))
        for i, (length, start, end) in enumerate(zip(lengths, [0, *ends], ends, strict=False))
    ]


class _Batches:
    """Windows of the kind asked for; random spans are drawn anew every epoch."""

    def __init__(self, kind: WindowKind, head: Trajectories, device: torch.device) -> None:
        self._kind, self._head, self._device = kind, head, device
        self._cut: dict[int, Windows] = {}

    def draw(self, stage: Stage, generator: torch.Generator) -> Windows:
        """At most 128 windows of the stage's length, or ending anywhere in it."""
        length = stage.window
        if length not in self._cut:
            self._cut[length] = cut(self._head, length).to(torch.float64, self._device)
        windows = self._cut[length].choose(MOST_WINDOWS, generator)
        if self._kind != "random":
            return windows
        # All spans in one batch: a loss over few long ones, then few short ones, would jump.
        last = torch.randint(1, length, (len(windows),), generator=generator)
        beyond = torch.arange(length)[:, None] > last
        hidden = beyond.to(self._device)[..., None]
        return replace(windows, targets=windows.targets.masked_fill(hidden, torch.nan))


def _result(found: LinearMap, options: SpiralOptions) -> dict[str, Any]:
    result: dict[str, Any] = {
        "true_matrix": _true_matrix().tolist(),
        "recovered_matrix": found.matrix.tolist(),
        "largest_error": found.largest_error,
    }
    if options.bias or options.nonlinear:
        result["offset"] = found.offset.tolist()
    return result


def _sentence(found: LinearMap, options: SpiralOptions) -> str:
    what = f"observations with noise of {number(options.noise, trim=True)}"
    error = number(found.largest_error, 2)
    if options.nonlinear:
        return (
            f"A network learned the spiral from {what}; the linear map nearest to it differs from "
            f"the true matrix by at most {error}."
        )
    return (
        f"Learned {'z′ = A z + b' if options.bias else 'z′ = A z'} from {what}; every entry of A "
        f"was recovered to within {error}."
    )


def _matrix_picture(run_dir: Path, found: LinearMap) -> dict[str, str]:
    (run_dir / FIGURES).mkdir(exist_ok=True)
    panels = plots.matrix_comparison(_true_matrix(), found.matrix, labels=("true A", "learned A"))
    plots.save(panels, run_dir / FIGURES / "matrix.png")
    return {
        "file": f"{FIGURES}/matrix.png",
        "title": "The matrix.",
        "caption": f"True and learned; no entry is off by more than "
        f"{number(found.largest_error, 2)}.",
        "alt": "True and learned matrix with their difference",
    }
