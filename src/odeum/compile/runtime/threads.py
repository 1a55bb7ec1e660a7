"""Torch's own threads, by the OpenMP library that it has loaded.

After a parallel piece of work they look out for the next one for about a millisecond, so that in a
training loop a kernel finds them awake.
"""

import ctypes
import os
from functools import cache

NO_TEAM = (0, 0, 0)
"""In place of the addresses where there is no such library."""

SURE_STACK = 2**19
"""Bytes of stack that a thread has whatever the system and its settings."""

_LIBRARY = "libgomp.so.1"
_NAMES = ("GOMP_parallel", "omp_get_num_threads", "omp_get_thread_num")

_forked = False


def team() -> tuple[int, int, int]:
    """Addresses of what runs a function on a team, of its size and of a member's number.

    Example:
        >>> len(team())
        3
    """
    # Threads do not live on in a forked process, where GNU's library would wait for them forever.
    return NO_TEAM if _forked else _team()


@cache
def stack_room() -> int:
    """Bytes of stack that a kernel may take on these threads.

    Half of what threads get where nothing else is asked for: eight megabytes on most systems.

    Example:
        >>> stack_room() >= SURE_STACK
        True
    """
    if {"OMP_STACKSIZE", "GOMP_STACKSIZE"} & set(os.environ):
        return SURE_STACK
    size, attributes = ctypes.c_size_t(), ctypes.create_string_buffer(256)
    try:
        library = ctypes.CDLL(None)
        failed = library.pthread_getattr_default_np(attributes)
        failed = failed or library.pthread_attr_getstacksize(attributes, ctypes.byref(size))
    except (OSError, AttributeError, TypeError):  # not a system with GNU's library
        return SURE_STACK
    return SURE_STACK if failed else max(SURE_STACK, size.value // 2)


@cache
def _team() -> tuple[int, int, int]:
    if not hasattr(os, "RTLD_NOLOAD"):
        return NO_TEAM
    try:
        library = ctypes.CDLL(_LIBRARY, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        functions = [getattr(library, name) for name in _NAMES]
    except (OSError, AttributeError):
        return NO_TEAM
    parallel, size, number = (ctypes.cast(x, ctypes.c_void_p).value or 0 for x in functions)
    return parallel, size, number


def _notice_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_notice_fork)
