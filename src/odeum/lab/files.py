"""JSON without NaN, and checkpoints. Knows nothing of learning."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from odeum.errors import InputError
from odeum.files import write_whole

CHECKPOINT = "checkpoint.pt"


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
    """``value`` with None in place of NaN and infinity, tuples, tensors and arrays as lists.

    Example:
        >>> finite({"a": (1.0, float("nan"))})
        {'a': [1.0, None]}
    """
    if isinstance(value, dict):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return finite(value.tolist())
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
