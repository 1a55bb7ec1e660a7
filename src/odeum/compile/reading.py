"""What code can read: the names it mentions, and where Python finds what they stand for."""

import dis
import functools
import sys
import types
from collections.abc import Iterator
from typing import Any

from odeum.compile.sources import is_users


@functools.cache
def names_of(code: types.CodeType) -> tuple[frozenset[str], tuple[str, ...]]:
    """Every name that code mentions (``=name`` too where it assigns it), and globals it reads."""
    names, reads = set(code.co_names), []
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            reads.append(instruction.argval)
        elif instruction.opname in ("STORE_ATTR", "STORE_GLOBAL"):
            names.add(f"={instruction.argval}")
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner, inner_reads = names_of(constant)
            names |= inner
            reads += inner_reads
    return frozenset(names), tuple(dict.fromkeys(reads))


def function_of(value: Any) -> Any:
    """The function behind what stands in a class."""
    if isinstance(value, property):
        return value.fget
    if isinstance(value, staticmethod | classmethod):
        return value.__func__
    if isinstance(value, functools.cached_property):
        return value.func
    return value


def static(owner: str, key: str, value: Any) -> str:
    """How the function behind what stands in a class is reached."""
    place = f"{owner}.__dict__[{key!r}]"
    if isinstance(value, property):
        return f"{place}.fget"
    if isinstance(value, staticmethod | classmethod):
        return f"{place}.__func__"
    if isinstance(value, functools.cached_property):
        return f"{place}.func"
    return place


def entry(label: str, key: Any) -> str:
    """What belongs to something, as the user would name it.

    Example:
        >>> entry("net", "weight"), entry("sizes", 0)
        ('net.weight', 'sizes[0]')
    """
    if not isinstance(key, str):
        return f"{label}[{key!r}]"
    return f"{label}.{key}" if label else key


def is_empty(cell: types.CellType) -> bool:
    """Whether a closure's variable has no value yet."""
    try:
        return cell.cell_contents is cell
    except ValueError:
        return True


def slots_of(kind: type) -> Iterator[str]:
    """The attributes that instances of a class have without a dictionary."""
    for owner in kind.__mro__:
        slots = vars(owner).get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


def is_of_users(x: type | types.ModuleType) -> bool:
    """Whether a module or a class is the user's, or a field's that comes with odeum."""
    name = x.__name__ if isinstance(x, types.ModuleType) else x.__module__
    if name == "builtins" or name in sys.builtin_module_names:
        return False
    filename = getattr(sys.modules.get(name), "__file__", None)
    return filename is None or is_users(filename)  # what is typed at a prompt has no file
