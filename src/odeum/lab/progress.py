"""The live line of a training: loss, held-out error, rate, time that remains."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(n_epochs: int, *, quiet: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Follow a training on the terminal.

    Args:
        n_epochs: epochs in all, or optimiser steps.
        quiet: show nothing; nothing is shown either where stdout is not a terminal.

    Yields:
        A function to call with each line of metrics.jsonl.

    Example:
        >>> with progress_bar(10, quiet=True) as show:
        ...     show({"epoch": 1, "loss": 0.5, "held_out": None, "seconds": 0.1, "window": 2})
    """
    if quiet or not sys.stdout.isatty():
        yield lambda line: None
        return
    columns = (
        TextColumn("{task.fields[what]}"),
        BarColumn(bar_width=12),  # the line fits 80 columns
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}{task.fields[held_out]}"),
        TextColumn("{task.fields[rate]}/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("", total=n_epochs, what="", loss="–", held_out="", rate="–")
        over = 0

        def show(line: dict[str, Any]) -> None:
            nonlocal over
            at = line["epoch"] if "epoch" in line else line["step"]
            rate = (at - over) / line["seconds"] if line["seconds"] else 0
            over = at
            what = line["part"] if "part" in line else f"window {line['window']}"
            fields: dict[str, Any] = {"what": what, "loss": f"{line['loss']:.1e}"}
            fields["rate"] = f"{rate:.0f}" if rate >= 10 else f"{rate:.1g}"
            if line.get("held_out") is not None:
                fields["held_out"] = f"  held out {line['held_out']:.1e}"
            bar.update(task, completed=at, **fields)

        yield show
