"""Files that are whole or absent, and where to keep them. Knows nothing of what is in them."""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from odeum.errors import InputError


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


def cache_folder(name: str) -> Path:
    """The user's folder for what odeum can make or fetch again; it need not exist.

    Args:
        name: of a folder for one kind of it.

    Example:
        >>> cache_folder("kernels").name
        'kernels'
    """
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "odeum" / name
