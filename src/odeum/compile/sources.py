"""Where in the user's files something happens: the first frame outside torch and the engines."""

import os
import sys
from functools import cache
from types import FrameType

import numpy as np
import torch

from odeum import errors


def _directory(module: object) -> str:
    return os.path.dirname(str(getattr(module, "__file__", ""))) + os.sep


_PYTHON, _ODEUM = _directory(os), _directory(errors)
_LIBRARIES = (_directory(torch), _directory(np), "<frozen ")
# Fields of odeum's own are read like the user's: what they do is told by their lines.
_FIELDS = tuple(_ODEUM + part for part in ("systems", "models"))


def current_source() -> str | None:
    """The user's line that is being executed, ``file:line``."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def source_of(error: BaseException) -> str | None:
    """The user's line that an error came through last."""
    found, at = None, error.__traceback__
    while at is not None:
        if is_users(at.tb_frame.f_code.co_filename):
            found = f"{os.path.basename(at.tb_frame.f_code.co_filename)}:{at.tb_lineno}"
        at = at.tb_next
    return found


def first_line(error: BaseException) -> str:
    """What an error says, as part of a sentence."""
    return str(error).partition("\n")[0] or type(error).__name__


@cache
def is_users(filename: str) -> bool:
    """Whether a file is the user's, or one of the fields that come with odeum.

    Example:
        >>> is_users("model.py"), is_users(torch.nn.__file__), is_users(os.__file__)
        (True, False, False)
    """
    if filename.startswith(_LIBRARIES):
        return False
    if filename.startswith(_PYTHON) and "site-packages" not in filename:
        return False
    return not filename.startswith(_ODEUM) or filename.startswith(_FIELDS)
