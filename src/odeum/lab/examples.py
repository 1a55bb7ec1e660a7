"""Trains any model that has a loss, batch by batch, from examples.

Owns how examples become batches and which weights are kept. The loop and the run directory are
`odeum.lab.study`'s.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset, default_collate

from odeum.errors import InputError
from odeum.lab.descent import Descent, cosine
from odeum.lab.devices import choose_device
from odeum.lab.registry import Setting
from odeum.lab.study import Study
from odeum.lab.wording import number
from odeum.models import Learnable
from odeum.models.learnable import HIGHER_IS_BETTER, measure
from odeum.types import Tensor

Examples = Tensor | Sequence[Tensor] | Dataset

AT_ONCE = 1024
"""Examples that are judged in one batch."""

SHOWN = 200
"""Held-out examples of which predictions.csv tells how the model does."""


@dataclass(frozen=True, eq=False)
class Learned:
    """A model trained from examples.

    Attributes:
        path: the run directory.
        summary: what summary.json says.
        model: with the weights that were kept.
    """

    path: Path
    summary: dict[str, Any]
    model: Any


@dataclass(frozen=True)
class _Options:
    """What decides how training goes, for config.json."""

    model: str
    n_weights: int
    n_examples: int
    examples: str
    epochs: int
    batch_size: int
    holdout: float
    learning_rate: float
    weight_decay: float


def fit_examples(
    model: Learnable,
    data: Examples,
    *,
    validation: Examples | None = None,
    name: str = "fit",
    title: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    epochs: int = 20,
    batch_size: int = 128,
    holdout: float = 0.2,
    learning_rate: float = 1e-2,
    weight_decay: float = 0.0,
    device: str = "auto",
    quiet: bool = False,
    command: str = "",
) -> Learned:
    """Train a model by its own loss, and keep the weights that do best on held-out examples.

    The optimiser is AdamW, its rate falls along a cosine. After every epoch the model is judged on
    the held-out examples by the first of its ``metrics``, or by its loss.

    Args:
        model: a module with ``loss(*batch)``, and maybe ``metrics(*batch)``; trained in place.
        data: a tensor or several whose first axis are the examples, or a ``Dataset`` with a length.
        validation: examples to judge by; some of ``data``, drawn at random, if None.
        name: of the run.
        title: of the report.
        out: the run directory, new or empty; None for the first free ``runs/<name>-<n>``.
        resume: continue the run in ``out`` where it stopped, as if it had not.
        seed: of the batches and of what is held out.
        epochs: passes through the examples, at least 1.
        batch_size: examples in a batch, at least 1.
        holdout: fraction of the examples held out, in [0, 1), where ``validation`` is None; with 0
            the training examples decide.
        learning_rate: at the start.
        weight_decay: of AdamW.
        device: "auto", "cpu" or "cuda"; "auto" takes the GPU, if any, for large models.
        quiet: show no progress.
        command: how to repeat the run, for the report.

    Returns:
        The run; its directory holds config.json, metrics.jsonl, checkpoint.pt, predictions.csv
        (held-out examples, with what the model makes of each), figures/, summary.json, report.html.

    Raises:
        InputError: for an argument that cannot be used.
        SolveError: if a loss is not finite.
    """
    examples = _dataset(data)
    _check(model, examples, epochs, batch_size, holdout, learning_rate, weight_decay)
    assert isinstance(model, nn.Module)
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed)).tolist()
    n_held_out = round(holdout * len(examples)) if validation is None else 0
    train, held_out = order[n_held_out:], order[:n_held_out]
    judge, judged = (examples, held_out or train)
    if validation is not None:
        judge = _dataset(validation)
        judged = list(range(len(judge)))
    n_weights = sum(p.numel() for p in model.parameters())
    options = _Options(
        type(model).__qualname__,
        n_weights,
        len(examples),
        _fingerprint(examples),
        epochs,
        batch_size,
        holdout,
        learning_rate,
        weight_decay,
    )
    setting = Setting(Path(out) if out is not None else None, seed, device, resume, quiet)
    place = choose_device(device, n_weights)
    model.to(place)

    def batch_of(source: Dataset, chosen: Sequence[int]) -> tuple[Tensor, ...]:
        return tuple(x.to(place) for x in _stacked(source, chosen))

    def judged_by() -> dict[str, float]:
        parts = [judged[i : i + AT_ONCE] for i in range(0, len(judged), AT_ONCE)]
        return _means([(len(part), measure(model, batch_of(judge, part))) for part in parts])

    n_steps = -(-len(train) // batch_size)
    study = Study.begin(
        name,
        options,
        setting,
        title=title or f"{type(model).__name__}, learned from {len(train)} examples",
        n_weights=n_weights,
        command=command or f"odeum.fit(model, data, seed={seed}, epochs={epochs})",
    )
    with torch.random.fork_rng():
        decisive = next(iter(measure(model, batch_of(judge, judged[:2]))))
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=weight_decay)
    progress = study.learn(
        "training",
        model,
        Descent(
            optimiser,
            epochs * n_steps,
            _Batches(train, batch_size, lambda chosen: batch_of(examples, chosen)),
            lambda batch: model.loss(*batch),
            rate=cosine(final=0.01),
            every=n_steps,
            evaluate=lambda: {f"held_out_{key}": x for key, x in judged_by().items()},
            keep=f"held_out_{decisive}",
            better="higher" if decisive in HIGHER_IS_BETTER else "lower",
        ),
    )
    found = judged_by()
    rows = [(i, measure(model, batch_of(judge, [i]))) for i in sorted(judged[:SHOWN])]
    table = pd.DataFrame([{"example": i, **_means([(1, found)])} for i, found in rows])
    held = "held-out" if held_out or validation is not None else "training"
    finished = study.finish(
        sentence=f"Learned from {len(train)} examples; {decisive} on {len(judged)} {held} examples "
        f"is {number(found[decisive], trim=True)}, best after epoch "
        f"{progress.best_step // n_steps} of {epochs}.",
        predictions=table,
        result={f"held_out_{key}": value for key, value in found.items()},
    )
    return Learned(finished.path, finished.summary, model)


class _Batches:
    """Examples in an order of its own for every epoch, a batch at a time."""

    def __init__(
        self, train: list[int], size: int, batch_of: Callable[[list[int]], tuple[Tensor, ...]]
    ) -> None:
        self._train, self._size, self._batch_of = train, size, batch_of
        self._n = -(-len(train) // size)

    def __call__(self, step: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        epoch, within = divmod(step, self._n)
        # From the epoch's number alone, so that a resumed run needs nothing of what came before.
        shuffle = torch.Generator().manual_seed(generator.initial_seed() + epoch)
        order = torch.randperm(len(self._train), generator=shuffle)
        chosen = order[within * self._size : (within + 1) * self._size].tolist()
        return self._batch_of([self._train[i] for i in chosen])


def _dataset(data: Any) -> Any:
    """Examples as a dataset with a length."""
    if isinstance(data, Tensor):
        data = (data,)
    if isinstance(data, tuple | list) and data and all(isinstance(x, Tensor) for x in data):
        lengths = {len(x) if x.ndim else 0 for x in data}
        if len(lengths) > 1:
            shapes = ", ".join(str(list(x.shape)) for x in data)
            raise InputError(f"the tensors have shapes {shapes}: their first axes must be equal")
        return TensorDataset(*data)
    if not (isinstance(data, Dataset) and hasattr(data, "__len__")):
        raise InputError(
            f"data is a {type(data).__name__}: give a tensor, a tuple of tensors whose first axis "
            "are the examples, a torch.utils.data.Dataset with a length, or "
            "odeum.datasets.Trajectories"
        )
    return data


def _stacked(source: Any, chosen: Sequence[int]) -> tuple[Tensor, ...]:
    if isinstance(source, TensorDataset):
        return tuple(x[list(chosen)] for x in source.tensors)
    found = default_collate([source[i] for i in chosen])
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def _means(parts: list[tuple[int, dict[str, Tensor]]]) -> dict[str, float]:
    """Means over parts of so many examples each."""
    n = sum(size for size, _ in parts)
    return {
        name: sum(size * float(found[name]) for size, found in parts) / n for name in parts[0][1]
    }


def _fingerprint(examples: Any) -> str:
    """That of every number where they are tensors; else of the first and the last example."""
    if isinstance(examples, TensorDataset):
        tensors: Sequence[Tensor] = examples.tensors
    else:
        tensors = _stacked(examples, [0, len(examples) - 1])
    digest = hashlib.sha256()
    for x in tensors:
        digest.update(str((x.dtype, tuple(x.shape))).encode())
        digest.update(x.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check(
    model: Any,
    examples: Any,
    epochs: int,
    batch_size: int,
    holdout: float,
    learning_rate: float,
    weight_decay: float,
) -> None:
    if not isinstance(model, nn.Module) or not any(p.requires_grad for p in model.parameters()):
        raise InputError("the model has no weights to train: give an nn.Module with parameters")
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is {value!r}: give a whole number of at least 1")
    if not 0 <= holdout < 1:
        raise InputError(f"holdout is {holdout}: give a number from 0 to below 1")
    for name, number_ in (("learning_rate", learning_rate), ("weight_decay", weight_decay)):
        if not 0 <= number_ < 10:
            raise InputError(f"{name} is {number_}: give a number from 0 to 10, such as 0.01")
    n_left = len(examples) - round(holdout * len(examples))
    if len(examples) < 2 or n_left < 1:
        raise InputError(f"there are {len(examples)} examples: give at least 2, and train on some")
