"""Learns dynamics from trajectories as they come.

Owns the recipe: units, windows that grow, the loss, what decides. The loop is `odeum.lab.train`'s.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from odeum.datasets import Trajectories, Trajectory
from odeum.eager.options import StepOptions
from odeum.errors import InputError
from odeum.lab import directory, specs
from odeum.lab.devices import SMALL, choose_device, single_thread
from odeum.lab.finish import finish, states_in_words
from odeum.lab.run import Run
from odeum.lab.train import Loss, Stage, train
from odeum.lab.windows import Windows, cut, first_complete, whole
from odeum.models import LearnedDynamics, NeuralODE

EPOCHS = 400
STAGES = ((0.2, 1.0), (0.2, 0.5), (0.2, 0.25), (0.4, 0.15))
"""Share of the epochs and of the learning rate, for windows from two rows to the longest."""

LEARNING_RATE = {"linear": 0.05, "mlp": 0.01, "module": 0.01}
"""At the start, by kind of model: a few weights have far to go, many move the field at once."""
WEIGHT_DECAY = 1e-2
LONGEST_WINDOW = 128
MOST_WINDOWS = 128
"""Windows in a batch; more are drawn anew every epoch."""

TRAINING_TOLERANCE = 1e-3
"""Of normalised states. Training needs no more, predictions are solved to 1e-5."""
JUDGING_TOLERANCE = 1e-4

GOOD_ENOUGH = 0.03
"""A loss that leaves 3% of the variance: below it, the held-out error alone decides."""


def fit_trajectories(
    model: nn.Module | str | None,
    data: Trajectories,
    *,
    name: str | None = None,
    title: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    epochs: int | None = None,
    holdout: float = 0.2,
    hidden: Sequence[int] = (64, 64),
    activation: str = "tanh",
    method: str = "tsit5",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    learning_rate: float | None = None,
    weight_decay: float = WEIGHT_DECAY,
    device: str = "auto",
    quiet: bool = False,
    command: str | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Learn ``dy/dt = f(y)`` from trajectories, on data as it comes.

    States and time are normalised (positive states of wide range as logarithms), the last part of
    every trajectory is held out, and training windows grow from two rows to whole trajectories,
    all windows of an epoch solved as one batch. Empty cells do not enter the loss. The loss is the
    mean square error of normalised states; where logarithms are learned, half of it is of the
    states themselves. Of the last stage, the epoch
    of the lowest held-out error is kept, among those whose loss is within twice the lowest or
    leaves less than 3% of the variance. That error is the RMS, in standard deviations, over the
    held-out rows of one solution from the first complete row (of the last 128 learned from, where
    there are more).

    Args:
        model: "mlp" (also None), "linear", a field ``f(tau, z) -> dz/dtau`` of normalised time
            and states, or a :class:`odeum.NeuralODE` of one, whose solver options are then used.
            A module is trained in place.
        data: what was observed.
        name: of the run; the name of the data's file if None.
        title: of the report.
        out: the run directory, new or empty; None for the first free ``runs/<name>-<n>``.
        resume: continue the run in ``out`` where it stopped, as if it had not.
        seed: of weights and batches.
        epochs: optimiser steps, at least 4; 400 if None.
        holdout: fraction of every trajectory held out at its end, in [0, 1).
        hidden: widths of the hidden layers of the MLP.
        activation: of the MLP; a name from ``odeum.models.ACTIVATIONS``.
        method: of the solver; a name from ``odeum.methods.names()``.
        rtol: relative tolerance of predictions, > 0; training uses 1e-3 where that is looser.
        atol: absolute tolerance likewise, in normalised units.
        learning_rate: at the start, later stages begin with less; 0.01 if None, 0.05 for a linear
            field.
        weight_decay: of AdamW.
        device: "auto", "cpu" or "cuda"; "auto" takes the GPU, if any, for large fields.
        quiet: show no progress.
        command: how to repeat the run, for the report.
        on_epoch: called with each line of metrics.jsonl after its epoch.

    Returns:
        The run; its directory holds config.json, data.csv, metrics.jsonl, checkpoint.pt,
        predictions.csv, figures/, summary.json and report.html.

    Raises:
        InputError: for an argument that cannot be used; also if ``out`` holds files and ``resume``
            is False, or holds another run.
        DataError: if a trajectory has too few complete rows.
        SolveError: if no epoch gave a finite loss.

    Example:
        >>> import tempfile, odeum
        >>> data = odeum.datasets.sample(odeum.systems.get("spiral"), n_times=30)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = fit_trajectories("linear", data, out=f"{folder}/run", epochs=4, quiet=True)
        ...     sorted(run.summary["scores"]["model"]["in_sample"])
        ['x', 'y']
    """
    head = _checked(data, holdout, seed, epochs, learning_rate, weight_decay)
    spec = specs.model_spec(model, data.dim, hidden, activation)
    if learning_rate is None:
        learning_rate = LEARNING_RATE[spec["kind"]]
    options = {"method": method, "rtol": rtol, "atol": atol, "gradient": "discrete", "step": None}
    if isinstance(model, NeuralODE):
        options = model.options
    solver = specs.solver_spec(options)
    if isinstance(model, NeuralODE):
        field = model.field
    elif isinstance(model, nn.Module):
        field = model
    else:
        field = specs.draw_weights(lambda: specs.build_field(spec), seed)
    first = next(field.parameters(), None)
    if first is None:
        raise InputError("the model has no weights: there is nothing to learn")
    n_weights = sum(p.numel() for p in field.parameters())
    place = choose_device(device, n_weights)
    learned = specs.build_model(field, specs.normalisation(head), solver)
    learned.to(device=place, dtype=first.dtype)
    plan = stages(head, epochs or EPOCHS, learning_rate)
    name = name or Path(data.source or "fit").stem
    config: dict[str, Any] = {
        "name": name,
        "title": title or f"The dynamics of {states_in_words(data)}",
        "data": directory.describe_data(data),
        "holdout": holdout,
        "model": spec,
        "solver": solver,
        "learned_as_logarithms": [
            state
            for state, log in zip(data.state_names, learned.transform.log.tolist(), strict=True)
            if log
        ],
        "training": {
            "epochs": epochs or EPOCHS,
            "learning_rate": learning_rate,
            "stages": [vars(stage) for stage in plan],
            "weight_decay": weight_decay,
            "tolerance": TRAINING_TOLERANCE,
            "most_windows": MOST_WINDOWS,
            "good_enough": GOOD_ENOUGH,
        },
        "seed": seed,
        "device": place.type,
        "dtype": str(first.dtype).removeprefix("torch."),
        "command": command or _command(model, data, seed, epochs, holdout),
    }
    run_dir = directory.prepare(out, name, config, data, resume=resume)
    with single_thread(place.type == "cpu" and n_weights < SMALL):
        recipe = Recipe(head, data, learned)
        training = train(
            learned,
            plan,
            recipe.batch,
            recipe.loss,
            evaluate=recipe.held_out_error if recipe.holds_out else None,
            run_dir=run_dir,
            resume=resume,
            seed=seed,
            weight_decay=weight_decay,
            good_enough=GOOD_ENOUGH,
            quiet=quiet,
            on_epoch=on_epoch,
        )
        return finish(run_dir, learned, data, training, title=config["title"])


def stages(head: Trajectories, epochs: int, learning_rate: float) -> list[Stage]:
    """Windows that grow by equal factors from two rows to the longest, at most 128.

    Args:
        head: what is learned from.
        epochs: in all, at least 4.
        learning_rate: at the start.

    Returns:
        Four stages, or fewer where windows would be equal.

    Example:
        >>> from odeum.datasets import Trajectory
        >>> t = torch.arange(17, dtype=torch.float64)
        >>> data = Trajectories((Trajectory("a", t, t[:, None]),), "t", ("x",))
        >>> [(stage.window, stage.n_epochs) for stage in stages(data, 500, 1e-2)]
        [(2, 100), (4, 100), (8, 100), (17, 200)]
    """
    longest = min(LONGEST_WINDOW, max(len(x) - first_complete(x) for x in head))
    last = len(STAGES) - 1
    lengths = [round(2 * (longest / 2) ** (i / last)) for i in range(last + 1)]
    plan: list[Stage] = []
    for i, (length, (_, rate)) in enumerate(zip(lengths, STAGES, strict=True)):
        start, end = (round(epochs * sum(share for share, _ in STAGES[:k])) for k in (i, i + 1))
        n_epochs = end - start
        if plan and plan[-1].window == length:
            n_epochs += plan.pop().n_epochs
        plan.append(Stage(length, n_epochs, rate * learning_rate))
    return plan


class Recipe:
    """How trajectories become batches, losses and a held-out error for a model.

    Args:
        head: what is learned from.
        data: the whole trajectories, in the same order.
        model: it gives units, dtype and device.

    Attributes:
        holds_out: whether anything observed is held out.
    """

    def __init__(self, head: Trajectories, data: Trajectories, model: LearnedDynamics) -> None:
        self._head = head
        self._like = model.transform.shift
        self._spread = specs.spread(head).to(self._like)
        self._any_log = bool(model.transform.log.any())
        self._cut: dict[int, Windows] = {}
        tails = Trajectories(
            tuple(_judged(known, x) for known, x in zip(head, data, strict=True)),
            data.time_name,
            data.state_names,
            data.group_name,
        )
        everything = whole(tails)
        for row, (known, tail) in enumerate(zip(head, tails, strict=True)):
            n_known = int((tail.t <= known.t[-1]).sum())
            everything.targets[: n_known - first_complete(tail), row] = torch.nan
        self._held_out = self._placed(everything)
        self.holds_out = not bool(torch.isnan(everything.targets).all())

    def batch(self, stage: Stage, generator: torch.Generator) -> Windows:
        """Windows of a stage's length, at most 128 of them, drawn anew where there are more."""
        if stage.window not in self._cut:
            self._cut[stage.window] = self._placed(cut(self._head, stage.window))
        return self._cut[stage.window].choose(MOST_WINDOWS, generator)

    def loss(self, model: LearnedDynamics, windows: Windows) -> Loss:
        """The mean square error over all that was observed in the windows."""
        options = model.ode.options
        solution = model.solve(
            windows.y0,
            windows.ts,
            on_failure="mask",
            rtol=max(TRAINING_TOLERANCE, options["rtol"]),
            atol=max(TRAINING_TOLERANCE, options["atol"]),
            step=options["step"] or StepOptions(max_steps=100 + 20 * len(windows.ts)),
        )
        targets = windows.targets
        seen = torch.isfinite(solution.ys) & torch.isfinite(targets)
        # Both sides are cut before they meet: a gradient of zero times NaN would be NaN.
        z, wanted = solution.ys.where(seen, 0.0), model.transform.encode(targets)
        # NaN too where a logarithm has no value.
        error = (z - wanted.where(seen, 0.0)).square()
        if self._any_log:
            y = model.transform.decode(z)
            scaled = (y - targets.where(seen, y.detach())) / self._spread
            error = 0.5 * (error + scaled.square())
        value = error.where(seen, 0.0).sum() / seen.sum()
        stats = solution.stats
        return Loss(
            value,
            n_failed=int((solution.status != 0).sum()),
            n_evaluations=int(stats.n_evaluations.max()),
            n_rejected=int(stats.n_rejected.sum()),
            engine=solution.engine,
        )

    def held_out_error(self, model: LearnedDynamics) -> float:
        """RMS error over the held-out rows, in standard deviations; NaN if a solve failed."""
        windows = self._held_out
        options = model.ode.options
        solution = model.solve(
            windows.y0,
            windows.ts,
            gradient="none",
            on_failure="mask",
            rtol=max(JUDGING_TOLERANCE, options["rtol"]),
            atol=max(JUDGING_TOLERANCE, options["atol"]),
            step=options["step"] or StepOptions(max_steps=1000 + 20 * len(windows.ts)),
        )
        error = (model.transform.decode(solution.ys) - windows.targets) / self._spread
        return float(error[~torch.isnan(windows.targets)].square().mean().sqrt())

    def _placed(self, windows: Windows) -> Windows:
        return windows.to(self._like.dtype, self._like.device)


def _judged(known: Trajectory, trajectory: Trajectory) -> Trajectory:
    """From the first complete row of the last 128 that were learned from, to the end."""
    complete = known.complete
    complete[:-LONGEST_WINDOW] = False
    start = int(complete.nonzero()[0]) if bool(complete.any()) else first_complete(trajectory)
    return Trajectory(trajectory.name, trajectory.t[start:], trajectory.y[start:])


def _checked(
    data: Trajectories,
    holdout: float,
    seed: int,
    epochs: int | None,
    learning_rate: float | None,
    weight_decay: float,
) -> Trajectories:
    """The heads to learn from, once the numbers make sense."""
    if not isinstance(data, Trajectories):
        raise InputError(
            f"data is a {type(data).__name__}: give odeum.datasets.Trajectories, for example from "
            "odeum.datasets.read(path)"
        )
    if epochs is not None and epochs < len(STAGES):
        raise InputError(f"epochs is {epochs}: give at least {len(STAGES)}, one for every stage")
    for name, value in (("learning_rate", learning_rate), ("weight_decay", weight_decay)):
        if value is not None and not 0 <= value < 10:
            raise InputError(f"{name} is {value}: give a number from 0 to 10, such as 0.01")
    if seed < 0:
        raise InputError(f"seed is {seed}: give a whole number of at least 0")
    return data.split(holdout)[0]


def _command(
    model: nn.Module | str | None,
    data: Trajectories,
    seed: int,
    epochs: int | None,
    holdout: float,
) -> str:
    """The call that repeats a run made from Python."""
    learned = repr(model or "mlp") if not isinstance(model, nn.Module) else "model"
    source = f"odeum.datasets.read({data.source!r}, {data.time_name!r})" if data.source else "data"
    given = f"seed={seed}, holdout={holdout}" + (f", epochs={epochs}" if epochs else "")
    return f"odeum.fit({learned}, {source}, {given})"
