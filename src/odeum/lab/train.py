"""The training loop: stages, steps back from divergence, the best state kept, exact resumption.

It minimises any loss over any batches; what they are, the caller says. Everything that shapes the
next epoch is in the checkpoint, and nothing depends on the clock, so that a resumed run continues
bit for bit on the CPU.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from odeum.errors import InputError, SolveError
from odeum.files import write_whole
from odeum.lab.files import CHECKPOINT, finite, read_checkpoint
from odeum.lab.progress import progress_bar
from odeum.types import Tensor

METRICS = "metrics.jsonl"
EVALUATE_EVERY = 5
"""Epochs between measurements of the held-out error; the last of a stage is always measured."""

_FINAL_RATE = 0.05
"""Fraction of a stage's learning rate that is left at its end."""
_EXPLODED = 5.0
"""A loss this many times the lowest of its stage is a divergence."""
_WITHIN = 2.0
"""Epochs whose loss is within this factor of the lowest compete by their held-out error."""
_RECOVERY = 1.02
"""What the learning rate regains in every epoch after a step back."""
_MOST_STEPS_BACK = 12
"""Steps back in a row after which a finite loss is taken as it is, and one that is not ends it."""


@dataclass(frozen=True)
class Stage:
    """A part of training.

    Attributes:
        window: rows per training window, for the caller's batches and for metrics.jsonl.
        n_epochs: optimiser steps, at least 1.
        learning_rate: at its start; a cosine takes it to a twentieth.
    """

    window: int
    n_epochs: int
    learning_rate: float


@dataclass(frozen=True)
class Loss:
    """What one batch gave.

    Attributes:
        value: scalar to be minimised, with its graph.
        n_failed: rows whose solve failed.
        n_evaluations: evaluations of the field, one after another.
        n_rejected: steps tried and discarded, over all rows.
        engine: that solved it, where that is known.
    """

    value: Tensor
    n_failed: int = 0
    n_evaluations: int = 0
    n_rejected: int = 0
    engine: str = ""


@dataclass
class Training:
    """How training went; the model holds the best weights.

    Attributes:
        epochs: epochs trained.
        best_epoch: the one whose weights were kept.
        best_error: its held-out error; its loss where nothing is held out.
        n_evaluations: evaluations of the field over all epochs.
        n_rejected: steps discarded over all epochs and rows.
        n_steps_back: divergences survived.
        seconds: time spent, interrupted runs included.
        stopped: why it ended early, "" where it did not.
        engine: that solved the last batch, where that is known.
    """

    epochs: int = 0
    best_epoch: int = 0
    best_error: float = math.inf
    n_evaluations: int = 0
    n_rejected: int = 0
    n_steps_back: int = 0
    seconds: float = 0.0
    stopped: str = ""
    engine: str = ""


@dataclass
class _Pace:
    """What decides, within a stage, how large steps are and which states are good."""

    rate_factor: float = 1.0
    lowest_loss: float = math.inf
    n_failed: int = 0
    n_in_a_row: int = 0
    best_loss: float | None = None


def train(
    model: nn.Module,
    stages: Sequence[Stage],
    make_batch: Callable[[Stage, torch.Generator], Any],
    measure: Callable[[Any, Any], Loss],
    *,
    evaluate: Callable[[Any], float] | None = None,
    run_dir: Path | None = None,
    resume: bool = False,
    seed: int = 0,
    weight_decay: float = 0.0,
    clip: float = 1.0,
    good_enough: float = 0.0,
    quiet: bool = True,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Training:
    """Minimise a loss with AdamW, an epoch being one batch, stage by stage.

    A divergence (a loss or gradient that is not finite, a loss five times the lowest of its stage,
    rows that newly fail) is survived: weights and optimiser go back to the stage's lowest loss, and
    the learning rate is halved, to recover slowly. Among the epochs of the last stage whose loss
    is within twice the lowest, or below ``good_enough``, the weights of the lowest held-out error
    are kept; where the last stage had no finite one, those of the stage before.

    Args:
        model: trained in place; its parameters share one device.
        stages: in order, at least one.
        make_batch: ``(stage, generator) -> batch``; all randomness must come from the generator.
        measure: ``(model, batch) -> Loss``.
        evaluate: ``model -> held-out error``, called without gradients; None where nothing is held
            out: then the training loss decides.
        run_dir: where checkpoint.pt and metrics.jsonl go, after every epoch; None to write nothing.
        resume: continue from the checkpoint in ``run_dir``, where there is one.
        seed: of the batches, and of whatever else draws from torch's generators.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        good_enough: a loss below which the held-out error alone decides.
        quiet: show no progress; none is shown either where stdout is not a terminal.
        on_epoch: called with each line of metrics.jsonl once the epoch is safe on disk.

    Returns:
        How it went.

    Raises:
        InputError: if there is nothing to train, or the checkpoint is of something else.
        SolveError: if no epoch gave a finite loss.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> x = torch.linspace(-1, 1, 16)[:, None]
        >>> stages = [Stage(window=16, n_epochs=200, learning_rate=0.1)]
        >>> training = train(
        ...     model, stages, lambda stage, generator: x,
        ...     lambda model, x: Loss((model(x) - 3 * x).square().mean()),
        ... )
        >>> round(model.weight.item(), 1)
        3.0
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters or not stages:
        raise InputError("there is nothing to train: the model needs weights, training a stage")
    loop = _Loop(model, parameters, list(stages), seed, weight_decay, clip, good_enough)
    with torch.random.fork_rng(devices=_cuda_devices(parameters)):
        torch.manual_seed(seed)
        if resume and run_dir is not None and (run_dir / CHECKPOINT).exists():
            loop.restore(run_dir)
        elif run_dir is not None:
            (run_dir / METRICS).write_text("")
        n_epochs = sum(stage.n_epochs for stage in stages)
        with progress_bar(n_epochs, quiet=quiet) as show:
            while loop.training.epochs < n_epochs and not loop.training.stopped:
                line = loop.epoch(make_batch, measure, evaluate)
                if run_dir is not None:
                    loop.save(run_dir, line)
                show(line)
                if on_epoch is not None:
                    on_epoch(line)
    loop.keep_best()
    return loop.training


@dataclass
class _Loop:
    """The state of training, and one epoch of it."""

    model: nn.Module
    parameters: list[nn.Parameter]
    stages: list[Stage]
    seed: int
    weight_decay: float
    clip: float
    good_enough: float
    training: Training = field(default_factory=Training)
    pace: _Pace = field(default_factory=_Pace)
    best: dict[str, Any] | None = None
    good: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.optimiser = torch.optim.AdamW(self.parameters, lr=0.0, weight_decay=self.weight_decay)
        self.generator = torch.Generator().manual_seed(self.seed)

    def epoch(
        self,
        make_batch: Callable[[Stage, torch.Generator], Any],
        measure: Callable[[Any, Any], Loss],
        evaluate: Callable[[Any], float] | None,
    ) -> dict[str, Any]:
        """One step on one batch; returns its line of the metrics."""
        start = time.perf_counter()
        index, within = self._position()
        stage = self.stages[index]
        if within == 0:
            # A longer window has a loss of its own size, and may fail where a shorter one did not.
            self.pace = _Pace()
        rate = self._set_rate(stage, within)
        self.optimiser.zero_grad()
        loss = measure(self.model, make_batch(stage, self.generator))
        value = float(loss.value.detach())
        if self._is_good(loss, value):
            self._step(loss, value)
        else:
            self._step_back(value)
        training = self.training
        training.epochs += 1
        training.n_evaluations += loss.n_evaluations
        training.n_rejected += loss.n_rejected
        training.engine = loss.engine
        error = None
        if evaluate is None:
            if self.good is not None and value == self.pace.lowest_loss:
                self._keep_if_best(value, value, self.good["model"])
        elif (within + 1) % EVALUATE_EVERY == 0 or within + 1 == stage.n_epochs:
            with torch.no_grad():
                error = float(evaluate(self.model))
            self._keep_if_best(error, value, self.model.state_dict())
        seconds = time.perf_counter() - start
        training.seconds += seconds
        return {
            "epoch": training.epochs,
            "stage": index + 1,
            "window": stage.window,
            "loss": value,
            "held_out": error,
            "lr": rate,
            "n_evaluations": loss.n_evaluations,
            "n_failed": loss.n_failed,
            "seconds": seconds,
        }

    def keep_best(self) -> None:
        """Leave the best weights in the model."""
        if self.best is None:
            raise SolveError(
                "training never reached a finite error: try a smaller learning rate, or look for "
                "outliers in the data"
            )
        self.model.load_state_dict(self.best)

    def save(self, run_dir: Path, line: dict[str, Any]) -> None:
        """Append a line of metrics, then replace the checkpoint.

        In this order: a kill between the two leaves a line too many, which resuming takes away.
        """
        text = json.dumps(finite(line), allow_nan=False) + "\n"
        with (run_dir / METRICS).open("a", encoding="utf-8") as file:
            file.write(text)
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "good": self.good,
            "best": self.best,
            "training": vars(self.training),
            "pace": vars(self.pace),
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": [torch.cuda.get_rng_state(d) for d in _cuda_devices(self.parameters)],
        }
        write_whole(run_dir / CHECKPOINT, lambda part: torch.save(state, part))

    def restore(self, run_dir: Path) -> None:
        """Go back to the checkpoint, and the metrics to its epoch."""
        state = read_checkpoint(run_dir)
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{run_dir / CHECKPOINT} is of another model ({reason}): resume with the model "
                "the run was started with"
            ) from error
        self.training = Training(**state["training"])
        self.pace = _Pace(**state["pace"])
        self.good, self.best = state["good"], state["best"]
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])
        for device, rng in zip(_cuda_devices(self.parameters), state["cuda_rng"], strict=False):
            torch.cuda.set_rng_state(rng, device)
        lines = (run_dir / METRICS).read_text(encoding="utf-8").splitlines(keepends=True)
        kept = "".join(lines[: self.training.epochs])
        write_whole(run_dir / METRICS, lambda part: part.write_text(kept, encoding="utf-8"))

    def _position(self) -> tuple[int, int]:
        """The stage of the next epoch, and how many of its epochs are over."""
        over = self.training.epochs
        for index, stage in enumerate(self.stages):
            if over < stage.n_epochs:
                return index, over
            over -= stage.n_epochs
        raise AssertionError("no epoch is left")

    def _set_rate(self, stage: Stage, within: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * within / stage.n_epochs))
        rate = stage.learning_rate * (_FINAL_RATE + (1 - _FINAL_RATE) * cosine)
        rate *= self.pace.rate_factor
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def _is_good(self, loss: Loss, value: float) -> bool:
        """Whether a step may be taken from here; computes the gradient where it may."""
        pace = self.pace
        if not math.isfinite(value) or not loss.value.requires_grad:
            return False
        settled = math.isfinite(pace.lowest_loss) and pace.n_in_a_row < _MOST_STEPS_BACK
        if settled and (value > _EXPLODED * pace.lowest_loss or loss.n_failed > pace.n_failed):
            return False
        loss.value.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        return bool(torch.isfinite(norm))

    def _step(self, loss: Loss, value: float) -> None:
        pace = self.pace
        given_up = pace.n_in_a_row >= _MOST_STEPS_BACK
        if given_up or value < pace.lowest_loss or loss.n_failed < pace.n_failed:
            self.good = {
                "model": _copied(self.model.state_dict()),
                "optimiser": copy.deepcopy(self.optimiser.state_dict()),
            }
            pace.lowest_loss, pace.n_failed = value, loss.n_failed
        pace.rate_factor = min(1.0, _RECOVERY * pace.rate_factor)
        pace.n_in_a_row = 0
        self.optimiser.step()

    def _step_back(self, value: float) -> None:
        pace = self.pace
        if self.good is not None:
            self.model.load_state_dict(self.good["model"])
            self.optimiser.load_state_dict(copy.deepcopy(self.good["optimiser"]))
        pace.rate_factor *= 0.5
        pace.n_in_a_row += 1
        self.training.n_steps_back += 1
        if pace.n_in_a_row > 2 * _MOST_STEPS_BACK:
            self.training.stopped = f"the loss stayed at {value:g} after every step back"
            if self.best is None and self.good is not None:
                self.best = self.good["model"]

    def _keep_if_best(self, error: float, loss: float, weights: dict[str, Tensor]) -> None:
        """Let an epoch compete; the first one of a stage that may replaces those before it."""
        pace, training = self.pace, self.training
        limit = max(_WITHIN * pace.lowest_loss, self.good_enough)
        if not math.isfinite(error) or not loss <= limit:
            return
        outdated = pace.best_loss is None or pace.best_loss > limit
        if outdated or error < training.best_error:
            self.best = _copied(weights)
            pace.best_loss = loss
            training.best_epoch, training.best_error = training.epochs, error


def _copied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in weights.items()}


def _cuda_devices(parameters: list[nn.Parameter]) -> list[int]:
    return sorted({p.get_device() for p in parameters if p.is_cuda})
