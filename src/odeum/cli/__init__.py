"""The ``odeum`` command: its entry point, and how each kind of failure leaves.

Exit codes: 0 done, 1 the run failed, 2 the input was wrong, 130 interrupted by Ctrl-C. Whatever
went wrong is told in one line on stderr; only a defect of odeum itself shows a traceback.
"""

import os
import sys
from collections.abc import Sequence

import typer

from odeum.cli.commands import app
from odeum.errors import InputError, SolveError

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130

__all__ = ["app", "main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit.

    Args:
        arguments: what follows ``odeum`` on the command line; that of this process if None.

    Raises:
        SystemExit: always, with the exit code.

    Example:
        >>> main(["list", "no-such-experiment"])
        Traceback (most recent call last):
        SystemExit: 2
    """
    sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    command = typer.main.get_command(app)
    try:
        code = command.main(args=arguments, prog_name="odeum", standalone_mode=False, obj=arguments)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _tell("interrupted", INTERRUPTED)
    except InputError as error:
        return _tell(f"error: {error}", WRONG_INPUT)
    except SolveError as error:
        return _tell(f"error: the run failed: {error}", FAILED)
    except BrokenPipeError:
        # Whoever read our output has read enough; what is still unwritten must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return _tell(f"error: {error.strerror or error}{where}", FAILED)
    except Exception as error:
        # Typer carries its own click, or uses the one installed: its errors have no common name.
        if not hasattr(error, "format_message"):
            raise
        return _tell(f"error: {error.format_message()} (odeum --help tells more)", WRONG_INPUT)


def _tell(message: str, code: int) -> int:
    print(" ".join(message.split()), file=sys.stderr)
    return code
