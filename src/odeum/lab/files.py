"""Files that are whole or absent, JSON without NaN, checkpoints. Knows nothing of learning."""

import contextlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from odeum.errors import InputError

CHECKPOINT = "checkpoint.pt"


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` make a file beside ``path``, then rename it there.

    Whoever reads ``path`` sees the old file or the new one, never a part.

    Args:
        path: the file to make or replace.
        write: given the path to write to.

    Raises:
        InputError: if the folder cannot be written.
        KeyboardInterrupt: at Ctrl-C, also where ``write`` fails anew while it stops.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(Path(folder, "a.txt"), lambda part: part.write_text("whole"))
        ...     Path(folder, "a.txt").read_text()
        'whole'
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, path)
    except Exception as error:
        interrupt = interrupt_behind(error)
        if interrupt is not None:
            raise interrupt from None
        if isinstance(error, OSError):
            raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
        raise
    finally:
        # Where nothing can be written, nothing can be removed: the error above says so.
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def interrupt_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C that led to an error: torch's writer fails anew where it is stopped half way.

    Args:
        error: what was caught.

    Returns:
        The interrupt, None where there is none behind it.

    Example:
        >>> try:
        ...     try:
        ...         raise KeyboardInterrupt
        ...     finally:
        ...         raise RuntimeError("half a file")
        ... except RuntimeError as error:
        ...     interrupt_behind(error)
        KeyboardInterrupt()
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, numbers that are not finite as null.

    Args:
        path: the file to make or replace.
        value: dicts, lists, numbers, text.

    Raises:
        InputError: if the folder cannot be written.
    """
    text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def finite(value: Any) -> Any:
    """``value`` with None in place of NaN and infinity, tuples as lists.

    Example:
        >>> finite({"a": (1.0, float("nan"))})
        {'a': [1.0, None]}
    """
    if isinstance(value, dict):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_checkpoint(run_dir: Path) -> dict[str, Any]:
    """The checkpoint of a run, its tensors on the CPU.

    Args:
        run_dir: holds checkpoint.pt.

    Raises:
        InputError: if there is none, or it is damaged.
    """
    path = run_dir / CHECKPOINT
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: the run ended before its first epoch") from None
    except Exception as error:
        raise InputError(f"{path} is no checkpoint of odeum, or damaged: {error}") from error
