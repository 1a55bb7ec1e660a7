"""odeum's errors where torchdiffeq raises others: scripts that catch either go on working."""

from odeum.errors import InputError, SolveError


class ArgumentError(InputError, AssertionError):
    """A wrong argument that torchdiffeq answers with an AssertionError.

    Example:
        >>> issubclass(ArgumentError, AssertionError), issubclass(ArgumentError, ValueError)
        (True, True)
    """


class ArgumentTypeError(InputError, TypeError):
    """A wrong argument that torchdiffeq answers with a TypeError."""


class StepError(SolveError, AssertionError):
    """A failed solve, which torchdiffeq answers with an AssertionError."""
