"""Gradient descent on any loss over any batches, which goes on bit for bit where it stopped.

Owns the loop of one training, and its state as a checkpoint holds it. What is learned, from what
and with which optimiser is the caller's; files are `odeum.lab.study`'s.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from odeum.errors import InputError, SolveError
from odeum.lab.train import Loss
from odeum.types import Tensor

Rate = Callable[[float], float]
"""A factor of the learning rate, from the share of the training that is over, in [0, 1)."""


def cosine(final: float = 0.0, warm_up: float = 0.0) -> Rate:
    """Half a cosine from 1 to ``final``, after a linear rise over the first steps.

    Args:
        final: the factor at the end.
        warm_up: share of the steps over which it rises from 0 to 1, in [0, 1).

    Example:
        >>> rate = cosine(final=0.1)
        >>> rate(0.0), round(rate(0.5), 2), round(rate(1.0), 2)
        (1.0, 0.55, 0.1)
    """

    def rate(share: float) -> float:
        if share < warm_up:
            return share / warm_up
        over = (share - warm_up) / (1 - warm_up)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * over))

    return rate


@dataclass(frozen=True)
class Descent:
    """How one training goes.

    Attributes:
        optimiser: of the model's parameters, with the learning rates to start from.
        n_steps: optimiser steps, at least 1.
        batch: ``(step, generator) -> batch``; all randomness should come from the generator.
        loss: ``batch -> Loss``, or a scalar tensor, with its graph.
        rate: factor of the learning rates; see :data:`Rate`.
        clip: largest norm of the gradient; None for any.
        adjust: called between the backward pass and the step, for example to mend gradients.
        average: decay per step of a running average of the weights, which is then what is
            evaluated and kept; 0 for none.
        every: steps between lines of metrics; each is followed by an evaluation.
        evaluate: numbers about the model as it is, by name; called without gradients.
        keep: the evaluated number that decides which weights are kept; None for the last ones.
        better: whether "lower" or "higher" values of it are.
    """

    optimiser: torch.optim.Optimizer
    n_steps: int
    batch: Callable[[int, torch.Generator], Any]
    loss: Callable[[Any], Loss | Tensor]
    rate: Rate = field(default=lambda share: 1.0)
    clip: float | None = None
    adjust: Callable[[], None] | None = None
    average: float = 0.0
    every: int = 1
    evaluate: Callable[[], Mapping[str, float]] | None = None
    keep: str | None = None
    better: Literal["lower", "higher"] = "lower"

    def __post_init__(self) -> None:
        if self.n_steps < 1 or self.every < 1:
            raise InputError(
                f"n_steps is {self.n_steps} and every is {self.every}: give at least 1 for both"
            )
        if not 0 <= self.average < 1:
            raise InputError(f"average is {self.average}: give a number from 0 to below 1")
        if self.keep is not None and self.evaluate is None:
            raise InputError(f"keep is {self.keep!r}, but there is no evaluate to give it")


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        step: optimiser steps taken.
        n_evaluations: evaluations of the field over all of them, one after another.
        seconds: time spent on them, evaluations of the model included.
        best_step: the one whose weights are kept; 0 where none is yet.
        best_value: what decided it.
        done: whether training is over, and the model holds the weights to keep.
    """

    step: int = 0
    n_evaluations: int = 0
    seconds: float = 0.0
    best_step: int = 0
    best_value: float = math.nan
    done: bool = False


class Training:
    """One training: a model, how it descends, and how far it has come.

    Args:
        model: trained in place.
        descent: how.
        seed: of the batches' generator, and of whatever else draws from torch's own.
    """

    def __init__(self, model: nn.Module, descent: Descent, seed: int) -> None:
        self.progress = Progress()
        self._model, self._descent = model, descent
        self._seed = seed
        self._generator = torch.Generator().manual_seed(seed)
        self._rates = [group["lr"] for group in descent.optimiser.param_groups]
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._average = copy.deepcopy(model.state_dict()) if descent.average else None
        self._best: dict[str, Tensor] | None = None
        self._rng = torch.Generator().manual_seed(seed).get_state()

    def lines(self) -> Iterator[dict[str, Any]]:
        """Trains to the end, a line of metrics at a time.

        Yields:
            step, mean loss, learning rate, evaluations of the field per step, seconds, and what
            was evaluated. Between two lines the state may be saved.

        Raises:
            SolveError: where the loss is not finite.
        """
        while not self.progress.done:
            with torch.random.fork_rng(devices=_cuda_devices(self._parameters)):
                torch.set_rng_state(self._rng)
                line = self._line()
                self._rng = torch.get_rng_state()
            if self.progress.step == self._descent.n_steps:
                self._finish()
            yield line

    def state(self) -> dict[str, Any]:
        """All that decides how it goes on, for a checkpoint."""
        return {
            "model": self._model.state_dict(),
            "optimiser": self._descent.optimiser.state_dict(),
            "average": self._average,
            "best": self._best,
            "progress": vars(self.progress),
            "generator": self._generator.get_state(),
            "torch_rng": self._rng,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a state from a checkpoint.

        Raises:
            InputError: where it is that of another model.
        """
        try:
            self._model.load_state_dict(state["model"])
            self._descent.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"the checkpoint is of another model ({reason}): resume with what the run was "
                "started with"
            ) from error
        self._average, self._best = state["average"], state["best"]
        self.progress = Progress(**state["progress"])
        self._generator.set_state(state["generator"])
        self._rng = state["torch_rng"]

    def _line(self) -> dict[str, Any]:
        """Steps up to the next line."""
        start = time.perf_counter()
        descent, progress = self._descent, self.progress
        n_steps = min(
            descent.every - progress.step % descent.every, descent.n_steps - progress.step
        )
        losses, n_evaluations, n_failed = [], 0, 0
        for _ in range(n_steps):
            found = self._step()
            losses.append(float(found.value.detach()))
            n_evaluations += found.n_evaluations
            n_failed += found.n_failed
        progress.n_evaluations += n_evaluations
        line: dict[str, Any] = {
            "step": progress.step,
            "loss": sum(losses) / n_steps,
            "lr": descent.optimiser.param_groups[0]["lr"],
            "n_evaluations": n_evaluations / n_steps,
            "n_failed": n_failed,
        }
        if descent.evaluate is not None:
            line |= self._evaluated(descent.evaluate)
        line["seconds"] = time.perf_counter() - start
        progress.seconds += line["seconds"]
        return line

    def _step(self) -> Loss:
        descent, progress = self._descent, self.progress
        factor = descent.rate(progress.step / descent.n_steps)
        for group, rate in zip(descent.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        descent.optimiser.zero_grad()
        found = descent.loss(descent.batch(progress.step, self._generator))
        found = found if isinstance(found, Loss) else Loss(found)
        if not bool(torch.isfinite(found.value)):
            raise SolveError(
                f"the loss of step {progress.step + 1} is {float(found.value.detach())}: try a "
                "smaller learning rate, or another seed"
            )
        found.value.backward()
        if descent.adjust is not None:
            descent.adjust()
        if descent.clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, descent.clip)
        descent.optimiser.step()
        progress.step += 1
        if self._average is not None:
            self._add_to_average(self._average)
        return found

    def _add_to_average(self, average: dict[str, Tensor]) -> None:
        # Young averages forget faster: the weights that training began with count for nothing.
        step = self.progress.step
        decay = min(self._descent.average, step / (step + 10))
        with torch.no_grad():
            for name, value in self._model.state_dict().items():
                if value.is_floating_point():
                    average[name].lerp_(value, 1 - decay)
                else:
                    average[name].copy_(value)

    def _evaluated(self, evaluate: Callable[[], Mapping[str, float]]) -> dict[str, float]:
        """What is to be known of the weights that would be kept now; they may become the best."""
        own = None
        if self._average is not None:
            own = _copied(self._model.state_dict())
            self._model.load_state_dict(self._average)
        with torch.no_grad():
            found = {name: float(value) for name, value in evaluate().items()}
        keep, progress = self._descent.keep, self.progress
        if keep is not None:
            if keep not in found:
                raise InputError(f"keep is {keep!r}, but evaluate gives {', '.join(found)}")
            sign = 1 if self._descent.better == "lower" else -1
            better = progress.best_step == 0 or sign * found[keep] < sign * progress.best_value
            if math.isfinite(found[keep]) and better:
                progress.best_step, progress.best_value = progress.step, found[keep]
                self._best = _copied(self._model.state_dict())
        if own is not None:
            self._model.load_state_dict(own)
        return found

    def _finish(self) -> None:
        """Leaves the weights to keep in the model."""
        kept = self._best if self._descent.keep is not None else self._average
        if kept is not None:
            self._model.load_state_dict(kept)
        if kept is not self._best or kept is None:
            self.progress.best_step = self.progress.step
        self.progress.done = True


def _copied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in weights.items()}


def _cuda_devices(parameters: list[nn.Parameter]) -> list[int]:
    return sorted({p.get_device() for p in parameters if p.is_cuda})
