"""Machine code kept on disk, for processes to come.

Several processes may use the folder at once, and anything in it may be damaged or missing: an
entry is read whole and checked, or made anew.
"""

import contextlib
import hashlib
import os
from pathlib import Path

from odeum.errors import InputError
from odeum.files import cache_folder, write_whole

LARGEST_NUMBER = 1000
"""Entries kept: the ones used last."""

MARK = b"odeum kernel 1\n"


def folder() -> Path:
    """Where kernels are kept: ``ODEUM_CACHE``, or the user's folder for what can be made again.

    Example:
        >>> import os
        >>> os.environ.get("ODEUM_CACHE") is not None or folder().name == "kernels"
        True
    """
    own = os.environ.get("ODEUM_CACHE")
    return Path(own) if own else cache_folder("kernels")


def read(key: str) -> bytes | None:
    """What is kept under a key; None where there is nothing, or nothing whole.

    Args:
        key: a name made of letters and digits.
    """
    path = folder() / key
    try:
        content = path.read_bytes()
    except OSError:
        return None
    start = len(MARK) + hashlib.sha256().digest_size
    payload = content[start:]
    if content[:start] != MARK + hashlib.sha256(payload).digest():
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # used last now
    return payload


def holds(key: str) -> bool:
    """Whether anything is kept under a key."""
    return (folder() / key).is_file()


def write(key: str, payload: bytes) -> None:
    """Keeps bytes under a key, where the disk lets it: a kernel that is not kept still runs."""
    path = folder() / key
    content = MARK + hashlib.sha256(payload).digest() + payload
    with contextlib.suppress(OSError, InputError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(path, lambda part: part.write_bytes(content))
        _prune(path.parent)


def _prune(kept_in: Path) -> None:
    entries = [entry for entry in os.scandir(kept_in) if entry.is_file()]
    if len(entries) <= LARGEST_NUMBER:
        return
    entries.sort(key=lambda entry: entry.stat().st_mtime)
    for entry in entries[: len(entries) - LARGEST_NUMBER]:
        with contextlib.suppress(OSError):
            os.unlink(entry.path)
