"""What an experiment is, and how its options are read from ``key=value``.

Owns the parsing and its errors. Knows no particular experiment.
"""

import math
import shlex
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from odeum.errors import InputError, unknown_name
from odeum.lab.run import Finished

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


@dataclass(frozen=True)
class Setting:
    """Where and how an experiment is run; what it does is in its options.

    Attributes:
        out: the run directory, new or empty; None for the first free ``runs/<name>-<n>``.
        seed: of data, weights and batches, at least 0.
        device: "auto", "cpu" or "cuda".
        resume: continue the run in ``out`` where it stopped.
        quiet: show no progress.

    Raises:
        InputError: for a seed below 0.
    """

    out: Path | None = None
    seed: int = 0
    device: str = "auto"
    resume: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}: give a whole number of at least 0")


@dataclass(frozen=True)
class Experiment:
    """An experiment that ``odeum run`` knows by name.

    Attributes:
        name: how it is called.
        description: one line on what it shows.
        options: a frozen dataclass. A field is ``name: Annotated[type, meaning] = default``;
            ``__post_init__`` refuses values that make no sense.
        run: ``(options, setting) -> Run``, or what else is :class:`~odeum.lab.run.Finished`; writes
            a whole run directory.
    """

    name: str
    description: str
    options: Callable[..., Any]
    run: Callable[[Any, Setting], Finished]

    def command(self, options: Any, setting: Setting) -> str:
        """The line that repeats a run: options that are not the default, seed and device.

        Args:
            options: of this experiment.
            setting: of the run.

        Example:
            >>> from odeum.lab.experiments import EXPERIMENTS
            >>> spiral = EXPERIMENTS["spiral"]
            >>> spiral.command(spiral.options(noise=0.05), Setting(seed=3))
            'odeum run spiral --set noise=0.05 --seed 3'
        """
        words = ["odeum", "run", self.name]
        for entry in fields(options):
            value = getattr(options, entry.name)
            if value != entry.default:
                words += ["--set", f"{entry.name}={written(value)}"]
        words += ["--seed", str(setting.seed)]
        if setting.device != "auto":
            words += ["--device", setting.device]
        return shlex.join(words)


def describe_options(experiment: Experiment) -> list[tuple[str, str, str]]:
    """Name, default and meaning of every option, in order.

    Args:
        experiment: any.
    """
    defaults = experiment.options()
    return [
        (name, written(getattr(defaults, name)), meaning)
        for name, (_, meaning) in _kinds(defaults).items()
    ]


def read_options(experiment: Experiment, assignments: Sequence[str]) -> Any:
    """The options that ``--set key=value`` asks for, the others at their defaults.

    Args:
        experiment: whose options.
        assignments: ``key=value`` each. Numbers and words as they are; true and false as true,
            yes, on, 1 and their opposites; several numbers with commas between them.

    Returns:
        The experiment's options.

    Raises:
        InputError: for something else than ``key=value``, an unknown or repeated key, or a value
            of the wrong kind.

    Example:
        >>> from odeum.lab.experiments import EXPERIMENTS
        >>> read_options(EXPERIMENTS["spiral"], ["noise=0.05", "bias=yes"]).noise
        0.05
    """
    defaults = experiment.options()
    kinds = _kinds(defaults)
    given: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not key:
            raise InputError(f"--set takes key=value, got {assignment!r}")
        key = key.replace("-", "_")
        if key not in kinds:
            raise unknown_name(f"option of {experiment.name}", key, kinds)
        if key in given:
            raise InputError(f"--set gives {key} twice: give it once")
        given[key] = _value(key, kinds[key][0], text)
    return replace(defaults, **given)


def written(value: Any) -> str:
    """A value as ``--set`` takes it.

    Example:
        >>> written(True), written((32, 32)), written(0.02)
        ('true', '32,32', '0.02')
    """
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kinds(options: Any) -> dict[str, tuple[Any, str]]:
    """Type and meaning of every option."""
    hints = typing.get_type_hints(type(options), include_extras=True)
    return {name: typing.get_args(hint)[:2] for name, hint in hints.items()}


def _value(key: str, kind: Any, text: str) -> Any:
    """The value of type ``kind`` that ``text`` stands for."""
    if typing.get_origin(kind) is tuple:
        return tuple(_value(key, int, part.strip()) for part in text.split(","))
    if typing.get_origin(kind) is typing.Literal:
        if text not in typing.get_args(kind):
            raise unknown_name(f"value of {key}", text, typing.get_args(kind))
        return text
    if kind is bool:
        if text.lower() not in (*_TRUE, *_FALSE):
            raise InputError(f"--set {key}={text}: give true or false")
        return text.lower() in _TRUE
    if kind is str:
        return text
    assert kind in (int, float), kind
    try:
        value = kind(text)
    except ValueError:
        noun = "a whole number" if kind is int else "a number"
        raise InputError(f"--set {key}={text}: {text!r} is not {noun}") from None
    if not math.isfinite(value):
        raise InputError(f"--set {key}={text}: give a finite number")
    return value
