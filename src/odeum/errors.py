"""The errors odeum raises: what was given, what is allowed, what to try."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """An argument is wrong; the message says what was given, what is allowed, what to try."""


class DataError(InputError):
    """A data file is wrong; the message names the file and, where known, the row and column."""


class SolveError(RuntimeError):
    """A solve did not reach the end of its span; the message says where, why, what to try."""


class TraceError(InputError):
    """A field cannot be compiled; the message names the operation and its source line.

    Attributes:
        operation: what cannot be compiled, as torch calls it or in a few words.
        source: the user's line, ``file:line``; None where it is no line in particular.
    """

    def __init__(self, message: str, *, operation: str, source: str | None = None) -> None:
        super().__init__(message)
        self.operation = operation
        self.source = source


def unknown_name(kind: str, given: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not in a registry, with the nearest known one suggested.

    Args:
        kind: what the name stands for, singular, as the user would say it ("method").
        given: what the user wrote.
        known: every allowed name.

    Returns:
        The error, to be raised by the caller.

    Example:
        >>> str(unknown_name("method", "dorpi5", ["dopri5", "tsit5"]))
        "unknown method 'dorpi5': did you mean 'dopri5'? Known: dopri5, tsit5"
    """
    names = sorted(known)
    close = difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return InputError(f"unknown {kind} {given!r}: {hint}Known: {', '.join(names)}")
