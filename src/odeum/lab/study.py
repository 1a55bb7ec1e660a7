"""The run directory of an experiment, from its configuration to its report.

An experiment begins a study, lets it learn, draws into it, and finishes it::

    study = Study.begin(EXPERIMENT, options, setting, title="Half moons")
    training = study.learn("classifier", model, Descent(optimiser, 500, batch, loss))
    study.draw("flow.png", ax, title="The flow.", caption="…", alt="…", section="The flow")
    found = Finding("accuracy", 1.0, target=1.0, better="higher")
    return study.finish(sentence="…", findings=[found], predictions=table)

Owns what is written where, and that a study which was interrupted goes on bit for bit: trainings
from their last checkpoint, parts that were over from what they left behind.
"""

import copy
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from torch import nn

from odeum import plots
from odeum.datasets import Trajectories
from odeum.errors import InputError
from odeum.files import write_whole
from odeum.lab import directory, report
from odeum.lab.descent import Descent, Progress, Training
from odeum.lab.devices import choose_device
from odeum.lab.files import CHECKPOINT, finite, read_checkpoint, write_json
from odeum.lab.findings import Finding
from odeum.lab.finish import PREDICTIONS, compare, provenance
from odeum.lab.pictures import FIGURES, draw_dynamics
from odeum.lab.progress import progress_bar
from odeum.lab.registry import Experiment, Setting
from odeum.lab.run import SUMMARY, Run, predict
from odeum.lab.specs import model_spec, solver_spec
from odeum.lab.train import METRICS
from odeum.models import LearnedDynamics

T = TypeVar("T")

SAVE_EVERY = 5.0
"""Seconds between checkpoints of a training. Where it stops between two, the steps since the first
are taken again, and come out the same."""


@dataclass(frozen=True, eq=False)
class Studied:
    """What a study leaves behind.

    Attributes:
        path: the run directory.
        summary: what summary.json says.
    """

    path: Path
    summary: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Dynamics:
    """A field learned from trajectories: what ``odeum predict`` and the scores need of a run.

    Attributes:
        model: the learned dynamics, in the data's units.
        data: the whole trajectories.
        holdout: fraction of every trajectory held out at its end, in [0, 1).
    """

    model: LearnedDynamics
    data: Trajectories
    holdout: float = 0.0


class Study:
    """A run directory that is being filled; made by :meth:`begin`.

    Attributes:
        path: the run directory.
        setting: where and how the experiment is run.
        device: where to train.
    """

    def __init__(
        self,
        path: Path,
        setting: Setting,
        device: torch.device,
        config: dict[str, Any],
        dynamics: Dynamics | None,
    ) -> None:
        self.path = path
        self.setting = setting
        self.device = device
        self._config = config
        self._dynamics = dynamics
        self._figures: list[dict[str, str]] = []
        self._progress: dict[str, Progress] = {}
        self._state: dict[str, Any] = {"trainings": {}, "parts": {}, "n_lines": 0}
        self._began = time.perf_counter()
        self._seconds_before = 0.0
        if setting.resume and (path / CHECKPOINT).exists():
            self._state = read_checkpoint(path)
            self._seconds_before = self._state["seconds"]
        elif setting.resume and (path / METRICS).exists():
            (path / METRICS).write_text("")
        self._cut_metrics()

    @classmethod
    def begin(
        cls,
        experiment: Experiment | str,
        options: Any,
        setting: Setting,
        *,
        title: str,
        n_weights: int = 0,
        dynamics: Dynamics | None = None,
        command: str = "",
    ) -> "Study":
        """Makes the run directory with its configuration, or opens the one to resume.

        Args:
            experiment: what is run, or a name for it where it is no experiment that
                ``odeum run`` knows.
            options: of it, a dataclass of plain values.
            setting: where and how.
            title: of the report.
            n_weights: of the model; with ``device="auto"`` large ones go to the GPU, if any.
            dynamics: the model to be learned and its data, where a field is learned from
                trajectories: then ``odeum predict`` works on the run, and the report holds scores.
            command: how to repeat it; an experiment knows itself.

        Raises:
            InputError: if the folder cannot be used, or holds another run.
        """
        device = choose_device(setting.device, n_weights)
        name = experiment if isinstance(experiment, str) else experiment.name
        if not isinstance(experiment, str):
            command = command or experiment.command(options, setting)
        config = {
            "name": name,
            "title": title,
            "options": asdict(options),
            "seed": setting.seed,
            "device": device.type,
            "command": command,
        }
        data = None
        if dynamics is not None:
            model, data = dynamics.model, dynamics.data
            config |= {
                "data": directory.describe_data(data),
                "holdout": dynamics.holdout,
                "model": model_spec(model.field, data.dim, (), ""),
                "solver": solver_spec(model.ode.options),
            }
        path = directory.prepare(setting.out, name, config, data, resume=setting.resume)
        if not (path / METRICS).exists():
            (path / METRICS).write_text("")
        return cls(path, setting, device, config, dynamics)

    def learn(self, part: str, model: nn.Module, descent: Descent) -> Progress:
        """Trains a model; where this was done before the study was resumed, gives it its weights.

        Metrics go to metrics.jsonl under the part's name, the state to the checkpoint.

        Args:
            part: a name for this training, of its own within the study.
            model: trained in place; it then holds the weights that are kept.
            descent: how.

        Returns:
            How it went; :meth:`metrics` has its lines.

        Raises:
            InputError: for a name used before, or a checkpoint of another model.
            SolveError: where the loss is not finite.
        """
        if part in self._progress:
            raise InputError(f"the study has learned {part!r} already: give another name")
        training = Training(model, descent, self.setting.seed)
        known = self._state["trainings"].get(part)
        if known is not None:
            training.restore(known)
        self._progress[part] = training.progress
        saved = time.perf_counter()
        with progress_bar(descent.n_steps, quiet=self.setting.quiet) as show:
            for line in training.lines():
                line = {"part": part, **line}
                self._add_line(line)
                show(line)
                if training.progress.done or time.perf_counter() - saved > SAVE_EVERY:
                    self._state["trainings"][part] = copy.deepcopy(training.state())
                    self._save()
                    saved = time.perf_counter()
        return training.progress

    def once(self, part: str, make: Callable[[], T]) -> T:
        """What ``make`` returns; in a study that was resumed, what it returned before.

        For what takes long and is no training: measurements, searches, solves.

        Args:
            part: a name for it, of its own within the study.
            make: returns tensors, numbers, text, or lists and dicts of them.

        Raises:
            InputError: for something else.
        """
        parts = self._state["parts"]
        if part not in parts:
            made = make()
            _check_storable(made, part)
            parts[part] = made
            self._save()
        return copy.deepcopy(parts[part])

    def metrics(self, part: str) -> list[dict[str, Any]]:
        """The lines of one training.

        Args:
            part: its name.
        """
        return [line for line in self._lines() if line["part"] == part]

    def draw(
        self, file: str, drawn: Any, *, title: str, caption: str, alt: str, section: str = ""
    ) -> None:
        """Keeps a picture for the report.

        Args:
            file: its name in ``figures/``; ``.png``, or ``.gif`` for an animation.
            drawn: Axes, an array of them, a Figure, or an Animation.
            title: two or three words, with a full stop.
            caption: what is to be seen.
            alt: what there is, for who cannot see it.
            section: of the report; "The result" if empty.
        """
        folder = self.path / FIGURES
        folder.mkdir(exist_ok=True)
        plots.save(drawn, folder / file)
        self._figures.append(
            {
                "file": f"{FIGURES}/{file}",
                "title": title,
                "caption": caption,
                "alt": alt,
                "section": section or "The result",
            }
        )

    def finish(
        self,
        *,
        sentence: str,
        predictions: pd.DataFrame | None = None,
        findings: Sequence[Finding] = (),
        result: dict[str, Any] | None = None,
        solver: dict[str, Any] | None = None,
    ) -> Studied:
        """Writes predictions.csv, summary.json and report.html.

        Args:
            sentence: what was found, in one sentence.
            predictions: what predictions.csv holds; may be left out where there are dynamics.
            findings: numbers beside published ones and targets, the most important first.
            result: what else was found, by name: numbers, matrices, text.
            solver: how it was solved, for the report.

        Raises:
            InputError: where there is nothing to predict, or a file cannot be written.
        """
        scores: dict[str, Any] = {}
        if self._dynamics is not None:
            predictions, scores = self._finish_dynamics(self._dynamics, predictions)
        if predictions is None:
            raise InputError("finish needs predictions: a table of what the model says")
        table = predictions
        write_whole(self.path / PREDICTIONS, lambda part: table.to_csv(part, index=False))
        self._draw_losses()
        config, progress = self._config, self._progress.values()
        summary = {
            **provenance(config, title=config["title"], sentence=sentence),
            "seconds": self._seconds(),
            "epochs": sum(x.step for x in progress),
            "best_epoch": None,
            "scores": scores,
            "solver": solver or {},
            "training": {
                "seconds_learning": sum(x.seconds for x in progress),
                "n_evaluations": sum(x.n_evaluations for x in progress),
            },
            "findings": [finding.entry() for finding in findings],
            "result": result or {},
            "figures": self._figures,
        }
        write_json(self.path / SUMMARY, summary)
        report.build(self.path)
        return Studied(self.path, directory.read_object(self.path / SUMMARY))

    def _finish_dynamics(
        self, dynamics: Dynamics, predictions: pd.DataFrame | None
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        model, data = dynamics.model, dynamics.data
        head = data.split(dynamics.holdout)[0]
        # Where `load` looks for the weights of a run.
        self._state["model"] = self._state["best"] = model.state_dict()
        self._save()
        if predictions is None:
            predictions = predict(Run(self.path, model, {}, self._config, data))
        self._figures += draw_dynamics(self.path, model, head, data)
        return predictions, compare(model, head, data)

    def _draw_losses(self) -> None:
        """Every training's loss, one figure for all."""
        by_part: dict[str, list[dict[str, Any]]] = {}
        for line in self._lines():
            by_part.setdefault(line["part"], []).append(line)
        if not by_part:
            return
        several = len(by_part) > 1
        self.draw(
            "loss.png",
            plots.losses(by_part),
            title="Loss by step.",
            caption="Of every training, the mean over the steps between two points."
            if several
            else "The mean over the steps between two points.",
            alt="Training loss by optimiser step",
            section="Training",
        )

    def _add_line(self, line: dict[str, Any]) -> None:
        text = json.dumps(finite(line), allow_nan=False) + "\n"
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(text)
        self._state["n_lines"] += 1

    def _lines(self) -> list[dict[str, Any]]:
        text = (self.path / METRICS).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def _cut_metrics(self) -> None:
        """Takes away lines of steps that are to be taken again."""
        lines = (self.path / METRICS).read_text(encoding="utf-8").splitlines(keepends=True)
        kept = "".join(lines[: self._state["n_lines"]])
        write_whole(self.path / METRICS, lambda part: part.write_text(kept, encoding="utf-8"))

    def _save(self) -> None:
        self._state["seconds"] = self._seconds()
        write_whole(self.path / CHECKPOINT, lambda part: torch.save(self._state, part))

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._began


def _check_storable(value: Any, part: str) -> None:
    """Refuses what a checkpoint that is loaded as mere data cannot hold."""
    if isinstance(value, dict):
        entries: Iterable[Any] = [*value, *value.values()]
    elif isinstance(value, list | tuple):
        entries = value
    elif value is None or isinstance(value, bool | int | float | str | torch.Tensor):
        return
    else:
        raise InputError(
            f"{part} returned a {type(value).__name__}: return tensors, numbers, text, or lists "
            "and dicts of them"
        )
    for entry in entries:
        _check_storable(entry, part)
